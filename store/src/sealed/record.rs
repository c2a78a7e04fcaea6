//! Wrapped data keys in the store, so that the store and a master key alone are enough to read what is sealed:
//! `keys/<deployment>/<data key>-<revision>`, notes of the kind `data-key`; the revision is 16 hexadecimal digits, and the
//! highest counts. A note is itself not sealed.
//!
//! Write order: the note of a data key is durable before the first object that is sealed with it, and the note of a
//! revision before those below it go.

use std::collections::BTreeMap;

use headwater_model::{DataKeyId, DeploymentName, WrappedKey};
use serde::{Deserialize, Serialize};

use crate::note;
use crate::objects::{Objects, Put, StoreError};

const KIND: &str = "data-key";

#[derive(PartialEq, Serialize, Deserialize)]
struct Record {
    deployment: DeploymentName,
    #[serde(flatten)]
    wrapped: WrappedKey,
}

fn folder(deployment: &DeploymentName) -> String {
    format!("keys/{deployment}/")
}

fn of_key(deployment: &DeploymentName, key: DataKeyId) -> String {
    format!("{}{key}-", folder(deployment))
}

fn name(deployment: &DeploymentName, wrapped: &WrappedKey) -> String {
    format!("{}{:016x}", of_key(deployment, wrapped.key), wrapped.revision)
}

/// Makes the wrapped key durable in the store, and removes what it was wrapped by before. Again is harmless.
pub async fn keep(objects: &dyn Objects, deployment: &DeploymentName, wrapped: &WrappedKey) -> Result<(), StoreError> {
    let own = name(deployment, wrapped);
    let record = Record {
        deployment: deployment.clone(),
        wrapped: wrapped.clone(),
    };
    let note = note::seal(KIND, &record)?;
    let present = objects.list(&of_key(deployment, wrapped.key)).await?;
    if !present.iter().any(|object| object.key == own) && objects.put_new(&own, note.clone()).await? == Put::Created {
        tracing::debug!(%deployment, "the wrapped data key lies in the store");
    } else if note::open::<Record>(KIND, &own, &objects.get(&own).await?).ok() != Some(record) {
        // The control state is right about its own keys.
        objects.put(&own, note).await?;
    }
    for lower in present.iter().filter(|object| object.key < own) {
        objects.delete(&lower.key).await?;
    }
    Ok(())
}

/// The wrapped keys of a deployment, each at its highest revision; more than one only if a deployment of that name was
/// removed before and not all of it is gone. A damaged note is an error only where nothing else tells of its key.
pub async fn read(objects: &dyn Objects, deployment: &DeploymentName) -> Result<Vec<WrappedKey>, StoreError> {
    let mut found: BTreeMap<DataKeyId, WrappedKey> = BTreeMap::new();
    let mut fault = None;
    for object in objects.list(&folder(deployment)).await? {
        match note::open::<Record>(KIND, &object.key, &objects.get(&object.key).await?) {
            Ok(record) if record.deployment == *deployment && name(deployment, &record.wrapped) == object.key => {
                found.insert(record.wrapped.key, record.wrapped);
            }
            Ok(_) => fault = Some(StoreError::damaged(&object.key, "it is the key of something else")),
            Err(damaged) => fault = Some(damaged),
        }
    }
    match fault {
        Some(fault) if found.is_empty() => Err(fault),
        _ => Ok(found.into_values().collect()),
    }
}

/// Removes a data key for good: what is sealed with it cannot be read by anybody any more.
pub async fn remove(objects: &dyn Objects, deployment: &DeploymentName, key: DataKeyId) -> Result<(), StoreError> {
    for object in objects.list(&of_key(deployment, key)).await? {
        objects.delete(&object.key).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use headwater_model::MasterKeyId;

    use super::*;
    use crate::backend::memory::MemoryObjects;

    fn wrapped(revision: u64) -> WrappedKey {
        WrappedKey {
            revision,
            key: DataKeyId([7; 8]),
            master: MasterKeyId::new(&format!("k{revision}")).unwrap(),
            sealed: format!("{revision:02}"),
        }
    }

    #[tokio::test]
    async fn the_newest_wrapping_is_found_and_the_one_before_is_gone() {
        let (objects, shop) = (MemoryObjects::new(), DeploymentName::new("shop").unwrap());
        assert_eq!(read(&objects, &shop).await.unwrap(), []);
        for revision in [1, 1, 2] {
            keep(&objects, &shop, &wrapped(revision)).await.unwrap();
            assert_eq!(read(&objects, &shop).await.unwrap(), [wrapped(revision)]);
        }
        assert_eq!(objects.contents().len(), 1);
        let name = name(&shop, &wrapped(2));
        assert_eq!(name, "keys/shop/0707070707070707-0000000000000002");
        objects.put(&name, "damaged".into()).await.unwrap();
        assert!(read(&objects, &shop).await.is_err());
        keep(&objects, &shop, &wrapped(2)).await.unwrap();
        assert_eq!(read(&objects, &shop).await.unwrap(), [wrapped(2)]);
        remove(&objects, &shop, DataKeyId([7; 8])).await.unwrap();
        assert!(objects.contents().is_empty());
    }
}
