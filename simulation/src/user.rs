//! What users ask of a daemon, carried out at its front door.

use bytes::Bytes;
use headwater_actors::Backup;
use headwater_model::{DeploymentName, SnapshotId};
use headwater_protocol::admin::{AddDeployment, At, Destination, RestoreOrder, RestoreRequest};
use headwater_protocol::agent::Refusal;
use headwater_protocol::integrity::{CheckRequest, ProofRequest};
use headwater_protocol::keeping::{GroomRequest, ScheduleChange, SnapshotChange};
use serde::Serialize;

use crate::network::Answer;

/// A wish.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Protects a deployment.
    Add(AddDeployment),
    /// Looks.
    Status,
    /// What can be restored.
    Timeline(DeploymentName),
    /// Takes a snapshot.
    Snapshot(DeploymentName),
    /// Forgets one.
    DeleteSnapshot(DeploymentName, SnapshotId),
    /// Keeps one, or lets it go when its time comes.
    ChangeSnapshot(DeploymentName, SnapshotId, SnapshotChange),
    /// Says how long what stays.
    Schedule(DeploymentName, ScheduleChange),
    /// Grooms.
    Groom(DeploymentName, GroomRequest),
    /// Checks.
    Check(DeploymentName, CheckRequest),
    /// Proves.
    Proof(DeploymentName, ProofRequest),
    /// Looks at a check or a proof of a replica set.
    CheckAt(DeploymentName, Option<String>, u64),
    /// Begins a new first copy.
    Resync(DeploymentName),
    /// Stops streaming, or streams again.
    Active(DeploymentName, bool),
    /// Looks at the nodes.
    Cluster,
    /// Drains a node, or ends that.
    Drain(u64, bool),
    /// Takes a node out.
    Remove(u64),
    /// Restores a replica set into an archive; the answer's body is the archive.
    Restore(DeploymentName, Option<String>, At),
}

/// Carries a wish out.
pub async fn grant(backup: &Backup, wish: Wish) -> Answer {
    match wish {
        Wish::Add(request) => json(backup.add_deployment(request).await),
        Wish::Status => json(backup.status().await),
        Wish::Timeline(name) => json(backup.timeline(&name).await),
        Wish::Snapshot(name) => json(backup.take_snapshot(&name).await),
        Wish::DeleteSnapshot(name, id) => json(backup.delete_snapshot(&name, &id).await),
        Wish::ChangeSnapshot(name, id, change) => json(backup.change_snapshot(&name, &id, change).await),
        Wish::Schedule(name, change) => json(backup.set_schedule(&name, change).await),
        Wish::Groom(name, request) => json(backup.run_groom(&name, request).await),
        Wish::Check(name, request) => json(backup.start_check(&name, &request).await),
        Wish::Proof(name, request) => json(backup.start_proof(&name, &request).await),
        Wish::CheckAt(name, set, number) => json(backup.check(&name, set.as_deref(), number).await),
        Wish::Resync(name) => json(backup.resync_deployment(&name).await),
        Wish::Active(name, true) => json(backup.restart_deployment(&name).await),
        Wish::Active(name, false) => json(backup.stop_deployment(&name).await),
        Wish::Cluster => json(Ok(backup.cluster())),
        Wish::Drain(node, draining) => json(backup.drain(node, draining).await),
        Wish::Remove(node) => json(backup.remove_node(node).await),
        Wish::Restore(name, set, at) => match archive(backup, &name, set, at).await {
            Ok(bytes) => (200, bytes),
            Err(refusal) => json::<()>(Err(refusal)),
        },
    }
}

async fn archive(backup: &Backup, name: &DeploymentName, set: Option<String>, at: At) -> Result<Bytes, Refusal> {
    let request = RestoreRequest {
        at,
        to: Destination::Archive,
        replica_set: set,
        include: Vec::new(),
        rename: Vec::new(),
        with_users: false,
        drop: false,
    };
    let order = RestoreOrder { request, token: None };
    let restore = backup.start_restore(name, order).await?;
    let mut stream = backup.archive(restore.id).await?;
    let mut whole = Vec::new();
    while let Some(chunk) = stream.next().await {
        whole.extend_from_slice(&chunk?);
    }
    Ok(whole.into())
}

/// An answer as the service gives it.
pub fn json<T: Serialize>(answer: Result<T, Refusal>) -> Answer {
    let (status, body) = match &answer {
        Ok(answer) => (200, serde_json::to_vec(answer)),
        Err(refusal) => (refusal.kind.status(), serde_json::to_vec(refusal)),
    };
    body.map_or((500, Bytes::new()), |body| (status, body.into()))
}
