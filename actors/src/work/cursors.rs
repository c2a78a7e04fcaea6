//! Where the cursor of a restore is kept: in the control state while it is short, else in the backing store, and the
//! control state names it.
//!
//! Order: the object is durable before the command that names it. An object is written anew each time under one name;
//! a newer cursor than the control state knows is as good: it only says that more is done.

use headwater_model::{ReplicaSetId, limits};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::load::Cursor;
use headwater_store::objects::StoreError;
use headwater_store::repository;

use crate::set::Set;
use crate::trouble::refusal;

/// What the control state holds in place of a cursor that lies in the store.
const IN_THE_STORE: &str = "in the store";

fn folder(set: &ReplicaSetId) -> String {
    format!("{}restores/", repository::prefix(set))
}

fn key(set: &ReplicaSetId, restore: u64) -> String {
    format!("{}{restore}/cursor.json", folder(set))
}

/// Makes a cursor durable where it is too long for the control state; gives what the control state shall hold.
pub async fn keep(set: &Set, restore: u64, cursor: &Cursor) -> Result<String, String> {
    let text = serde_json::to_string(cursor).map_err(|e| e.to_string())?;
    if text.len() <= limits::RESTORE_TEXT_MAX_BYTES {
        return Ok(text);
    }
    let put = set.repository.objects().put(&key(&set.id, restore), text.into()).await;
    put.map(|()| IN_THE_STORE.to_owned()).map_err(|e| e.to_string())
}

/// The cursor that the control state holds or names; the empty one where there is none.
pub async fn read(set: &Set, restore: u64, kept: &str) -> Result<Cursor, Refusal> {
    let damaged = |e: serde_json::Error| {
        let message = format!("the cursor of restore {restore} cannot be read: {e}; start the restore again");
        Refusal::new(RefusalKind::Internal, message)
    };
    match kept {
        "" => Ok(Cursor::default()),
        IN_THE_STORE => {
            let stored = set
                .repository
                .objects()
                .get(&key(&set.id, restore))
                .await
                .map_err(refusal)?;
            serde_json::from_slice(&stored).map_err(damaged)
        }
        text => serde_json::from_str(text).map_err(damaged),
    }
}

/// Removes what restores kept in the store that do not go on.
pub async fn remove_all_but(set: &Set, goes_on: impl Fn(u64) -> bool) -> Result<(), StoreError> {
    let all = folder(&set.id);
    for found in set.repository.objects().list(&all).await? {
        let id = found
            .key
            .strip_prefix(&all)
            .and_then(|rest| rest.split('/').next()?.parse().ok());
        if id.is_some_and(|id| !goes_on(id)) {
            set.repository.objects().delete(&found.key).await?;
        }
    }
    Ok(())
}

/// Removes what a restore that is over kept in the store.
pub async fn remove(set: &Set, restore: u64) {
    if let Err(error) = set.repository.objects().delete(&key(&set.id, restore)).await {
        tracing::warn!(restore, %error, "the cursor of a restore stays in the store");
    }
}
