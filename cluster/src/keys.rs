//! Keys: who may call the service. Only hashes are kept.

use headwater_model::limits;
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{RefusalKind, Response};
use crate::state::State;

/// What the bearer of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyRole {
    /// Ship slices.
    Agent,
    /// Everything.
    Admin,
}

pub(crate) fn add(state: &mut State, hash: &str, role: KeyRole) -> Answer {
    let is_hash = hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        let message = "give the BLAKE3 of the key as 64 hexadecimal digits, never the key";
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    match state.keys.get(hash) {
        Some(known) if *known == role => Ok(Response::Done),
        Some(_) => {
            let message = "the key has another role already; remove it first";
            Err(Response::refused(RefusalKind::Conflict, message))
        }
        None if state.keys.len() >= limits::KEYS_MAX => {
            let message = format!("there are {} keys already, which is the limit", limits::KEYS_MAX);
            Err(Response::refused(RefusalKind::Limit, message))
        }
        None => {
            state.keys.insert(hash.to_owned(), role);
            Ok(Response::Done)
        }
    }
}

pub(crate) fn remove(state: &mut State, hash: &str) -> Answer {
    match state.keys.remove(hash) {
        Some(_) => Ok(Response::Done),
        None => Err(Response::refused(RefusalKind::NotFound, "there is no such key")),
    }
}
