//! What the bearer of a key is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A role. What each may do is a table in `service/src/rights.rs`, and for people in docs/ACCESS.md.
///
/// In the control state a role is its number: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRole {
    /// Ships slices of its deployments and does nothing else.
    Agent,
    /// Sees how everything stands, never the data.
    Viewer,
    /// Changes what is protected and how; gives no data back, and changes neither keys nor nodes.
    Operator,
    /// Sees, and gives data back.
    Restorer,
    /// Everything that users may do.
    Admin,
}

impl KeyRole {
    /// All of them.
    pub const ALL: [KeyRole; 5] = [
        KeyRole::Agent,
        KeyRole::Viewer,
        KeyRole::Operator,
        KeyRole::Restorer,
        KeyRole::Admin,
    ];

    /// Its word.
    pub fn text(self) -> &'static str {
        match self {
            KeyRole::Agent => "agent",
            KeyRole::Viewer => "viewer",
            KeyRole::Operator => "operator",
            KeyRole::Restorer => "restorer",
            KeyRole::Admin => "admin",
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
