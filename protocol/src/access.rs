//! API keys, and the log of who did what.
//!
//! A key is `hw_ID_SECRET`: ID says which one it is, in hexadecimal digits, and may be seen by anyone; SECRET is 256 random
//! bits in hexadecimal. It is sent whole, as the bearer of `protocol::admin` and `protocol::agent`.

use headwater_model::{DeploymentName, KeyName, KeyRole};
use serde::{Deserialize, Serialize};

const BEGIN: &str = "hw_";

/// Puts a key together.
pub fn key_text(id: [u8; 4], secret: [u8; 32]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{BEGIN}{}_{}", hex(&id), hex(&secret))
}

/// Which key this is, by its own word; `None` for what is no key.
pub fn key_id(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(BEGIN)?.split_once('_')?;
    (!id.is_empty() && !secret.is_empty()).then_some(id)
}

/// A key wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateKey {
    /// What to call it.
    pub name: KeyName,
    /// What its bearer shall be.
    pub role: KeyRole,
    /// The deployments it shall be for; empty for all. An agent's key names at least one, an administrator's none.
    #[serde(default)]
    pub deployments: Vec<DeploymentName>,
}

/// A key that was made. The only time that it is seen.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key itself.
    pub key: String,
    /// What is known about it from now on.
    #[serde(flatten)]
    pub view: KeyView,
}

/// A key, without what makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// What it is called.
    pub name: KeyName,
    /// The part of it that may be seen.
    pub id: String,
    /// What its bearer is.
    pub role: KeyRole,
    /// The deployments it is for; empty for all.
    pub deployments: Vec<DeploymentName>,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// One deed of the log of who did what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// Its number.
    pub number: u64,
    /// When it was asked for, RFC 3339.
    pub at: String,
    /// What the key is called, by which it was asked for.
    pub who: String,
    /// The id of that key.
    pub key: String,
    /// What was asked for, as the command line calls it.
    pub what: String,
    /// The path of the request, which names what it was about.
    pub path: String,
    /// Of which deployment.
    pub deployment: Option<DeploymentName>,
    /// The restore that came of it.
    pub restore: Option<u64>,
    /// What became of it; `None` while it is not known, or when it was cut off.
    pub outcome: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_which_one_it_is() {
        let key = key_text([0, 1, 0xfe, 0xff], [7; 32]);
        assert_eq!(key.len(), 3 + 8 + 1 + 64);
        assert_eq!(key_id(&key), Some("0001feff"));
        for wrong in ["", "hw_", "hw_ab", "hw__x", "hw_ab_", "Hw_ab_x", "abcdef"] {
            assert_eq!(key_id(wrong), None, "{wrong}");
        }
    }
}
