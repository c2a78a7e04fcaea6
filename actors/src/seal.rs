//! The way to the objects of a deployment: straight, or behind its seal.

use std::sync::Arc;
use std::time::Duration;

use headwater_model::{DeploymentName, WrappedKey};
use headwater_protocol::admin::{EncryptionView, Rewrapped};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_store::objects::{Objects, StoreError};
use headwater_store::sealed::{DataKey, SealedObjects, record};
use tokio::time::timeout;

use crate::backup::{Backup, not_found};
use crate::commands::submit;
use crate::set::Ground;
use crate::trouble::refusal;

/// How long the opening of a replica set waits for a master key.
const KEY_PATIENCE: Duration = Duration::from_secs(3);

/// What is to be done with the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing is written.
    Read,
    /// The wrapped key is made durable in the store before anything is sealed with it.
    Write,
}

/// The objects of a deployment, as they are under its seal. [`StoreError::Locked`] without its master key.
pub async fn objects_of(
    ground: &Ground,
    deployment: &DeploymentName,
    purpose: Purpose,
) -> Result<Arc<dyn Objects>, StoreError> {
    let Some(wrapped) = key_of(ground, deployment) else {
        return Ok(ground.objects.clone());
    };
    let key = open(ground, deployment, &wrapped).await?;
    if purpose == Purpose::Write {
        record::keep(ground.objects.as_ref(), deployment, &wrapped).await?;
    }
    Ok(sealed(ground, ground.objects.clone(), key))
}

/// Whoever keeps master keys may be slow. The question goes on while others are looked after, and whoever asks again finds
/// what it brought.
pub async fn open(
    ground: &Ground,
    deployment: &DeploymentName,
    wrapped: &WrappedKey,
) -> Result<Arc<DataKey>, StoreError> {
    let (keyring, name, key) = (ground.tuning.keyring.clone(), deployment.clone(), wrapped.clone());
    let opening = ground.host.spawn(async move { keyring.open(&name, &key).await });
    let locked = |detail: &str| StoreError::Locked {
        deployment: deployment.to_string(),
        detail: detail.to_owned(),
    };
    match timeout(KEY_PATIENCE, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) => Err(locked("the question for its master key broke off; trying again")),
        Err(_) => Err(locked(&format!(
            "master key {} has not come yet; trying again",
            wrapped.master
        ))),
    }
}

/// What is written for a while, sealed with a key that nobody keeps, where the deployment is encrypted.
pub fn passing(ground: &Ground, deployment: &DeploymentName, objects: Arc<dyn Objects>) -> Arc<dyn Objects> {
    match key_of(ground, deployment) {
        None => objects,
        Some(_) => {
            let key = Arc::new(DataKey::random(ground.host.entropy.as_ref()));
            sealed(ground, objects, key)
        }
    }
}

fn key_of(ground: &Ground, deployment: &DeploymentName) -> Option<WrappedKey> {
    ground.control.state().deployments.get(deployment)?.key.clone()
}

fn sealed(ground: &Ground, objects: Arc<dyn Objects>, key: Arc<DataKey>) -> Arc<dyn Objects> {
    Arc::new(SealedObjects::new(objects, key, ground.host.entropy.clone()))
}

impl Backup {
    /// The key of a deployment that is about to be added. One that is there already keeps its own.
    pub(crate) async fn key_for(
        &self,
        name: &DeploymentName,
        wanted: Option<bool>,
    ) -> Result<Option<WrappedKey>, Refusal> {
        let ground = &self.node.ground;
        let known = key_of(ground, name);
        if !wanted.unwrap_or(ground.tuning.encrypt) {
            return Ok(None);
        }
        if known.is_some() {
            return Ok(known);
        }
        let created = ground.tuning.keyring.create(name, ground.host.entropy.as_ref()).await;
        created
            .map(Some)
            .map_err(|fault| Refusal::new(RefusalKind::Invalid, fault.to_string()))
    }

    /// Wraps the data key of a deployment by the current master key; nothing that is sealed with it is touched.
    pub async fn rewrap_key(&self, name: &DeploymentName) -> Result<Rewrapped, Refusal> {
        let ground = &self.node.ground;
        self.known(name)?;
        let Some(wrapped) = key_of(ground, name) else {
            return Err(not_found("data key of deployment", name));
        };
        let keyring = &ground.tuning.keyring;
        let rewrapped = keyring.rewrap(name, &wrapped, ground.host.entropy.as_ref()).await;
        let Some(key) = rewrapped.map_err(|fault| Refusal::new(RefusalKind::Conflict, fault.to_string()))? else {
            // What an earlier attempt did not get to.
            record::keep(ground.objects.as_ref(), name, &wrapped)
                .await
                .map_err(refusal)?;
            return Ok(told(false, wrapped));
        };
        let command = headwater_cluster::Command::RewrapKey {
            name: name.clone(),
            key: key.clone(),
        };
        submit(&ground.control, command).await?;
        record::keep(ground.objects.as_ref(), name, &key)
            .await
            .map_err(refusal)?;
        tracing::info!(deployment = %name, master = %key.master, "the data key is wrapped by another master key");
        Ok(told(true, key))
    }
}

fn told(changed: bool, key: WrappedKey) -> Rewrapped {
    Rewrapped {
        changed,
        encryption: EncryptionView {
            data_key: key.key,
            master_key: key.master,
        },
    }
}
