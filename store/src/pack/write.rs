//! Writing one closed pack. Order: pack durable → its blocks enter the index and stop pending. Reversed, a block
//! would be given out as durable that a crash takes away.

use bytes::Bytes;
use headwater_model::Epoch;

use super::{Inner, format, open};
use crate::objects::{Objects, Put, StoreError};

/// Makes the closed pack durable; nothing to do if it is already. After an error it is still pending.
pub async fn write(inner: &Inner, number: u64) -> Result<(), StoreError> {
    let Some((mut sequence, blocks)) = inner.state().closed(number) else {
        return Ok(());
    };
    if let Some(fence) = &inner.fence {
        fence.check().await?;
    }
    let (pack, entries) = format::write(blocks.iter().map(|(id, stored)| (*id, stored)));
    drop(blocks);
    loop {
        let key = open::key(&inner.folder, inner.epoch.unwrap_or(Epoch(0)), sequence);
        let ours = match inner.objects.put_new(&key, pack.clone()).await? {
            Put::Created => true,
            Put::Exists => is_ours(inner.objects.as_ref(), &key, &pack).await?,
        };
        if ours {
            inner.state().written(number, key, &entries);
            return Ok(());
        }
        sequence = inner.state().next_sequence(number);
    }
}

/// Whether the object there is this very pack: an earlier attempt that failed only in its answer.
async fn is_ours(objects: &dyn Objects, key: &str, pack: &Bytes) -> Result<bool, StoreError> {
    let mark = format::fingerprint(pack);
    let end = pack.len() as u64;
    match objects.get_range(key, end - mark.len() as u64..end).await {
        Ok(found) => Ok(found == mark),
        Err(StoreError::Damaged { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}
