//! The data keys that this process has opened, and where master keys come from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use headwater_host::Entropy;
use headwater_model::{DataKeyId, DeploymentName, MasterKeyId, WrappedKey};
use tokio::time::Instant;

use super::secret::{DataKey, MasterKey, Secret};
use super::wrapping;
use crate::objects::StoreError;

/// Why a master key is not to be had; says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyFault(pub String);

/// Where master keys come from. Asked anew each time, so that keys are added and changed while a daemon runs.
#[async_trait]
pub trait MasterKeys: Send + Sync + 'static {
    /// The name of the one that wraps new data keys.
    async fn current(&self) -> Result<MasterKeyId, KeyFault>;
    /// The master key of this name.
    async fn key(&self, id: &MasterKeyId) -> Result<MasterKey, KeyFault>;
}

/// Master keys that are held in memory, the current one first: for tests, and for a daemon that has none.
#[derive(Default)]
pub struct KnownKeys(pub Vec<(MasterKeyId, [u8; 32])>);

#[async_trait]
impl MasterKeys for KnownKeys {
    async fn current(&self) -> Result<MasterKeyId, KeyFault> {
        let none = || KeyFault("this daemon has no master key: name a file with --master-key-file".to_owned());
        self.0.first().map(|(id, _)| id.clone()).ok_or_else(none)
    }

    async fn key(&self, id: &MasterKeyId) -> Result<MasterKey, KeyFault> {
        let found = self.0.iter().find(|(known, _)| known == id);
        let none = || KeyFault("this daemon has no such master key: name a file with --master-key-file".to_owned());
        let (id, bytes) = found.ok_or_else(none)?;
        Ok(MasterKey::new(id.clone(), Secret::new(*bytes)))
    }
}

/// After a master key was not to be had, it is not asked for again for so long: whoever keeps it need not answer every
/// look at the control state.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

type Place = (DeploymentName, DataKeyId);

struct Inner {
    masters: Box<dyn MasterKeys>,
    opened: Mutex<BTreeMap<Place, Arc<DataKey>>>,
    /// Held while a master key is asked for: for what could not be opened, when and why.
    refused: tokio::sync::Mutex<BTreeMap<Place, (Instant, StoreError)>>,
}

/// See the module. A data key that was opened once stays open while the process runs. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

impl Default for Keyring {
    fn default() -> Self {
        Keyring::new(KnownKeys::default())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

fn locked(deployment: &DeploymentName, detail: impl fmt::Display) -> StoreError {
    StoreError::Locked {
        deployment: deployment.to_string(),
        detail: detail.to_string(),
    }
}

impl Keyring {
    /// A keyring with master keys from there.
    pub fn new(masters: impl MasterKeys) -> Keyring {
        Keyring(Arc::new(Inner {
            masters: Box::new(masters),
            opened: Mutex::default(),
            refused: tokio::sync::Mutex::default(),
        }))
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<DataKey>>> {
        self.0.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn master(&self, deployment: &DeploymentName, id: &MasterKeyId) -> Result<MasterKey, StoreError> {
        let master = self.0.masters.key(id).await;
        master.map_err(|fault| locked(deployment, format!("master key {id} is needed: {fault}")))
    }

    async fn current(&self, deployment: &DeploymentName) -> Result<MasterKey, StoreError> {
        let id = self
            .0
            .masters
            .current()
            .await
            .map_err(|fault| locked(deployment, fault))?;
        self.master(deployment, &id).await
    }

    /// Makes a data key for a new deployment, wrapped by the current master key.
    pub async fn create(&self, deployment: &DeploymentName, entropy: &dyn Entropy) -> Result<WrappedKey, StoreError> {
        let master = self.current(deployment).await?;
        let key = DataKey::random(entropy);
        wrapping::wrap(&master, deployment, &key, 1, entropy).map_err(|fault| locked(deployment, fault))
    }

    /// The data key of a deployment. [`StoreError::Locked`] when its master key is missing or another.
    pub async fn open(&self, deployment: &DeploymentName, wrapped: &WrappedKey) -> Result<Arc<DataKey>, StoreError> {
        let place = (deployment.clone(), wrapped.key);
        let known = || self.opened().get(&place).cloned();
        if let Some(key) = known() {
            return Ok(key);
        }
        let mut refused = self.0.refused.lock().await;
        if let Some(key) = known() {
            return Ok(key);
        }
        if let Some((when, why)) = refused.get(&place)
            && when.elapsed() < ASK_AGAIN_AFTER
        {
            return Err(why.clone());
        }
        match self.unwrap(deployment, wrapped).await {
            Ok(key) => {
                let key = Arc::new(key);
                self.opened().insert(place, key.clone());
                Ok(key)
            }
            Err(why) => {
                refused.insert(place, (Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn unwrap(&self, deployment: &DeploymentName, wrapped: &WrappedKey) -> Result<DataKey, StoreError> {
        let master = self.master(deployment, &wrapped.master).await?;
        wrapping::unwrap(&master, deployment, wrapped).map_err(|fault| locked(deployment, fault))
    }

    /// The same data key, wrapped by the current master key; `None` if that is what it is wrapped by.
    pub async fn rewrap(
        &self,
        deployment: &DeploymentName,
        wrapped: &WrappedKey,
        entropy: &dyn Entropy,
    ) -> Result<Option<WrappedKey>, StoreError> {
        let master = self.current(deployment).await?;
        if master.id == wrapped.master {
            return Ok(None);
        }
        let key = self.open(deployment, wrapped).await?;
        let revision = wrapped.revision + 1;
        let rewrapped = wrapping::wrap(&master, deployment, &key, revision, entropy);
        rewrapped.map(Some).map_err(|fault| locked(deployment, fault))
    }
}

#[cfg(test)]
mod tests {
    use headwater_host::Host;

    use super::*;

    fn keys(known: &[(&str, u8)]) -> Keyring {
        let known = known.iter().map(|(id, n)| (MasterKeyId::new(id).unwrap(), [*n; 32]));
        Keyring::new(KnownKeys(known.collect()))
    }

    #[tokio::test]
    async fn a_data_key_outlives_the_master_key_it_was_made_under() {
        let (host, shop) = (Host::real().unwrap(), DeploymentName::new("shop").unwrap());
        let entropy = host.entropy.as_ref();
        let first = keys(&[("a", 1)]).create(&shop, entropy).await.unwrap();
        let both = keys(&[("b", 2), ("a", 1)]);
        let second = both.rewrap(&shop, &first, entropy).await.unwrap().unwrap();
        assert_eq!((second.revision, second.key), (2, first.key));
        assert_eq!(both.rewrap(&shop, &second, entropy).await.unwrap(), None);
        let only = keys(&[("b", 2)]);
        assert_eq!(only.open(&shop, &second).await.unwrap().id(), first.key);
        let without = keys(&[("b", 2)]).open(&shop, &first).await.unwrap_err();
        assert!(without.to_string().contains("master key a is needed"), "{without}");
        let wrong = keys(&[("a", 9)]).open(&shop, &first).await.unwrap_err();
        assert!(wrong.to_string().contains("not the one of that name"), "{wrong}");
        let none = Keyring::default().create(&shop, entropy).await.unwrap_err();
        assert!(none.to_string().contains("--master-key-file"), "{none}");
    }
}
