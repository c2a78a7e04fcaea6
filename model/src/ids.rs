//! Names and ids. Each is a type of its own, so that none can be taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be a {kind}: use 1 to {max} of the characters a-z A-Z 0-9 . _ -, not beginning with a dot")]
pub struct InvalidName {
    /// What it should have named.
    pub kind: &'static str,
    /// The text given.
    pub name: String,
    /// The longest name allowed, in bytes.
    pub max: usize,
}

fn checked(kind: &'static str, name: &str) -> Result<String, InvalidName> {
    let fits = (1..=limits::NAME_MAX_BYTES).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits {
        Ok(name.to_owned())
    } else {
        Err(InvalidName {
            kind,
            name: name.to_owned(),
            max: limits::NAME_MAX_BYTES,
        })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks the text.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                checked($kind, name).map($type)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $type::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                $type::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.0
            }
        }
    };
}

name_type!(
    /// What a user calls a protected replica set or sharded cluster.
    DeploymentName,
    "deployment name"
);
name_type!(
    /// Names one retained image of a replica set; unique within the deployment.
    SnapshotId,
    "snapshot id"
);

name_type!(
    /// Names a master key, under which data keys are wrapped.
    MasterKeyId,
    "name of a master key"
);

name_type!(
    /// What people call an API key; unique within the cluster.
    KeyName,
    "name of a key"
);

/// A replica set within a deployment: the unit of streams, heads and stores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaSetId {
    deployment: DeploymentName,
    set: String,
}

impl ReplicaSetId {
    /// Checks the name of the set (as the server has it in `replSetGetStatus.set`).
    pub fn new(deployment: DeploymentName, set: &str) -> Result<Self, InvalidName> {
        Ok(ReplicaSetId {
            deployment,
            set: checked("replica set name", set)?,
        })
    }

    /// The deployment it belongs to.
    pub fn deployment(&self) -> &DeploymentName {
        &self.deployment
    }

    /// The set's own name.
    pub fn set(&self) -> &str {
        &self.set
    }
}

impl fmt::Display for ReplicaSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.set)
    }
}

impl FromStr for ReplicaSetId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (deployment, set) = text.split_once('/').unwrap_or((text, ""));
        ReplicaSetId::new(DeploymentName::new(deployment)?, set)
    }
}

impl TryFrom<String> for ReplicaSetId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ReplicaSetId> for String {
    fn from(value: ReplicaSetId) -> String {
        value.to_string()
    }
}

/// One unbroken history of a replica set since an initial sync. Counts up; never joined with another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The fencing number of an assignment. Every contested write carries one; a lower one is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! bytes_type {
    ($(#[$doc:meta])* $type:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub [u8; $len]);

        impl $type {
            /// Takes the bytes if there are exactly as many as needed.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map($type)
            }

            /// Reads what [`fmt::Display`] writes.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut out = [0; $len];
                hex::decode_to_slice(text, &mut out).ok()?;
                Some($type(out))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), hex::encode(&self.0[..4]))
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&hex::encode(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $type::from_hex(&text).ok_or_else(|| {
                    serde::de::Error::custom(concat!("expected ", $len, " bytes in hexadecimal"))
                })
            }
        }
    };
}

bytes_type!(
    /// The identity of a collection at its source. Names change, this does not.
    CollectionUuid,
    16
);
bytes_type!(
    /// BLAKE3 of a block's raw bytes, keyed where the store is encrypted: its name in every blockstore.
    BlockId,
    32
);
bytes_type!(
    /// Recognises a data key without telling anything of it.
    DataKeyId,
    8
);

/// A deployment's data key as it rests, in the control state and in the store: nobody reads it without the master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// Counts how often this data key was wrapped, from 1; the highest counts.
    pub revision: u64,
    /// Which data key.
    pub key: DataKeyId,
    /// What it is wrapped by.
    pub master: MasterKeyId,
    /// The sealed bytes, in hexadecimal.
    pub sealed: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_climb_out_of_a_folder_are_refused() {
        for wrong in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a b",
            "ü",
            &"x".repeat(limits::NAME_MAX_BYTES + 1),
        ] {
            assert!(DeploymentName::new(wrong).is_err(), "{wrong:?}");
        }
        for right in ["a", "prod-1", "A.b_c"] {
            assert!(DeploymentName::new(right).is_ok(), "{right:?}");
        }
    }

    #[test]
    fn a_replica_set_id_reads_back_what_it_writes() {
        let id: ReplicaSetId = "shop/rs0".parse().unwrap();
        assert_eq!(id.to_string().parse::<ReplicaSetId>().unwrap(), id);
        assert!("shop".parse::<ReplicaSetId>().is_err());
        assert!("a/b/c".parse::<ReplicaSetId>().is_err());
    }
}
