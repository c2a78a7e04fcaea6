//! openraft's own suite for storages, on both disks.

use std::sync::Arc;

use headwater_host::memory::MemoryDisk;
use headwater_host::real::SledKv;
use headwater_host::{Host, Kv};
use openraft::testing::{StoreBuilder, Suite};

use crate::raft::disk::Disk;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::{StorageError, TypeConfig};

struct InMemory;

struct OnSled;

async fn open(kv: Arc<dyn Kv>) -> (LogStore, StateMachine) {
    // An exit is noted, so that a failure names itself.
    let disk = Disk::new(&super::host().0, kv);
    let machine = StateMachine::open(&disk).unwrap();
    // The suite purges what was never applied, which no Raft does; so the log is not held back here.
    (LogStore::open(&disk, None).unwrap(), machine)
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError> {
        let (log, machine) = open(Arc::new(MemoryDisk::new().open())).await;
        Ok(((), log, machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for OnSled {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let kv = SledKv::open(folder.path(), Host::real().unwrap().blocking).unwrap();
        let (log, machine) = open(Arc::new(kv)).await;
        Ok((folder, log, machine))
    }
}

#[test]
fn the_storage_in_memory_is_what_openraft_expects() {
    Suite::test_all(InMemory).unwrap();
}

#[test]
fn the_storage_on_sled_is_what_openraft_expects() {
    Suite::test_all(OnSled).unwrap();
}
