//! Opening a pack store: the end of every pack is read, several at once, and taken in in the order of their keys.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use headwater_model::Epoch;

use super::Inner;
use super::format::{self, End, Entry};
use crate::objects::{ObjectMeta, StoreError};

/// Holds the index of a pack of 700 blocks: more than a usual pack has.
const END_GUESS: u64 = 32 << 10;
const READS_AT_ONCE: usize = 16;

/// The key of a pack.
pub fn key(folder: &str, epoch: Epoch, sequence: u64) -> String {
    format!("{folder}{:016x}-{sequence:08x}.pack", epoch.0)
}

/// Epoch and sequence number out of a key; `None` for what is no pack.
fn parse(folder: &str, key: &str) -> Option<(Epoch, u64)> {
    let (epoch, sequence) = key.strip_prefix(folder)?.strip_suffix(".pack")?.split_once('-')?;
    Some((
        Epoch(u64::from_str_radix(epoch, 16).ok()?),
        u64::from_str_radix(sequence, 16).ok()?,
    ))
}

/// Lists all packs and takes in those not known yet.
pub async fn load(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let mut fresh = Vec::new();
    for pack in inner.objects.list(&inner.folder).await? {
        let Some((epoch, sequence)) = parse(&inner.folder, &pack.key) else {
            continue;
        };
        if let Some(ours) = inner.epoch {
            if epoch > ours {
                return Err(StoreError::Fenced {
                    key: pack.key,
                    ours: ours.0,
                    current: epoch.0,
                });
            }
            if epoch == ours {
                inner.state().sequence_taken(sequence);
            }
        }
        if !inner.state().knows(&pack.key) {
            fresh.push(pack);
        }
    }
    let mut ends = stream::iter(fresh)
        .map(|pack| read_index(inner, pack))
        .buffered(READS_AT_ONCE);
    while let Some((key, entries)) = ends.try_next().await? {
        let mut state = inner.state();
        match entries {
            Some(entries) => state.load(key, &entries),
            None => _ = state.damaged.insert(key),
        }
    }
    Ok(())
}

/// The index of a pack; `None` when it is damaged. One damaged pack must not keep all others from being read.
async fn read_index(inner: &Inner, pack: ObjectMeta) -> Result<(String, Option<Vec<Entry>>), StoreError> {
    let mut take = END_GUESS.min(pack.size);
    loop {
        let end = match inner.objects.get_range(&pack.key, pack.size - take..pack.size).await {
            Ok(end) => end,
            Err(StoreError::Damaged { key, detail }) => return Ok(damaged(key, &detail)),
            // Groomed since it was listed: what lives of it is durable elsewhere.
            Err(StoreError::NotFound(_)) => return Ok((pack.key, Some(Vec::new()))),
            Err(other) => return Err(other),
        };
        match format::read_end(pack.size, &end) {
            Ok(End::Index(entries)) => return Ok((pack.key, Some(entries))),
            Ok(End::Needs(bytes)) if bytes > take => take = bytes,
            Ok(End::Needs(_)) => return Ok(damaged(pack.key, &"its end is cut")),
            Err(fault) => return Ok(damaged(pack.key, &fault)),
        }
    }
}

fn damaged(key: String, fault: &dyn std::fmt::Display) -> (String, Option<Vec<Entry>>) {
    tracing::error!(%key, %fault, "a pack is damaged; its blocks count as absent");
    (key, None)
}
