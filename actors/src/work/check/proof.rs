//! A proof restore: one instant is made in two ways, and both must give the same documents.
//!
//! What it shows: the image nearest to the instant, as the daily work made it by applying, spilling and folding, holds what
//! a replay of the oplog on top of the image before it gives; manifests, blocks that changed in between and the oplog are
//! readable. What it does not show: that the source holds the same, nor that blocks both images share are whole (that is
//! what reading data is for). Collections whose layers are the same blocks in both are equal without being read.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_cluster::integrity::{DamageKind, Proven};
use headwater_head::{Digest, HeadError};
use headwater_model::{CollectionUuid, Ts};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::materialize::AtT;
use headwater_restore::plan::Plan;
use headwater_restore::plan::ways::{self, Ways};
use headwater_store::objects::StoreError;

use super::damage::Finding;
use super::run::Run;
use crate::restores::{inventory, materialize};
use crate::set::{self, Set};
use crate::trouble;
use crate::work::head_store::fault;
use crate::worker::Fault;

/// The object under which a disagreement is known.
const OBJECT: &str = "proof";

impl Run {
    /// Proves the instant that is asked for, or one chosen at random.
    pub async fn prove(&mut self, wanted: Option<Ts>) -> Result<(), Fault> {
        let found = inventory(&self.set).await.map_err(passing)?;
        let (bases, ranges, current) = &found;
        let at = match wanted {
            Some(at) => at,
            None => {
                let span = ways::span(bases, ranges, *current).ok_or_else(only_one_way)?;
                ways::within(span, self.set.ground.host.entropy.number())
            }
        };
        let ways = ways::ways(bases, ranges, *current, at).ok_or_else(only_one_way)?;
        let proven = {
            let (set, ways, number) = (self.set.clone(), ways.clone(), self.number());
            let proving = async move {
                let proven = compare(&set, &ways, number).await;
                for way in [0, 1] {
                    set::remove_scratch(&set.ground, scratch(number, way)).await;
                }
                proven
            };
            let ended = self.set.ground.host.spawn(proving).await;
            ended.map_err(|e| Fault::Retry(e.to_string()))??
        };
        self.standing.counts.bytes = proven.bytes;
        let differing = proven.differing;
        self.standing.proof = Some(Proven {
            at,
            ways: format!("{} and {}", way_in_words(&ways.near), way_in_words(&ways.far)),
            agree: differing.is_empty(),
            documents: proven.documents,
            bytes: proven.bytes,
        });
        match differing.is_empty() {
            true => self.sound(OBJECT).await,
            false => {
                let detail = format!("two ways to {at} give different data: {}", differing.join("; "));
                self.find(Finding {
                    kind: DamageKind::Proof,
                    ..Finding::blocks(OBJECT, &detail)
                })
                .await
            }
        }
    }
}

fn only_one_way() -> Fault {
    let text = "there are no two ways to that instant: a proof needs two images of the present history at or before it, \
                with the oplog from the older one on; take a snapshot, or wait for the next";
    Fault::Blocked(text.to_owned())
}

fn passing(refusal: Refusal) -> Fault {
    match refusal.kind {
        RefusalKind::Unavailable | RefusalKind::StoreFull => Fault::Retry(refusal.message),
        _ => Fault::Blocked(refusal.message),
    }
}

fn way_in_words(plan: &Plan) -> String {
    let base = match &plan.base.snapshot {
        Some(id) => format!("snapshot {id}"),
        None => "the head's waypoint".to_owned(),
    };
    match plan.is_whole_image() {
        true => base,
        false => format!("{base} with the oplog from {} on", plan.base.at.ts),
    }
}

/// Numbers of scratch folders, away from those of restores.
fn scratch(number: u64, way: u64) -> u64 {
    (1 << 63) | (number << 1) | way
}

struct Compared {
    documents: u64,
    bytes: u64,
    differing: Vec<String>,
}

async fn compare(set: &Arc<Set>, ways: &Ways, number: u64) -> Result<Compared, Fault> {
    let near = made(set, &ways.near, scratch(number, 0)).await?;
    let far = made(set, &ways.far, scratch(number, 1)).await?;
    let mut compared = Compared {
        documents: 0,
        bytes: 0,
        differing: Vec::new(),
    };
    let uuids = |made: &AtT| -> Vec<CollectionUuid> { made.head().collections().map(|c| c.uuid()).collect() };
    let all: BTreeSet<CollectionUuid> = uuids(&near).into_iter().chain(uuids(&far)).collect();
    if near.at() != far.at() {
        compared
            .differing
            .push(format!("one ends at {}, the other at {}", near.at(), far.at()));
    }
    for uuid in all {
        match (near.head().collection(uuid), far.head().collection(uuid)) {
            (Some(one), Some(other)) => {
                let shape =
                    |c: &headwater_head::Collection| (c.namespace().clone(), c.options().clone(), c.indexes().to_vec());
                if shape(one) != shape(other) {
                    compared
                        .differing
                        .push(format!("{} is defined otherwise", one.namespace()));
                }
                let digest = match one.layers() == other.layers() {
                    true => continue,
                    false => near.head().digest(uuid).await.map_err(damaged)?,
                };
                let again = far.head().digest(uuid).await.map_err(damaged)?;
                compared.documents += digest.documents;
                compared.bytes += digest.bytes + again.bytes;
                if digest != again {
                    compared
                        .differing
                        .push(format!("{}: {}", one.namespace(), unlike(&digest, &again)));
                }
            }
            (Some(only), None) | (None, Some(only)) => {
                compared.differing.push(format!("only one has {}", only.namespace()));
            }
            (None, None) => {}
        }
    }
    Ok(compared)
}

fn unlike(one: &Digest, other: &Digest) -> String {
    match one.documents == other.documents {
        true => format!("{} documents, not all of them alike", one.documents),
        false => format!("{} documents where the other has {}", one.documents, other.documents),
    }
}

/// Damage that is met ends the proof, a block that is in no pack as well; what it is, and whom it concerns, is looked after
/// like any a reader meets, or found by the next check.
fn damaged(error: HeadError) -> Fault {
    match error {
        HeadError::Store(StoreError::NotFound(missing)) => Fault::Blocked(format!("{missing} is missing")),
        other => fault(other),
    }
}

async fn made(set: &Arc<Set>, plan: &Plan, scratch: u64) -> Result<AtT, Fault> {
    let scratch = set::scratch(set, scratch).await.map_err(trouble::refusal);
    let scratch = scratch.map_err(passing)?;
    materialize(set, plan, scratch).await.map_err(passing)
}
