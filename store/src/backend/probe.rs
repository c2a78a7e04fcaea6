//! Whether a service keeps the condition everything rests on: of several writers of one name, one wins.
//!
//! Some services ignore `If-None-Match`, some keep it unless two writers come at once. Both would let two daemons
//! extend one oplog, so both are looked for before anything is written that matters.

use futures::future::join_all;
use headwater_host::Host;

use crate::objects::{Objects, Put, StoreError};

const ROUNDS: usize = 3;
const WRITERS: u8 = 8;

/// Fails with [`StoreError::Refused`] when the service ignores conditions, and as the service does when it cannot be
/// written to at all.
pub async fn conditions(objects: &dyn Objects, host: &Host) -> Result<(), StoreError> {
    let run = host.entropy.number();
    for round in 0..ROUNDS {
        let key = format!("probe/{run:016x}-{round}");
        let raced = race(objects, &key).await;
        objects.delete(&key).await?;
        raced?;
    }
    Ok(())
}

async fn race(objects: &dyn Objects, key: &str) -> Result<(), StoreError> {
    let writers = (0..WRITERS).map(|n| objects.put_new(key, vec![n; 16].into()));
    let outcomes = join_all(writers).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let winners: Vec<u8> = (0..WRITERS)
        .filter(|n| outcomes[usize::from(*n)] == Put::Created)
        .collect();
    let late = objects.put_new(key, vec![WRITERS; 16].into()).await?;
    let stays = objects.get(key).await?;
    // A winner whose answer was lost on the way has not been told so: then there is none, which is no fault.
    let one = match winners.as_slice() {
        [] => true,
        [winner] => stays == vec![*winner; 16],
        _ => false,
    };
    if one && late == Put::Exists && stays.first() != Some(&WRITERS) {
        return Ok(());
    }
    let detail = "the service does not keep conditional writes (If-None-Match): of several writers of one new object more \
                  than one was told to be the first. Two daemons could destroy each other's oplog there. Use a service \
                  that keeps them, or, with a single daemon only, add conditions=warn to the store's URI";
    Err(StoreError::refused(key, detail))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::backend::memory::MemoryObjects;
    use crate::objects::ObjectMeta;

    /// Ignores conditions.
    struct Careless(MemoryObjects);

    #[async_trait]
    impl Objects for Careless {
        async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
            self.0.put(key, bytes).await.map(|()| Put::Created)
        }
        async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
            self.0.put(key, bytes).await
        }
        async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
            self.0.get(key).await
        }
        async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
            self.0.get_range(key, range).await
        }
        async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
            self.0.list(prefix).await
        }
        async fn delete(&self, key: &str) -> Result<(), StoreError> {
            self.0.delete(key).await
        }
    }

    #[tokio::test]
    async fn a_service_that_ignores_conditions_is_found_out_and_nothing_stays() {
        let (host, memory) = (Host::real().unwrap(), MemoryObjects::new());
        conditions(&memory, &host).await.unwrap();
        let refused = conditions(&Careless(memory.clone()), &host).await.unwrap_err();
        assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
        assert!(memory.contents().is_empty());
    }
}
