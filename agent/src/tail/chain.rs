//! Makes a chain of slices: each frame names the last entry and the checksum of the one before.

use std::convert::Infallible;

use bytes::Bytes;
use headwater_model::{Incarnation, Optime, ReplicaSetId};
use headwater_protocol::agent::TailOrder;
use headwater_protocol::frame::{self, Frame, FrameError, FrameKind};
use headwater_protocol::slices::OplogSliceHeader;
use tokio::sync::mpsc;

use super::Stop;
use crate::slicer::Cut;
use crate::stream::{Conversation, End};

/// Entries that follow each other without a gap.
#[derive(Clone, Debug)]
pub struct Run {
    /// Position of the first.
    pub first: Optime,
    /// Position of the last.
    pub last: Optime,
    /// The entries.
    pub cut: Cut,
}

/// A sealed slice with the tip that the chain has once it is stored.
#[derive(Clone, Debug)]
pub struct Link {
    /// The slice.
    pub frame: Bytes,
    /// Where the chain goes on after it.
    pub tip: TailOrder,
}

/// Seals the run that follows `tip`. Takes as long as compression does.
pub fn link(set: &ReplicaSetId, incarnation: Incarnation, tip: &TailOrder, run: &Run) -> Result<Link, FrameError> {
    let header = OplogSliceHeader {
        replica_set: set.clone(),
        incarnation,
        previous: tip.after,
        previous_slice: tip.previous_slice.clone(),
        first: run.first,
        last: run.last,
        count: run.cut.count,
    };
    let frame = frame::seal(FrameKind::OplogSlice, &header, &run.cut.payload)?;
    let checksum = Frame::open(FrameKind::OplogSlice, frame.clone())?.checksum();
    let tip = TailOrder { after: run.last, previous_slice: hex::encode(checksum) };
    Ok(Link { frame, tip })
}

/// Seals every run as it comes, one after the other: a link needs the checksum of the one before.
pub async fn seal(
    conversation: &Conversation,
    mut tip: TailOrder,
    mut runs: mpsc::Receiver<Run>,
    links: mpsc::Sender<Link>,
) -> Result<Infallible, Stop> {
    while let Some(run) = runs.recv().await {
        let (set, incarnation, previous) = (conversation.set.clone(), conversation.incarnation, tip);
        let sealed = conversation.host.blocking(move || link(&set, incarnation, &previous, &run)).await;
        let sealed = sealed.map_err(|e| End::Reopen(format!("an oplog slice cannot be sealed: {e}")))?;
        tip = sealed.tip.clone();
        if links.send(sealed).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::Ts;

    #[test]
    fn each_slice_names_the_last_entry_and_the_checksum_of_the_one_before() {
        let set: ReplicaSetId = "shop/rs0".parse().unwrap();
        let mut tip = TailOrder { after: Optime::new(Ts::new(1, 1), 1), previous_slice: String::new() };
        for second in 2..5 {
            let at = |ordinal| Optime::new(Ts::new(second, ordinal), 1);
            let run = Run { first: at(1), last: at(2), cut: Cut { payload: vec![5, 0, 0, 0, 0], count: 1 } };
            let link = link(&set, Incarnation(3), &tip, &run).unwrap();
            let frame = Frame::open(FrameKind::OplogSlice, link.frame).unwrap();
            let header: OplogSliceHeader = frame.header().unwrap();
            assert_eq!((header.previous, header.previous_slice), (tip.after, tip.previous_slice));
            assert_eq!((header.first, header.last, header.count), (at(1), at(2), 1));
            assert_eq!(link.tip, TailOrder { after: at(2), previous_slice: hex::encode(frame.checksum()) });
            tip = link.tip;
        }
    }
}
