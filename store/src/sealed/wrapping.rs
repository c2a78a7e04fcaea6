//! A data key, wrapped by a master key: sealed like an object ([`super::format`]) under the name `wrapped/<deployment>`,
//! with a key that follows from the master key. Wrapping it anew touches nothing that is sealed with it.

use headwater_host::Entropy;
use headwater_model::{DeploymentName, WrappedKey};

use super::format::{self, SALT, SealFault};
use super::secret::{DataKey, MasterKey, Secret};

/// Why a data key could not be unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapFault {
    /// Wrapped by other bytes.
    #[error("master key {0} is not the one of that name by which the data key was wrapped")]
    OtherMaster(String),
    /// Not what was written.
    #[error("the wrapped data key is damaged")]
    Damaged,
}

fn name(deployment: &DeploymentName) -> String {
    format!("wrapped/{deployment}")
}

/// Wraps a data key; `revision` counts from 1.
pub fn wrap(
    master: &MasterKey,
    deployment: &DeploymentName,
    key: &DataKey,
    revision: u64,
    entropy: &dyn Entropy,
) -> Result<WrappedKey, SealFault> {
    let mut salt = [0; SALT];
    entropy.fill(&mut salt);
    wrap_with(master, deployment, key, revision, &salt)
}

fn wrap_with(
    master: &MasterKey,
    deployment: &DeploymentName,
    key: &DataKey,
    revision: u64,
    salt: &[u8; SALT],
) -> Result<WrappedKey, SealFault> {
    let sealed = format::seal(&master.wrapping(), &name(deployment), salt, key.root().bytes())?;
    Ok(WrappedKey {
        revision,
        key: key.id(),
        master: master.id.clone(),
        sealed: hex::encode(sealed),
    })
}

/// Unwraps a data key.
pub fn unwrap(master: &MasterKey, deployment: &DeploymentName, wrapped: &WrappedKey) -> Result<DataKey, WrapFault> {
    let sealed = hex::decode(&wrapped.sealed).map_err(|_| WrapFault::Damaged)?;
    let root = format::open(&master.wrapping(), &name(deployment), &sealed).map_err(|fault| match fault {
        SealFault::OtherKey(_) => WrapFault::OtherMaster(master.id.to_string()),
        _ => WrapFault::Damaged,
    })?;
    let root = <[u8; 32]>::try_from(&root[..]).map_err(|_| WrapFault::Damaged)?;
    let key = DataKey::new(Secret::new(root));
    match key.id() == wrapped.key {
        true => Ok(key),
        false => Err(WrapFault::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use headwater_model::MasterKeyId;

    use super::*;

    fn master(id: &str, n: u8) -> MasterKey {
        MasterKey::new(MasterKeyId::new(id).unwrap(), Secret::new([n; 32]))
    }

    fn shop() -> DeploymentName {
        DeploymentName::new("shop").unwrap()
    }

    fn wrapped() -> WrappedKey {
        let key = DataKey::new(Secret::new([1; 32]));
        wrap_with(&master("k1", 2), &shop(), &key, 1, &[5; SALT]).unwrap()
    }

    #[test]
    fn a_wrapped_key_rests_in_these_bytes() {
        assert_eq!(wrapped().sealed, include_str!("fixture/wrapped_key.hex").trim());
        let key = unwrap(&master("k1", 2), &shop(), &wrapped()).unwrap();
        assert_eq!(key.root().bytes(), &[1; 32]);
    }

    #[test]
    fn only_the_master_key_opens_it_and_only_for_its_deployment() {
        let other = unwrap(&master("k1", 3), &shop(), &wrapped()).unwrap_err();
        assert_eq!(other, WrapFault::OtherMaster("k1".to_owned()));
        let elsewhere = unwrap(&master("k1", 2), &DeploymentName::new("bank").unwrap(), &wrapped());
        assert_eq!(elsewhere.unwrap_err(), WrapFault::Damaged);
        for digit in 0..wrapped().sealed.len() {
            let mut damaged = wrapped();
            let new = if damaged.sealed.as_bytes()[digit] == b'0' {
                "1"
            } else {
                "0"
            };
            damaged.sealed.replace_range(digit..=digit, new);
            assert!(unwrap(&master("k1", 2), &shop(), &damaged).is_err(), "digit {digit}");
        }
        let swapped = WrappedKey {
            key: DataKey::new(Secret::new([9; 32])).id(),
            ..wrapped()
        };
        assert_eq!(
            unwrap(&master("k1", 2), &shop(), &swapped).unwrap_err(),
            WrapFault::Damaged
        );
    }
}
