//! What a command does to the state: pure, total, the same on every node.
//!
//! Nothing here fails or panics: a command that cannot be carried out is answered with [`Response::Refused`] and leaves
//! the state untouched.

use crate::command::{Command, Response};
use crate::state::State;
use crate::{
    alerts, audit, balancer, catalog, checkpoints, deployments, grooms, integrity, keeping, keys, leases, nodes,
    replica_sets, restores, schedules, sharding, snapshots,
};

/// Carries out `command`. A refusal changes nothing.
pub fn apply(state: &mut State, command: &Command) -> Response {
    let answer = carry_out(state, command).unwrap_or_else(|refusal| refusal);
    if !answer.is_refused() {
        integrity::follow(state, command);
        audit::follow(state, command);
    }
    answer
}

/// `Err` is a refusal; the two are the same type because a refusal is an answer like any other.
pub(crate) type Answer = Result<Response, Response>;

fn carry_out(state: &mut State, command: &Command) -> Answer {
    match command {
        Command::AddDeployment {
            name,
            uri,
            snapshot_interval_s,
            created_ms,
            key,
        } => deployments::add(state, name, uri, *snapshot_interval_s, *created_ms, key.as_ref()),
        Command::RemoveDeployment { name } => deployments::remove(state, name),
        Command::SetDeploymentActive { name, active } => deployments::set_active(state, name, *active),
        Command::SetSnapshotInterval { name, seconds } => deployments::set_snapshot_interval(state, name, *seconds),
        Command::RegisterReplicaSet {
            set,
            node,
            source_version,
        } => replica_sets::register(state, set, *node, source_version),
        Command::Assign { set, node, expected } => replica_sets::assign(state, set, *node, *expected),
        Command::StartIncarnation { set, expected } => replica_sets::start_incarnation(state, set, *expected),
        Command::SetPhase {
            set,
            incarnation,
            epoch,
            phase,
        } => replica_sets::set_phase(state, set, *incarnation, *epoch, *phase),
        Command::SetSyncStop { set, incarnation, stop } => replica_sets::set_sync_stop(state, set, *incarnation, *stop),
        Command::SetConsistentFrom {
            set,
            incarnation,
            epoch,
            from,
        } => replica_sets::set_consistent_from(state, set, *incarnation, *epoch, *from),
        Command::PublishWaypoint { set, epoch, image } => replica_sets::publish_waypoint(state, set, *epoch, image),
        Command::SetProblem {
            set,
            incarnation,
            problem,
        } => replica_sets::set_problem(state, set, *incarnation, problem.as_deref()),
        Command::RequestSnapshot {
            set,
            id,
            incarnation,
            reason,
            asked_ms,
        } => snapshots::request(state, set, id, *incarnation, reason, *asked_ms),
        Command::CompleteSnapshot {
            set,
            id,
            epoch,
            image,
            stored_bytes,
            completed_ms,
        } => snapshots::complete(state, set, id, *epoch, image, *stored_bytes, *completed_ms),
        Command::DropSnapshot { set, id } => snapshots::drop_snapshot(state, set, id),
        Command::ScheduleSnapshot { set, next_ms } => snapshots::schedule(state, set, *next_ms),
        Command::CreateRestore {
            token,
            set,
            request_json,
            created_ms,
            uses,
        } => restores::create(state, *token, set, request_json, *created_ms, uses),
        Command::UpdateRestore { id, epoch, progress } => restores::update(state, *id, *epoch, progress),
        Command::AddKey { id, key } => keys::add(state, id, key),
        Command::RemoveKey { id } => keys::remove(state, id),
        Command::BeginCluster { cluster, nodes } => nodes::begin(state, cluster, nodes),
        Command::AddNode { token, address } => nodes::add(state, *token, address),
        Command::StartNode { node, start, address } => nodes::start(state, *node, *start, address),
        Command::SetDraining { node, draining } => nodes::set_draining(state, *node, *draining),
        Command::RemoveNode { node } => nodes::remove(state, *node),
        Command::GrantLease {
            deployment,
            agent,
            expected,
        } => leases::grant(state, deployment, agent, *expected),
        Command::SetSchedule {
            name,
            interval_s,
            reference,
            retention,
            now_ms,
        } => schedules::set(state, name, *interval_s, *reference, *retention, *now_ms),
        Command::UpdateSnapshot {
            set,
            id,
            keep,
            expires_ms,
        } => snapshots::update(state, set, id, *keep, *expires_ms),
        Command::ExpireSnapshot { set, id, epoch, now_ms } => keeping::expire(state, set, id, *epoch, *now_ms),
        Command::TrimOplog {
            set,
            incarnation,
            epoch,
            keep_after,
            now_ms,
        } => keeping::trim(state, set, *incarnation, *epoch, *keep_after, *now_ms),
        Command::RequestGroom { set, dry_run, asked_ms } => grooms::request(state, set, *dry_run, *asked_ms),
        Command::CondemnPacks { set, epoch, packs } => grooms::condemn(state, set, *epoch, packs),
        Command::PacksRemoved { set, epoch, packs } => grooms::removed(state, set, *epoch, packs),
        Command::NoteGroom { set, epoch, report } => grooms::note(state, set, *epoch, report),
        Command::AskCheck {
            set,
            token,
            kind,
            snapshot,
            asked_ms,
        } => integrity::ask(state, set, *token, kind, snapshot.as_ref(), *asked_ms),
        Command::UpdateCheck {
            set,
            epoch,
            number,
            standing,
        } => integrity::update(state, set, *epoch, *number, standing),
        Command::SetPass { set, epoch, pass } => integrity::set_pass(state, set, *epoch, pass),
        Command::NoteDamage {
            set,
            epoch,
            object,
            damage,
        } => integrity::note(state, set, *epoch, object, damage),
        Command::ClearDamage { set, epoch, object } => integrity::clear(state, set, *epoch, object),
        Command::BeginAlert {
            id,
            kind,
            subject,
            text,
            begun_ms,
        } => alerts::begin(state, id, kind, subject, text, *begun_ms),
        Command::EndAlert { id, ended_ms } => alerts::end(state, id, *ended_ms),
        Command::AcknowledgeAlert { id, words } => alerts::acknowledge(state, id, words),
        Command::AlertTold {
            id,
            begun_ms,
            end,
            failure,
        } => alerts::told(state, id, *begun_ms, *end, failure.as_deref()),
        Command::RewrapKey { name, key } => deployments::rewrap(state, name, key),
        Command::Recover { piece } => catalog::take_in(state, piece),
        Command::SetSharding {
            name,
            found,
            interval_s,
        } => sharding::set(state, name, found, *interval_s),
        Command::OpenCheckpoint {
            name,
            id,
            reason,
            asked_ms,
        } => checkpoints::open(state, name, id, reason, *asked_ms),
        Command::NoteCheckpoint {
            set,
            id,
            attempt,
            epoch,
            at,
        } => checkpoints::note(state, set, id, *attempt, *epoch, *at),
        Command::CutCheckpoint {
            set,
            id,
            attempt,
            epoch,
            cut,
        } => checkpoints::cut(state, set, id, *attempt, *epoch, cut),
        Command::FailCheckpoint { name, id, why } => checkpoints::fail(state, name, id, why),
        Command::BeginAudit { entry } => audit::begin(state, entry),
        Command::EndAudit {
            token,
            deployment,
            restore,
            outcome,
        } => audit::end(state, *token, deployment.as_ref(), *restore, outcome),
        Command::ResumeCheckpoint { name, id, attempt } => checkpoints::resume(state, name, id, *attempt),
        Command::SetStopBalancer { name, stop } => balancer::set(state, name, *stop),
        Command::NoteBalancer { name, step, outcome } => balancer::note(state, name, *step, outcome),
        Command::CancelRestore { id } => restores::cancel(state, *id),
    }
}

/// Cuts `text` to at most `max` bytes, at the boundary of a character.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(shorten("abc", 5), "abc");
        assert_eq!(shorten("aü", 2), "a");
        assert_eq!(shorten("ü", 0), "");
    }
}
