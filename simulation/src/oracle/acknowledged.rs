//! Acknowledged means durable, and stays so.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_model::{Incarnation, Optime, ReplicaSetId};
use headwater_protocol::agent::OplogAck;
use headwater_protocol::frame::{Frame, FrameKind};
use headwater_protocol::slices::{OplogSliceHeader, SyncSliceHeader};

use super::chain::Stored;
use crate::store::Store;

/// A promise that was not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Lost {
    /// Acknowledged, and not in the store at that moment.
    #[error("acknowledged means durable: the {what} was acknowledged and lies nowhere in the store")]
    NotDurable {
        /// Which slice.
        what: String,
    },
    /// Acknowledged, and later gone.
    #[error(
        "acknowledged survives: incarnation {incarnation} was acknowledged up to {acknowledged}, stored up to {stored:?}"
    )]
    Gone {
        /// Which history.
        incarnation: Incarnation,
        /// What agents were told.
        acknowledged: Optime,
        /// What is there.
        stored: Option<Optime>,
    },
}

/// What agents were told.
#[derive(Debug, Default)]
pub struct Acknowledged {
    tips: BTreeMap<(ReplicaSetId, Incarnation), Optime>,
}

impl Acknowledged {
    /// An oplog slice is about to be acknowledged.
    pub fn oplog(&mut self, store: &Store, bytes: &Bytes, ack: &OplogAck) -> Result<(), Lost> {
        let frame = Frame::open(FrameKind::OplogSlice, bytes.clone()).ok();
        let header = frame.and_then(|frame| frame.header::<OplogSliceHeader>().ok());
        let Some(header) = header else {
            return Err(Lost::NotDurable {
                what: "oplog slice that cannot be read".to_owned(),
            });
        };
        if !store.holds(bytes) {
            return Err(Lost::NotDurable {
                what: format!("oplog slice from {} to {}", header.first, header.last),
            });
        }
        let tip = self
            .tips
            .entry((header.replica_set, header.incarnation))
            .or_insert(Optime::ZERO);
        *tip = (*tip).max(header.last).max(ack.tip);
        Ok(())
    }

    /// A sync slice is about to be acknowledged.
    pub fn sync(&mut self, store: &Store, bytes: &Bytes) -> Result<(), Lost> {
        if store.holds(bytes) || has_served(store, bytes) {
            return Ok(());
        }
        Err(Lost::NotDurable {
            what: "sync slice".to_owned(),
        })
    }

    /// Whether all of it is stored, but for ended histories that were given up.
    pub fn within(
        &self,
        set: &ReplicaSetId,
        stored: &[Stored],
        given_up: &BTreeMap<(ReplicaSetId, Incarnation), Optime>,
    ) -> Result<(), Lost> {
        let tips = self.tips.iter().filter(|((of, _), _)| of == set);
        let tips: Vec<(Incarnation, Optime)> = tips.map(|((_, incarnation), tip)| (*incarnation, *tip)).collect();
        let newest = tips.last().map(|(incarnation, _)| *incarnation);
        let is_given_up = |incarnation: Incarnation| {
            let floor = given_up.get(&(set.clone(), incarnation));
            newest != Some(incarnation) && floor.is_some_and(|floor| *floor > Optime::ZERO)
        };
        for (incarnation, acknowledged) in tips.into_iter().filter(|(incarnation, _)| !is_given_up(*incarnation)) {
            let found = stored
                .iter()
                .find(|stored| stored.incarnation == incarnation)
                .map(|stored| stored.tip);
            if found.is_none_or(|tip| tip < acknowledged) {
                return Err(Lost::Gone {
                    incarnation,
                    acknowledged,
                    stored: found,
                });
            }
        }
        Ok(())
    }
}

/// Whether the first copy that a slice belongs to is complete and its slices are being removed: whoever stored it stood still
/// before saying so, and another went on.
fn has_served(store: &Store, bytes: &Bytes) -> bool {
    let frame = Frame::open(FrameKind::SyncSlice, bytes.clone()).ok();
    let header = frame.and_then(|frame| frame.header::<SyncSliceHeader>().ok());
    header.is_some_and(|header| {
        let mark = format!("rs/{}/sync/{:016x}/removed", header.replica_set, header.incarnation.0);
        store.bare().contents().contains_key(&mark)
    })
}
