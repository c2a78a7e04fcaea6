//! Keys: who may call the service. Only hashes are kept.

use std::collections::BTreeSet;

use headwater_model::{DeploymentName, KeyName, KeyRole, limits};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{RefusalKind, Response};
use crate::state::State;

/// An API key, without what makes it one.
///
/// The hash is a fast one, BLAKE3, and has no salt. That is right for keys, and would be wrong for passwords: a key has 256
/// random bits, so that nobody finds it by trying, however fast that is; and every request of every agent is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What people call it.
    pub name: KeyName,
    /// What its bearer is.
    pub role: KeyRole,
    /// The deployments it is for; empty for all, those to come included.
    pub scope: BTreeSet<DeploymentName>,
    /// BLAKE3 of the key as it is sent, 64 hexadecimal digits in lower case.
    pub hash: String,
    /// By the submitter's clock, milliseconds since 1970.
    pub created_ms: i64,
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn add(state: &mut State, id: &str, key: &Key) -> Answer {
    if key.hash.len() != 64 || !is_hexadecimal(&key.hash) {
        let message = "give the BLAKE3 of the key as 64 hexadecimal digits, never the key";
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    if id.is_empty() || id.len() > limits::NAME_MAX_BYTES || !is_hexadecimal(id) {
        let message = "the id of a key is a few hexadecimal digits";
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    if key.scope.len() > limits::KEY_SCOPE_MAX {
        let message = format!("a key is for {} deployments at most, or for all", limits::KEY_SCOPE_MAX);
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    match state.keys.get(id) {
        Some(known) if known.hash == key.hash && known.role == key.role && known.scope == key.scope => {
            return Ok(Response::Done);
        }
        Some(_) => {
            let message = format!("there is another key with the id {id}");
            return Err(Response::refused(RefusalKind::Conflict, message));
        }
        None => {}
    }
    if state.keys.values().any(|known| known.name == key.name) {
        let message = format!(
            "there is a key called {} already; revoke it first, or take another name",
            key.name
        );
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    if state.keys.len() >= limits::KEYS_MAX {
        let message = format!("there are {} keys already, which is the limit", limits::KEYS_MAX);
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    state.keys.insert(id.to_owned(), key.clone());
    Ok(Response::Done)
}

pub(crate) fn remove(state: &mut State, id: &str) -> Answer {
    match state.keys.remove(id) {
        Some(_) => Ok(Response::Done),
        None => Err(Response::refused(RefusalKind::NotFound, "there is no such key")),
    }
}
