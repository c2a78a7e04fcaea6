//! Raft's storage, on its own.

mod golden;
mod storage;
mod suite;

use std::sync::{Arc, Mutex};

use headwater_host::memory::MemoryDisk;
use headwater_host::{Exit, ExitReason, Host};

use super::disk::Disk;

/// Notes why the process would have ended.
#[derive(Default)]
struct Noted(Mutex<Vec<ExitReason>>);

impl Exit for Noted {
    fn exit(&self, reason: ExitReason) {
        self.0.lock().unwrap().push(reason);
    }
}

fn host() -> (Host, Arc<Noted>) {
    let noted = Arc::new(Noted::default());
    (Host { exit: noted.clone(), ..Host::real().unwrap() }, noted)
}

fn disk(platter: &MemoryDisk) -> (Disk, Arc<Noted>) {
    let (host, noted) = host();
    (Disk::new(&host, Arc::new(platter.open())), noted)
}
