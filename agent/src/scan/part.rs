//! One part of a collection from the source to the service: read, seal, ship, all at once, in order.

use std::sync::Arc;

use bson::RawDocumentBuf;
use bytes::Bytes;
use futures::future::AbortHandle;
use headwater_model::CollectionUuid;
use headwater_protocol::frame::{self, FrameKind};
use headwater_protocol::slices::SyncSliceHeader;
use tokio::sync::{mpsc, watch};

use super::node::ScanNode;
use super::plan::Part;
use super::read::{self, Piece};
use crate::stream::{Conversation, End};

/// Pieces that wait between reading and sealing, and frames between sealing and shipping: each up to a slice of memory.
const AHEAD: usize = 1;

/// What is to be scanned.
#[derive(Debug)]
pub struct Job {
    /// Which part, from where.
    pub part: Part,
    /// Its database.
    pub db: String,
    /// Its name when it was listed, for people.
    pub name: String,
    /// Whether the server gives resume tokens for it.
    pub tokens: bool,
    /// The documents themselves, for `system.views`, which cannot be read.
    pub views: Option<Vec<RawDocumentBuf>>,
    /// Whose turn it is.
    pub turn: Turn,
}

/// The first slice of part 0 settles the plan of a collection; until it is stored the other parts wait.
#[derive(Debug)]
pub enum Turn {
    /// Nobody waits.
    Now,
    /// The others wait until this is dropped.
    First(watch::Sender<()>),
    /// Waits for that.
    After(watch::Receiver<()>),
}

impl Turn {
    /// A turn for each of so many parts that were planned just now.
    pub fn fresh(parts: usize) -> Vec<Turn> {
        let (first, after) = watch::channel(());
        let others = (1..parts).map(|_| Turn::After(after.clone()));
        std::iter::once(Turn::First(first)).chain(others).collect()
    }

    async fn wait(&mut self) {
        if let Turn::After(first) = self {
            while first.changed().await.is_ok() {}
        }
    }
}

/// How a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was shipped.
    Complete,
    /// The collection was dropped under it.
    Dropped,
}

/// A sealed slice.
struct Sealed {
    frame: Bytes,
    documents: u64,
    bytes: u64,
}

/// Ends a task with its owner.
struct Owned(AbortHandle);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Scans a part in a task of its own. Dropping the future stops the task.
pub async fn run(
    conversation: Arc<Conversation>,
    nodes: Arc<ScanNode>,
    job: Job,
) -> Result<(CollectionUuid, Outcome), End> {
    let uuid = job.part.collection;
    let host = conversation.host.clone();
    let task = host.spawn(async move { steps(&conversation, &nodes, job).await });
    let _owned = Owned(task.abort_handle());
    match task.await {
        Ok(result) => result.map(|outcome| (uuid, outcome)),
        Err(ended) => Err(End::Reopen(format!("scanning a collection ended: {ended}"))),
    }
}

async fn steps(conversation: &Conversation, nodes: &ScanNode, mut job: Job) -> Result<Outcome, End> {
    job.turn.wait().await;
    let turn = std::mem::replace(&mut job.turn, Turn::Now);
    let (pieces_in, pieces) = mpsc::channel(AHEAD);
    let (sealed_in, sealed) = mpsc::channel(AHEAD);
    let part = job.part.clone();
    let (outcome, (), ()) = tokio::try_join!(
        read::run(conversation, nodes, job, pieces_in),
        seal(conversation, part, pieces, sealed_in),
        ship(conversation, sealed, turn),
    )?;
    Ok(outcome)
}

async fn seal(
    conversation: &Conversation,
    part: Part,
    mut pieces: mpsc::Receiver<Piece>,
    sealed: mpsc::Sender<Sealed>,
) -> Result<(), End> {
    let plan = part.method.name();
    let mut number = part.number;
    while let Some(piece) = pieces.recv().await {
        let header = SyncSliceHeader {
            replica_set: conversation.set.clone(),
            incarnation: conversation.incarnation,
            collection: part.collection,
            part: part.part,
            plan: plan.clone(),
            number,
            count: piece.cut.count,
            resume: piece.resume,
            last: piece.last,
        };
        number += 1;
        let (documents, bytes) = (u64::from(piece.cut.count), piece.cut.payload.len() as u64);
        let payload = piece.cut.payload;
        let frame = conversation
            .host
            .blocking(move || frame::seal(FrameKind::SyncSlice, &header, &payload))
            .await;
        let frame = frame.map_err(|e| End::Reopen(format!("a sync slice cannot be sealed: {e}")))?;
        if sealed
            .send(Sealed {
                frame,
                documents,
                bytes,
            })
            .await
            .is_err()
        {
            break;
        }
    }
    Ok(())
}

async fn ship(conversation: &Conversation, mut sealed: mpsc::Receiver<Sealed>, turn: Turn) -> Result<(), End> {
    let mut turn = Some(turn);
    while let Some(slice) = sealed.recv().await {
        conversation.service.sync_slice(&conversation.set, slice.frame).await?;
        drop(turn.take());
        conversation.status.scan(|scan| {
            scan.documents += slice.documents;
            scan.bytes += slice.bytes;
        });
    }
    Ok(())
}
