//! Wiring of a recovery: stores and a fresh folder become the first node of a new cluster.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headwater_actors::recovery::{Begun, Found, NothingThere, RecoveryPlan, begin, look, plan_recovery, sign_of_life};
use headwater_config::Settings;
use headwater_host::real::SledKv;
use headwater_host::{Host, Kv};
use headwater_store::backend::open::{self, Opened};
use headwater_store::objects::StoreError;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_fault};
use crate::master_keys;
use crate::node::{advertised, places};

/// Open stores and what was found in them.
pub struct Recovery {
    host: Host,
    opened: Opened,
    found: Found,
}

impl Recovery {
    /// Opens the stores that the settings name, and looks.
    pub async fn look(settings: &Settings) -> Outcome<Recovery> {
        let host = Host::real().map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        let opened = open::open(&places(settings), &host).await.map_err(store_fault)?;
        opened.require_in_use(&places(settings)).await.map_err(store_fault)?;
        let keyring = master_keys::keyring(settings.master_keys.as_ref(), &host);
        let found = look(&host, &opened.objects, &keyring).await.map_err(store_fault)?;
        Ok(Recovery { host, opened, found })
    }

    /// What would be done.
    pub fn plan(&self) -> Result<RecoveryPlan, NothingThere> {
        plan_recovery(&self.found, self.host.clock.now_ms())
    }

    /// Something that was written while it was looked for so long.
    pub async fn sign_of_life(&self, patience: Duration) -> Outcome<Option<String>> {
        sign_of_life(self.opened.objects.as_ref(), &self.found, patience)
            .await
            .map_err(store_fault)
    }

    /// Carries the plan out in the folder of the settings.
    pub async fn begin(&self, settings: &Settings, plan: &RecoveryPlan) -> Outcome<Begun> {
        let folder = control_folder(&settings.dir);
        let blocking = self.host.blocking.clone();
        let opened = self.host.blocking(move || SledKv::open(&folder, blocking)).await;
        let kv = opened.map_err(|e| Failure::new(Exit::Failed, format!("cannot make the control state: {e}")))?;
        let kv: Arc<dyn Kv> = Arc::new(kv);
        let apart: Vec<_> = self.opened.apart().cloned().collect();
        begin(
            &self.host,
            &kv,
            &self.opened.objects,
            &apart,
            plan,
            &advertised(settings),
        )
        .await
        .map_err(|e| {
            let failure = Failure::new(Exit::Failed, format!("the recovery did not come to its end: {e}"));
            failure.help("empty the folder and run the same command again")
        })
    }
}

/// Refuses a folder in which a node lives already.
pub fn require_fresh(dir: &Path) -> Outcome {
    let folder = control_folder(dir);
    let there = folder
        .try_exists()
        .map_err(|e| file_fault("look into the folder", dir, &e))?;
    if there {
        let message = format!("{} holds the control state of a node already", dir.display());
        return Err(Failure::new(Exit::Conflict, message).help("recover into an empty folder: --dir DIR"));
    }
    Ok(())
}

fn control_folder(dir: &Path) -> std::path::PathBuf {
    dir.join("control")
}

/// What to tell of a store that cannot be used.
pub fn store_fault(error: StoreError) -> Failure {
    if matches!(error, StoreError::Locked { .. }) {
        let help = "give the master key that the lost daemons had: --master-key-file FILE, or the same settings file";
        return Failure::new(Exit::Failed, error.to_string()).help(help);
    }
    let exit = match error {
        StoreError::Unavailable { .. } | StoreError::Full(_) => Exit::Retry,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("cannot use the store: {error}"))
}
