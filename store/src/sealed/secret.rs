//! Keys in memory. They are overwritten when dropped, and never shown.

use std::fmt;
use std::sync::Arc;

use headwater_host::Entropy;
use headwater_model::{DataKeyId, MasterKeyId};
use zeroize::Zeroizing;

/// What a key is derived for; each gives another.
const FOR_ID: &str = "headwater 2026-11-23 id of a data key";
const FOR_OBJECTS: &str = "headwater 2026-11-23 sealing objects";
const FOR_BLOCK_IDS: &str = "headwater 2026-11-23 ids of blocks";
const FOR_WRAPPING: &str = "headwater 2026-11-23 wrapping data keys";

/// 256 bits that nobody shall see.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// A new one.
    pub fn random(entropy: &dyn Entropy) -> Secret {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(&mut bytes[..]);
        Secret(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Secret> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, &mut bytes[..]).ok()?;
        Some(Secret(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, purpose: &str) -> Secret {
        Secret::new(blake3::derive_key(purpose, &self.0[..]))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What everything of one deployment is sealed with. The root is what is wrapped; all else follows from it.
#[derive(Debug)]
pub struct DataKey {
    root: Secret,
    id: DataKeyId,
    objects: Secret,
    block_ids: Arc<Secret>,
}

impl DataKey {
    /// From its root.
    pub fn new(root: Secret) -> DataKey {
        let named = root.derive(FOR_ID);
        let mut id = DataKeyId([0; 8]);
        id.0.copy_from_slice(&named.bytes()[..8]);
        DataKey {
            id,
            objects: root.derive(FOR_OBJECTS),
            block_ids: Arc::new(root.derive(FOR_BLOCK_IDS)),
            root,
        }
    }

    /// A new one.
    pub fn random(entropy: &dyn Entropy) -> DataKey {
        DataKey::new(Secret::random(entropy))
    }

    /// What it is recognised by; follows from the key.
    pub fn id(&self) -> DataKeyId {
        self.id
    }

    pub(super) fn root(&self) -> &Secret {
        &self.root
    }

    pub(super) fn objects(&self) -> &Secret {
        &self.objects
    }

    pub(super) fn block_ids(&self) -> Arc<Secret> {
        self.block_ids.clone()
    }
}

/// A key that wraps data keys. It is never stored.
#[derive(Debug)]
pub struct MasterKey {
    /// Its name, chosen by whoever made it.
    pub id: MasterKeyId,
    secret: Secret,
}

impl MasterKey {
    /// A master key of this name.
    pub fn new(id: MasterKeyId, secret: Secret) -> MasterKey {
        MasterKey { id, secret }
    }

    /// A data key is sealed as an object is, with a key that follows from the master key.
    pub(super) fn wrapping(&self) -> DataKey {
        DataKey::new(self.secret.derive(FOR_WRAPPING))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let key = DataKey::new(Secret::new([7; 32]));
        let master = MasterKey::new(MasterKeyId::new("k1").unwrap(), Secret::new([9; 32]));
        for shown in [format!("{key:?}"), format!("{master:?}")] {
            for secret in [&key.root, &key.objects, key.block_ids.as_ref(), &master.secret] {
                assert!(
                    !shown.contains(&hex::encode(secret.bytes())) && !shown.contains("7, 7") && !shown.contains("9, 9")
                );
            }
        }
    }

    #[test]
    fn every_purpose_has_a_key_of_its_own() {
        let key = DataKey::new(Secret::new([7; 32]));
        let wrapping = key.root.derive(FOR_WRAPPING);
        let all = [key.root(), key.objects(), key.block_ids.as_ref(), &wrapping].map(|k| *k.bytes());
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one));
        }
        assert!(Secret::from_hex("07").is_none() && Secret::from_hex(&"0g".repeat(32)).is_none());
    }
}
