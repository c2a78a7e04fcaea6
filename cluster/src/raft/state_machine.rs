//! The replicated state as Raft sees it: in memory, with a durable control image from time to time.
//!
//! After a restart openraft applies the committed entries behind the image again; `apply` is pure, so the same state
//! comes out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use super::disk::{Disk, DiskError};
use super::image;
use super::records::MetaRecord;
use super::{Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig};
use crate::apply::apply;
use crate::codec;
use crate::command::Response;
use crate::state::State;

#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
    state: Arc<State>,
}

struct Shared {
    disk: Disk,
    applied: Mutex<Applied>,
    /// Whoever watches the state.
    published: watch::Sender<Arc<State>>,
    /// How many entries the durable image covers; the log waits for it before it purges.
    covered: watch::Sender<u64>,
    /// One image is written at a time: one being built and one being installed may meet.
    writing: tokio::sync::Mutex<()>,
}

/// The state machine. Clones are the same one.
#[derive(Clone)]
pub(crate) struct StateMachine(Arc<Shared>);

/// What an image is built from, taken at one instant.
pub(crate) struct Builder {
    machine: StateMachine,
    applied: Applied,
}

impl StateMachine {
    /// Begins with the image on the disk, or with nothing.
    pub(crate) fn open(disk: &Disk) -> Result<Self, DiskError> {
        let applied = match image::read(disk)? {
            Some((meta, data)) => applied_from(&meta.into(), &data)?,
            None => Applied::default(),
        };
        let covered = applied.last.map_or(0, |id| id.index + 1);
        Ok(StateMachine(Arc::new(Shared {
            disk: disk.clone(),
            published: watch::Sender::new(applied.state.clone()),
            applied: Mutex::new(applied),
            covered: watch::Sender::new(covered),
            writing: tokio::sync::Mutex::new(()),
        })))
    }

    /// The state after every entry applied here.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.0.published.subscribe()
    }

    /// How many entries, counted from the first one ever, the durable image covers.
    pub(crate) fn covered(&self) -> watch::Receiver<u64> {
        self.0.covered.subscribe()
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.0.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), DiskError> {
        let _one = self.0.writing.lock().await;
        image::write(&self.0.disk, MetaRecord::from(meta), data).await?;
        let covers = meta.last_log_id.map_or(0, |id| id.index + 1);
        self.0.covered.send_if_modified(|now| {
            let grows = covers > *now;
            *now = (*now).max(covers);
            grows
        });
        Ok(())
    }

    async fn install(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), DiskError> {
        let installed = applied_from(meta, data)?;
        self.keep(meta, data).await?;
        let mut applied = self.applied();
        *applied = installed;
        self.0.published.send_replace(applied.state.clone());
        Ok(())
    }
}

impl Applied {
    fn carry_out(&mut self, entry: Entry) -> Vec<Response> {
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Normal(commands) => {
                let state = Arc::make_mut(&mut self.state);
                commands.iter().map(|command| apply(state, command)).collect()
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Vec::new()
            }
        }
    }
}

fn applied_from(meta: &SnapshotMeta, data: &[u8]) -> Result<Applied, DiskError> {
    let state = Arc::new(codec::decode("control state", data)?);
    Ok(Applied {
        last: meta.last_log_id,
        membership: meta.last_membership.clone(),
        state,
    })
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Response>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied();
        let answers = entries.into_iter().map(|entry| applied.carry_out(entry)).collect();
        self.0.published.send_replace(applied.state.clone());
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            machine: self.clone(),
            applied: self.applied().clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Box<Vec<u8>>) -> Result<(), StorageError> {
        let installed = self.install(meta, &data).await;
        self.0.disk.or_stop(
            ErrorSubject::Snapshot(Some(meta.signature())),
            ErrorVerb::Write,
            installed,
        )
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let image = image::read(&self.0.disk);
        let image = self
            .0
            .disk
            .or_stop(ErrorSubject::Snapshot(None), ErrorVerb::Read, image)?;
        Ok(image.map(|(meta, data)| Snapshot {
            meta: meta.into(),
            snapshot: Box::new(data),
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let Builder { machine, applied } = self;
        let last = applied.last.map_or("nothing".to_owned(), |id| id.to_string());
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
            snapshot_id: format!("through {last}"),
        };
        let built = match codec::encode("control state", &*applied.state) {
            Ok(data) => machine.keep(&meta, &data).await.map(|()| data),
            Err(error) => Err(DiskError::from(error)),
        };
        let subject = ErrorSubject::Snapshot(Some(meta.signature()));
        let data = machine.0.disk.or_stop(subject, ErrorVerb::Write, built)?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(data),
        })
    }
}
