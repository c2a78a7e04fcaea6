//! How far the backup is, as it says itself: the tip never goes back, and the head never leads it.

use std::collections::BTreeMap;

use headwater_model::{Incarnation, ReplicaSetId};
use headwater_protocol::admin::{Position, Status};

/// A head that is where it must not be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Astray {
    /// The tip went back.
    #[error("the tip never goes back: that of {set} was {before:?} and is {now:?}")]
    TipBack {
        /// Whose.
        set: ReplicaSetId,
        /// Before.
        before: Position,
        /// Now.
        now: Position,
    },
    /// It is ahead of the tip.
    #[error("the head never leads the tip: {set} applied {applied:?}, the tip is {tip:?}")]
    Ahead {
        /// Whose.
        set: ReplicaSetId,
        /// The head.
        applied: Position,
        /// The tip.
        tip: Position,
    },
    /// More is offered than is stored.
    #[error("offered means restorable: {set} offers up to {to:?}, the tip is {tip:?}")]
    OffersTooMuch {
        /// Whose.
        set: ReplicaSetId,
        /// The end of the range.
        to: Position,
        /// The tip.
        tip: Position,
    },
}

/// What was said so far.
#[derive(Debug, Default)]
pub struct Applied {
    tips: BTreeMap<(u64, ReplicaSetId, Incarnation), Position>,
}

impl Applied {
    /// A process of a daemon shows its status. One of `several` may have it from different owners, of which the former
    /// does not know yet that it was replaced: then tips are not compared.
    pub fn status(&mut self, process: u64, several: bool, status: &Status) -> Result<(), Astray> {
        for set in &status.replica_sets {
            let Some(tip) = set.tip else { continue };
            let key = (process, set.name.clone(), set.incarnation);
            let before = self.tips.insert(key, tip).unwrap_or(tip);
            if tip < before && !several {
                return Err(Astray::TipBack {
                    set: set.name.clone(),
                    before,
                    now: tip,
                });
            }
            if let Some(applied) = set.applied.filter(|applied| *applied > tip) {
                return Err(Astray::Ahead {
                    set: set.name.clone(),
                    applied,
                    tip,
                });
            }
            if let Some(range) = set.restorable
                && range.to > tip
            {
                return Err(Astray::OffersTooMuch {
                    set: set.name.clone(),
                    to: range.to,
                    tip,
                });
            }
        }
        Ok(())
    }
}
