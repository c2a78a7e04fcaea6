//! What becomes of damage: whom it concerns, what is made known of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_cluster::Command;
use headwater_cluster::integrity::{Damage, DamageKind};
use headwater_head::Image;
use headwater_head::inspect::needs;
use headwater_model::{BlockId, Incarnation, Optime, SnapshotId};
use headwater_store::blocks::Blocks;

use super::images::{Needed, living};
use crate::commands::submit_as_child;
use crate::set::Set;
use crate::work::groom::remove_known;
use crate::work::head_store::{fault, manifest};
use crate::worker::Fault;

/// Stands for the place of blocks that are in no pack.
pub(super) const LOST_PACK: &str = "blocks";

/// Something that is not what it should be.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// The object's key.
    pub object: String,
    /// What it is.
    pub kind: DamageKind,
    /// What is wrong.
    pub detail: String,
    /// Blocks that cannot be read for it.
    pub lost: BTreeSet<BlockId>,
    /// Entries that cannot be read.
    pub oplog: Option<(Incarnation, Optime, Optime)>,
    /// Who needs it, where that is known without looking.
    pub needed: Option<Needed>,
    /// A pack whose index cannot be read, and of which nothing that lives misses anything.
    pub is_needless: bool,
}

impl Finding {
    /// Blocks of a pack.
    pub fn blocks(pack: &str, detail: &str) -> Finding {
        Finding {
            object: pack.to_owned(),
            kind: DamageKind::Blocks,
            detail: detail.to_owned(),
            lost: BTreeSet::new(),
            oplog: None,
            needed: None,
            is_needless: false,
        }
    }
}

/// What became of a finding.
pub(super) struct Noted {
    /// In words.
    pub text: String,
    /// Whether it was mended at once.
    pub mended: bool,
}

/// Mends a finding as far as can be, and makes known what stays, with the snapshots it concerns. `is_partial`: not everything
/// that lives was looked at, so what is known already of the object stays known.
pub(super) async fn note(set: &Arc<Set>, mut finding: Finding, is_partial: bool) -> Result<Noted, Fault> {
    if matches!(finding.kind, DamageKind::Blocks | DamageKind::PackIndex)
        && let Some(how) = mend(set, &mut finding).await?
    {
        let text = format!("{}: {}; {how}", finding.object, finding.detail);
        tracing::error!(set = %set.id, "damage, mended: {text}");
        clear(set, &finding.object).await?;
        return Ok(Noted { text, mended: true });
    }
    // An image that is being cut now either sees what is lost, or is seen here.
    let _no_cut = set.images.write().await;
    let (mut snapshots, mut head) = match &finding.needed {
        Some(needed) => (needed.snapshots.clone(), needed.head),
        None if finding.lost.is_empty() => (BTreeSet::new(), false),
        None => concerned(set, &finding.lost).await?,
    };
    let (state, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
    let known = state
        .integrity_of(&set.id)
        .and_then(|known| known.damage.get(&finding.object));
    let mut blocks = finding.lost.len() as u64;
    if let Some(known) = known.filter(|_| is_partial) {
        snapshots.extend(known.snapshots.iter().cloned());
        head |= known.head;
        blocks = blocks.max(known.blocks);
    }
    let text = in_words(&finding, &snapshots, head);
    tracing::error!(set = %set.id, "damage: {text}");
    let command = Command::NoteDamage {
        set: set.id.clone(),
        epoch: record.epoch,
        object: finding.object,
        damage: Damage {
            kind: finding.kind,
            detail: finding.detail,
            found_ms: set.ground.host.clock.now_ms(),
            blocks,
            snapshots,
            head,
            oplog: finding.oplog,
        },
    };
    submit_as_child(&set.ground.control, command).await?;
    Ok(Noted { text, mended: false })
}

/// Writes anew what can be had elsewhere. Says how, when nothing is lost any more; else what stays lost is in the finding.
async fn mend(set: &Arc<Set>, finding: &mut Finding) -> Result<Option<String>, Fault> {
    let store = set.repository.blocks();
    if finding.is_needless {
        remove(set, &finding.object).await?;
        return Ok(Some("mended: nothing of it is missing, and it goes".to_owned()));
    }
    let wanted = store.blocks_in(&finding.object);
    // Nobody knows what was in it, or it is about no pack: there is nothing to write.
    let is_unknown = finding.lost.is_empty() && store.damaged_packs().contains(&finding.object);
    if is_unknown || !finding.lost.is_subset(&wanted) {
        return Ok(None);
    }
    // With nothing lost, a mending that got no further is carried on: readers elsewhere may still look there.
    let plan = store.plan_mend(&finding.object).await?;
    tracing::warn!(
        set = %set.id, pack = plan.pack, in_memory = plan.in_memory.len(), elsewhere = plan.elsewhere.len(),
        in_place = plan.in_place.len(), lost = plan.lost.len(), "a damaged pack is mended as far as can be"
    );
    finding.lost = store.mend(&plan).await?;
    if finding.lost.is_empty() {
        remove(set, &plan.pack).await?;
    }
    Ok(finding.lost.is_empty().then(|| {
        let (memory, packs) = (plan.in_memory.len(), plan.elsewhere.len());
        format!(
            "mended: {memory} blocks were in memory, {packs} in other packs, the others were moved; nothing is lost"
        )
    }))
}

/// Makes known that a pack goes in which nothing is looked for any more, and deletes it: a successor that trusted it would
/// lose what a former owner deletes late. What fails here is deleted by the next groom.
async fn remove(set: &Arc<Set>, pack: &str) -> Result<(), Fault> {
    let (_, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
    let packs = vec![pack.to_owned()];
    let condemn = Command::CondemnPacks {
        set: set.id.clone(),
        epoch: record.epoch,
        packs: packs.clone(),
    };
    submit_as_child(&set.ground.control, condemn).await?;
    remove_known(set, &record, &packs).await
}

/// Makes known that an object is whole, or is needed no longer.
pub(super) async fn clear(set: &Arc<Set>, object: &str) -> Result<(), Fault> {
    let (_, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
    let command = Command::ClearDamage {
        set: set.id.clone(),
        epoch: record.epoch,
        object: object.to_owned(),
    };
    tracing::info!(set = %set.id, object, "an object that was damaged is whole, or needed no longer");
    submit_as_child(&set.ground.control, command).await.map(drop)
}

/// The snapshots that need one of these blocks, and whether the head does.
async fn concerned(set: &Arc<Set>, lost: &BTreeSet<BlockId>) -> Result<(BTreeSet<SnapshotId>, bool), Fault> {
    let blocks: Arc<dyn Blocks> = Arc::new(set.repository.blocks().read_at_rest().await?);
    let (mut snapshots, mut head) = (BTreeSet::new(), false);
    let (state, _) = set.record().map_err(|r| Fault::Retry(r.message))?;
    for ((incarnation, name), needed) in living(&state, &set.id) {
        // An image whose manifest cannot be read is damage of its own.
        let Ok(bytes) = manifest(set, incarnation, &name).await else {
            continue;
        };
        let Ok(image) = Image::decode(&bytes) else { continue };
        if needs(&blocks, &image, lost).await.map_err(fault)? {
            snapshots.extend(needed.snapshots);
            head |= needed.head;
        }
    }
    Ok((snapshots, head))
}

fn in_words(finding: &Finding, snapshots: &BTreeSet<SnapshotId>, head: bool) -> String {
    let Finding { object, detail, .. } = finding;
    let mut concerned: Vec<String> = snapshots.iter().map(ToString::to_string).collect();
    if head {
        concerned.push("the head".to_owned());
    }
    let concerned = match (&finding.oplog, concerned.is_empty()) {
        (Some((_, after, until)), _) => format!("no instant after {} up to {} can be restored", after.ts, until.ts),
        (None, true) => "no snapshot needs it".to_owned(),
        (None, false) => format!("needed by {}", concerned.join(", ")),
    };
    format!("{object}: {detail}; {concerned}")
}

/// Damaged blocks that readers met in the daily work are damage like that which a check finds.
pub(super) async fn look_after_met(set: &Arc<Set>) -> Result<(), Fault> {
    let store = set.repository.blocks();
    for (id, pack) in store.take_met() {
        // It was mended since.
        if !store.blocks_in(&pack).contains(&id) {
            continue;
        }
        let (state, _) = set.record().map_err(|r| Fault::Retry(r.message))?;
        let known = state.integrity_of(&set.id);
        if known.is_some_and(|known| known.damage.contains_key(&pack)) {
            continue;
        }
        let finding = Finding {
            lost: BTreeSet::from([id]),
            ..Finding::blocks(&pack, &format!("block {id} does not match its id, as a reader found"))
        };
        note(set, finding, true).await?;
    }
    Ok(())
}
