//! Checks as users ask for them and see them.

use headwater_cluster::integrity::{self as state, Damage, DamageKind};
use headwater_cluster::shares::{self, Share};
use headwater_cluster::{Command, Response, State};
use headwater_model::{DeploymentName, ReplicaSetId};
use headwater_protocol::admin::{Destination, RestoreRequest};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_protocol::integrity::{
    CheckKind, CheckRequest, CheckState, CheckStatus, CheckView, DamageView, IntegrityStatus, ProofRequest, ProofView,
};

use crate::backup::{Backup, not_found};
use crate::commands::submit;
use crate::restores;
use crate::times::rfc3339;

impl Backup {
    /// Asks for a check; how it stands is what [`Backup::check`] says.
    pub async fn start_check(&self, name: &DeploymentName, request: &CheckRequest) -> Result<CheckView, Refusal> {
        let set = self.chosen_set(name, request.replica_set.as_deref())?;
        let kind = match request.data {
            true => state::CheckKind::Data,
            false => state::CheckKind::Structure,
        };
        self.ask_for(set, kind, request.snapshot.clone()).await
    }

    /// Asks for a proof restore.
    pub async fn start_proof(&self, name: &DeploymentName, request: &ProofRequest) -> Result<CheckView, Refusal> {
        let set = self.chosen_set(name, request.replica_set.as_deref())?;
        let at = match &request.at {
            None => None,
            Some(at) => {
                let request = RestoreRequest {
                    at: at.clone(),
                    to: Destination::Archive,
                    replica_set: None,
                    include: Vec::new(),
                    rename: Vec::new(),
                    with_users: false,
                    drop: false,
                };
                let reader = self.to_read(&set).await?;
                let planned = restores::anew(async || restores::plan(&reader, &request).await);
                Some(planned.await?.plan.until)
            }
        };
        self.ask_for(set, state::CheckKind::Proof(at), None).await
    }

    /// One check.
    pub async fn check(&self, name: &DeploymentName, set: Option<&str>, number: u64) -> Result<CheckView, Refusal> {
        let set = self.chosen_set(name, set)?;
        let state = self.node.ground.control.state();
        let known = state.integrity_of(&set).and_then(|known| known.checks.get(&number));
        let check = known.ok_or_else(|| not_found("check", number))?;
        Ok(view(&set, number, check))
    }

    /// How the integrity of a replica set stands.
    pub async fn check_status(&self, name: &DeploymentName, set: Option<&str>) -> Result<CheckStatus, Refusal> {
        let id = self.chosen_set(name, set)?;
        let stored = match self.to_read(&id).await {
            Ok(set) => set.repository.blocks().stats().stored_bytes,
            Err(_) => 0,
        };
        let state = self.node.ground.control.state();
        let known = state.integrity_of(&id).cloned().unwrap_or_default();
        let checks: Vec<CheckView> = known
            .checks
            .iter()
            .rev()
            .map(|(n, check)| view(&id, *n, check))
            .collect();
        let last_proof = checks
            .iter()
            .find(|check| check.proof.as_ref().is_some_and(|proof| proof.agree));
        Ok(CheckStatus {
            share: share_in_words(
                known.pass.as_ref(),
                stored,
                self.node.ground.tuning.rhythm,
                self.now_ms(),
            ),
            next_proof: match shares::proof_due(&known, self.node.ground.tuning.proof_interval_s) {
                Some(due_ms) => format!("the next is due at {}", rfc3339(due_ms)),
                None => "none is due by itself".to_owned(),
            },
            last_proof: last_proof.cloned(),
            damage: known
                .damage
                .iter()
                .map(|(object, damage)| damage_view(object, damage))
                .collect(),
            checks,
            replica_set: id,
        })
    }

    async fn ask_for(
        &self,
        set: ReplicaSetId,
        kind: state::CheckKind,
        snapshot: Option<headwater_model::SnapshotId>,
    ) -> Result<CheckView, Refusal> {
        let command = Command::AskCheck {
            set: set.clone(),
            token: self.node.ground.host.entropy.number(),
            kind,
            snapshot,
            asked_ms: self.now_ms(),
        };
        let Response::CheckAsked { number } = submit(&self.node.ground.control, command).await? else {
            return Err(Refusal::new(RefusalKind::Internal, "the check was not given a number"));
        };
        if let Ok(owned) = self.node.set(&set).await {
            owned.check_waker.wake();
        }
        self.check(set.deployment(), Some(set.set()), number).await
    }

    fn chosen_set(&self, name: &DeploymentName, set: Option<&str>) -> Result<ReplicaSetId, Refusal> {
        match set {
            None => self.only_set(name),
            Some(set) => {
                let id = ReplicaSetId::new(name.clone(), set);
                let id = id.map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))?;
                match self.node.ground.control.state().replica_sets.contains_key(&id) {
                    true => Ok(id),
                    false => Err(not_found("replica set", id)),
                }
            }
        }
    }
}

fn share_in_words(pass: Option<&state::Pass>, stored: u64, rhythm: shares::Rhythm, now_ms: i64) -> String {
    let so_far = pass.map_or_else(String::new, |pass| {
        let read = match pass.whole {
            true => "everything".to_owned(),
            false => format!("{} of {} bytes", pass.bytes, stored.max(pass.bytes)),
        };
        format!("; {read} read since {}", rfc3339(pass.begun_ms))
    });
    let plan = match shares::due(pass, stored, rhythm, now_ms) {
        Share::Off => return "nothing is read by itself: checks.passDays is 0".to_owned(),
        Share::Begin => "a new pass begins".to_owned(),
        Share::Read { bytes } => format!("{bytes} bytes are due now"),
        Share::Wait { until_ms } => format!("the next share is due at {}", rfc3339(until_ms)),
    };
    format!(
        "everything within {} days, a share a day; {plan}{so_far}",
        rhythm.pass_days
    )
}

/// A check as users see it.
fn view(set: &ReplicaSetId, number: u64, check: &state::Check) -> CheckView {
    let standing = &check.standing;
    let counts = standing.counts;
    let disagrees = standing.proof.as_ref().is_some_and(|proof| !proof.agree);
    CheckView {
        number,
        replica_set: set.clone(),
        kind: match check.kind {
            state::CheckKind::Structure => CheckKind::Structure,
            state::CheckKind::Data => CheckKind::Data,
            state::CheckKind::Share => CheckKind::Share,
            state::CheckKind::Proof(_) => CheckKind::Proof,
        },
        snapshot: check.snapshot.clone(),
        state: match standing.state {
            state::CheckState::Running => CheckState::Running,
            state::CheckState::Finished if standing.faults == 0 && !disagrees => CheckState::Sound,
            state::CheckState::Finished => CheckState::Damaged,
            state::CheckState::Failed => CheckState::Failed,
        },
        asked: rfc3339(check.asked_ms),
        ended: standing.ended_ms.map(rfc3339),
        seconds: standing.took_ms as f64 / 1000.0,
        images: counts.images,
        nodes: counts.nodes,
        leaves: counts.leaves,
        objects: counts.objects,
        objects_total: counts.objects_total.max(counts.objects),
        bytes: counts.bytes,
        bytes_total: counts.bytes_total.max(counts.bytes),
        entries: counts.entries,
        faults: standing.faults,
        mended: standing.mended,
        findings: standing.findings.clone(),
        proof: standing.proof.as_ref().map(|proof| ProofView {
            at: proof.at.into(),
            ways: proof.ways.clone(),
            agree: proof.agree,
            documents: proof.documents,
            bytes: proof.bytes,
        }),
        error: standing.error.clone(),
    }
}

fn damage_view(object: &str, damage: &Damage) -> DamageView {
    DamageView {
        object: object.to_owned(),
        kind: kind_in_words(damage.kind).to_owned(),
        detail: damage.detail.clone(),
        found: rfc3339(damage.found_ms),
        blocks: damage.blocks,
        snapshots: damage.snapshots.iter().cloned().collect(),
        head: damage.head,
    }
}

/// A kind of damage as one word or two.
pub(crate) fn kind_in_words(kind: DamageKind) -> &'static str {
    match kind {
        DamageKind::Blocks => "blocks",
        DamageKind::PackIndex => "pack index",
        DamageKind::Image => "image",
        DamageKind::Oplog => "oplog",
        DamageKind::Proof => "proof",
    }
}

/// Integrity for the status of a replica set.
pub(crate) fn at_a_glance(state: &State, set: &ReplicaSetId, now_ms: i64) -> IntegrityStatus {
    let Some(known) = state.integrity_of(set) else {
        return IntegrityStatus::default();
    };
    let ended = |wanted: &dyn Fn(&state::Check) -> bool| {
        let all = known.checks.values().filter(|check| wanted(check));
        all.filter_map(|check| check.standing.ended_ms).max()
    };
    let last_sound = ended(&|check: &state::Check| {
        let is_proof = matches!(check.kind, state::CheckKind::Proof(_));
        check.standing.state == state::CheckState::Finished
            && check.standing.faults == 0
            && check.snapshot.is_none()
            && !is_proof
    });
    let last_proof = ended(&|check: &state::Check| check.standing.proof.as_ref().is_some_and(|proof| proof.agree));
    let snapshots: std::collections::BTreeSet<_> = known
        .damage
        .values()
        .flat_map(|damage| damage.snapshots.iter().cloned())
        .collect();
    IntegrityStatus {
        last_sound_check: last_sound.map(rfc3339),
        last_proof: last_proof.map(rfc3339),
        last_proof_age_seconds: last_proof.map(|at| u64::try_from((now_ms - at) / 1000).unwrap_or(0)),
        damaged_objects: known.damage.len() as u64,
        damaged_snapshots: snapshots.into_iter().collect(),
    }
}
