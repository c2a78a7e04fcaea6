//! The front door: everything the service may ask of this node, as plain async functions. Usable from any thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use headwater_cluster::{Command, placement};
use headwater_host::Serve;
use headwater_model::{DeploymentName, ReplicaSetId, SnapshotId};
use headwater_protocol::admin::{
    AddDeployment, DeploymentView, Destination, RestoreOrder, RestorePlanView, RestoreRequest, RestoreView,
    SnapshotView, Status, Timeline,
};
use headwater_protocol::agent::{
    Accepted, OpenReply, OpenRequest, OplogAck, OrdersReply, OrdersRequest, PollReply, PollRequest, Refusal,
    RefusalKind, SyncEnd,
};
use headwater_store::sealed::record;

use crate::archive::ArchiveStream;
use crate::commands::submit;
use crate::node::Node;
use crate::own_store;
use crate::peers::{Ask, Server};
use crate::restores::{self, Members, Names};
use crate::route::{LONG, SHORT};
use crate::set::{Ground, Set};
use crate::sharding;

/// The shortest interval that can be asked for.
const SNAPSHOT_INTERVAL_LEAST_S: u64 = 60;

/// A node's backup engine. Cheap to clone.
#[derive(Clone)]
pub struct Backup {
    pub(crate) node: Arc<Node>,
}

impl Backup {
    /// Starts the node. Call within an actix system.
    pub async fn start(ground: Ground) -> Result<Backup, Refusal> {
        Ok(Backup {
            node: Node::start(ground).await?,
        })
    }

    /// Answers the calls of other nodes.
    pub fn server(&self) -> Arc<dyn Serve> {
        Arc::new(Server::new(&self.node))
    }

    /// Whether this node can serve: what a node outside of its cluster knows may be long out of date.
    pub fn ready(&self) -> Result<(), Refusal> {
        let control = &self.node.ground.control;
        let message = match (self.node.floor.get(), control.leader()) {
            _ if self.node.removed.load(Ordering::SeqCst) => "this node was removed from its cluster".to_owned(),
            (Some(_), _) => return Ok(()),
            (None, Some(_)) => "this node is not part of its cluster yet; ask another, or again in a moment".to_owned(),
            (None, None) => headwater_cluster::ControlError::NoLeader.to_string(),
        };
        Err(Refusal::new(RefusalKind::Unavailable, message))
    }

    // ---- the agent's side --------------------------------------------------------------------------------------

    /// What an agent shall protect: what it has the lease of, and only that of the scope of its key.
    pub async fn orders(&self, mut request: OrdersRequest) -> Result<OrdersReply, Refusal> {
        let (agent, scope) = (request.agent.clone(), request.scope.clone());
        let within = |name: &DeploymentName| scope.is_empty() || scope.contains(name);
        request.clusters.retain(|report| within(&report.deployment));
        request.faults.retain(|fault| within(&fault.deployment));
        self.node.heard(request.clone());
        let mut reply = match self.at_leader_soon(Ask::Orders(request)).await {
            // Without a leader everything goes on as it is.
            Err(refusal) if refusal.kind == RefusalKind::Unavailable => self.orders_here(&agent),
            answer => answer?,
        };
        // Also when it says that it is another agent, or its key was changed for one with less: an order holds a password.
        reply.deployments.retain(|order| within(&order.deployment));
        Ok(reply)
    }

    /// Opens a stream; a replica set that is seen for the first time is registered.
    pub async fn open(&self, set: &ReplicaSetId, request: OpenRequest) -> Result<OpenReply, Refusal> {
        let state = self.node.ground.control.state();
        let deployment = state.deployments.get(set.deployment());
        let deployment = deployment.ok_or_else(|| not_found("deployment", set.deployment()))?;
        if !deployment.active {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!("deployment {} is stopped", set.deployment()),
            ));
        }
        own_store::check_source(set.set(), &request.members, &self.node.ground.tuning.backing_sets)?;
        sharding::check_belongs(&state, deployment, set)?;
        if !state.replica_sets.contains_key(set) {
            let looks = self.node.looks();
            let node = placement::choose(&state, &looks, self.node.ground.tuning.patience);
            let command = Command::RegisterReplicaSet {
                set: set.clone(),
                node: node.unwrap_or(self.node.id()),
                source_version: request.server_version.clone(),
            };
            submit(&self.node.ground.control, command).await?;
            tracing::info!(%set, server = %request.server_version, "a replica set is protected from now on");
        }
        self.at_owner(set, Ask::Open(set.clone(), request), Bytes::new(), SHORT)
            .await
    }

    /// See `protocol::agent`.
    pub async fn sync_begin(&self, set: &ReplicaSetId, frame: Bytes) -> Result<Accepted, Refusal> {
        self.at_owner(set, Ask::SyncBegin(set.clone()), frame, LONG).await
    }

    /// See `protocol::agent`.
    pub async fn sync_slice(&self, set: &ReplicaSetId, frame: Bytes) -> Result<Accepted, Refusal> {
        self.at_owner(set, Ask::SyncSlice(set.clone()), frame, LONG).await
    }

    /// See `protocol::agent`.
    pub async fn sync_end(&self, set: &ReplicaSetId, end: SyncEnd) -> Result<Accepted, Refusal> {
        self.at_owner(set, Ask::SyncEnd(set.clone(), end), Bytes::new(), LONG)
            .await
    }

    /// See `protocol::agent`.
    pub async fn oplog(&self, set: &ReplicaSetId, frame: Bytes) -> Result<OplogAck, Refusal> {
        self.at_owner(set, Ask::Oplog(set.clone()), frame, LONG).await
    }

    /// See `protocol::agent`.
    pub async fn documents(&self, set: &ReplicaSetId, frame: Bytes) -> Result<Accepted, Refusal> {
        self.at_owner(set, Ask::Documents(set.clone()), frame, LONG).await
    }

    /// See `protocol::agent`.
    pub async fn poll(&self, set: &ReplicaSetId, request: PollRequest) -> Result<PollReply, Refusal> {
        self.at_owner(set, Ask::Poll(set.clone(), request), Bytes::new(), SHORT)
            .await
    }

    // ---- the user's side: deployments and snapshots ------------------------------------------------------------

    /// All deployments.
    pub async fn deployments(&self) -> Result<Vec<DeploymentView>, Refusal> {
        let names: Vec<_> = self.node.ground.control.state().deployments.keys().cloned().collect();
        let mut views = Vec::new();
        for name in names {
            views.push(self.deployment(&name).await?);
        }
        Ok(views)
    }

    /// One deployment.
    pub async fn deployment(&self, name: &DeploymentName) -> Result<DeploymentView, Refusal> {
        self.deployment_view(name).await
    }

    /// Protects a new deployment; an agent takes it up at its next orders.
    pub async fn add_deployment(&self, request: AddDeployment) -> Result<DeploymentView, Refusal> {
        let uri = request.uri.trim();
        if !(uri.starts_with("mongodb://") || uri.starts_with("mongodb+srv://")) {
            let message = "the URI must begin with mongodb:// or mongodb+srv://";
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        own_store::check_uri(uri, &self.node.ground.tuning.backing_sets)?;
        let interval = request
            .snapshot_interval_seconds
            .unwrap_or(self.node.ground.tuning.snapshot_interval_s);
        if interval < SNAPSHOT_INTERVAL_LEAST_S {
            let message = format!("snapshots can be taken every {SNAPSHOT_INTERVAL_LEAST_S} seconds at the most");
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        let name = request.name.clone();
        let key = self.key_for(&name, request.encrypt).await?;
        let command = Command::AddDeployment {
            name: request.name,
            uri: uri.to_owned(),
            snapshot_interval_s: interval,
            created_ms: self.now_ms(),
            key,
        };
        submit(&self.node.ground.control, command).await?;
        if request.stop_balancer {
            self.set_stop_balancer(&name, true).await?;
        }
        self.deployment(&name).await
    }

    /// Says whether the balancer of a sharded cluster is stopped for checkpoints.
    pub(crate) async fn set_stop_balancer(&self, name: &DeploymentName, stop: bool) -> Result<(), Refusal> {
        let command = Command::SetStopBalancer {
            name: name.clone(),
            stop,
        };
        submit(&self.node.ground.control, command).await.map(drop)
    }

    /// Removes a deployment with every snapshot and all data kept for it.
    pub async fn remove_deployment(&self, name: &DeploymentName) -> Result<(), Refusal> {
        let state = self.node.ground.control.state();
        let key = state
            .deployments
            .get(name)
            .and_then(|known| Some(known.key.as_ref()?.key));
        submit(
            &self.node.ground.control,
            Command::RemoveDeployment { name: name.clone() },
        )
        .await?;
        self.node.follow().await;
        // The control state no longer knows the deployment, so nothing below its prefix can be wanted again.
        let objects = self.node.ground.objects.clone();
        let prefix = format!("rs/{name}/");
        let name = name.clone();
        self.node.ground.host.spawn(async move {
            if let Some(key) = key
                && let Err(error) = record::remove(objects.as_ref(), &name, key).await
            {
                tracing::warn!(%error, "the wrapped data key of a removed deployment stays for now");
            }
            match objects.list(&prefix).await {
                Ok(listed) => {
                    for object in listed {
                        if let Err(error) = objects.delete(&object.key).await {
                            tracing::warn!(%error, "an object of a removed deployment stays for now");
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the objects of a removed deployment stay for now"),
            }
        });
        Ok(())
    }

    /// Stops streaming; snapshots stay.
    pub async fn stop_deployment(&self, name: &DeploymentName) -> Result<DeploymentView, Refusal> {
        self.set_active(name, false).await
    }

    /// Streams again.
    pub async fn restart_deployment(&self, name: &DeploymentName) -> Result<DeploymentView, Refusal> {
        self.set_active(name, true).await
    }

    async fn set_active(&self, name: &DeploymentName, active: bool) -> Result<DeploymentView, Refusal> {
        let command = Command::SetDeploymentActive {
            name: name.clone(),
            active,
        };
        submit(&self.node.ground.control, command).await?;
        self.node.look();
        self.deployment(name).await
    }

    /// Begins a new history with a new first copy; snapshots of the old one stay restorable.
    pub async fn resync_deployment(&self, name: &DeploymentName) -> Result<DeploymentView, Refusal> {
        self.known(name)?;
        let control = &self.node.ground.control;
        for set in self.sets_of(name) {
            if let Some(expected) = control.state().replica_sets.get(&set).map(|record| record.incarnation) {
                submit(control, Command::StartIncarnation { set, expected }).await?;
            }
        }
        self.node.look();
        self.deployment(name).await
    }

    /// All snapshots, oldest first.
    pub async fn snapshots(&self, name: &DeploymentName) -> Result<Vec<SnapshotView>, Refusal> {
        self.known(name)?;
        Ok(self.snapshot_views(name))
    }

    /// Asks for a snapshot; it is complete once [`Backup::snapshot`] says so.
    pub async fn take_snapshot(&self, name: &DeploymentName) -> Result<SnapshotView, Refusal> {
        self.known(name)?;
        let deployments = &self.node.ground.control.state().deployments;
        if deployments.get(name).is_some_and(|known| known.sharding.is_some()) {
            return self.take_checkpoint(name).await;
        }
        let set = self.only_set(name)?;
        let host = &self.node.ground.host;
        let id = crate::work::snapshot::new_id(host).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
        let state = self.node.ground.control.state();
        let record = state
            .replica_sets
            .get(&set)
            .ok_or_else(|| not_found("replica set", &set))?;
        let command = Command::RequestSnapshot {
            set: set.clone(),
            id: id.clone(),
            incarnation: record.incarnation,
            reason: "demand".into(),
            asked_ms: self.now_ms(),
        };
        submit(&self.node.ground.control, command).await?;
        if let Ok(owned) = self.node.set(&set).await {
            owned.snapshot_waker.wake();
        }
        self.snapshot(name, &id).await
    }

    /// One snapshot.
    pub async fn snapshot(&self, name: &DeploymentName, id: &SnapshotId) -> Result<SnapshotView, Refusal> {
        let found = self.snapshots(name).await?.into_iter().find(|s| s.id == *id);
        found.ok_or_else(|| self.checkpoint_failed(name, id))
    }

    /// Forgets a snapshot; its image is removed at the next groom.
    pub async fn delete_snapshot(&self, name: &DeploymentName, id: &SnapshotId) -> Result<(), Refusal> {
        let snapshot = self.snapshot(name, id).await?;
        if !snapshot.complete && !snapshot.members.is_empty() {
            let message = format!("snapshot {id} of {name} is being taken; wait until it is complete or given up");
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let command = Command::DropSnapshot {
            set: snapshot.members.into_iter().next().unwrap_or(snapshot.replica_set),
            id: id.clone(),
        };
        submit(&self.node.ground.control, command).await.map(|_| ())
    }

    /// Everything at a glance.
    pub async fn status(&self) -> Result<Status, Refusal> {
        self.status_view().await
    }

    /// What can be restored.
    pub async fn timeline(&self, name: &DeploymentName) -> Result<Timeline, Refusal> {
        self.timeline_view(name).await
    }

    // ---- the user's side: restores -----------------------------------------------------------------------------

    /// What a restore would do.
    pub async fn plan_restore(
        &self,
        name: &DeploymentName,
        request: &RestoreRequest,
    ) -> Result<RestorePlanView, Refusal> {
        if let Some(members) = self.members_for_restore(name, request).await? {
            let planned = restores::anew(async || restores::plan_whole(&members, request).await);
            return Ok(planned.await?.view);
        }
        let set = self.set_for_restore(name, request).await?;
        let planned = restores::anew(async || restores::plan(&set, request).await);
        Ok(planned.await?.view)
    }

    /// Begins a restore to a running MongoDB, or prepares an archive.
    pub async fn start_restore(&self, name: &DeploymentName, order: RestoreOrder) -> Result<RestoreView, Refusal> {
        if let Some(members) = self.members_for_restore(name, &order.request).await? {
            return restores::create_whole(&members, order).await;
        }
        let set = self.set_for_restore(name, &order.request).await?;
        restores::create(&set, order).await
    }

    /// All restores known, newest first.
    pub async fn restores(&self) -> Result<Vec<RestoreView>, Refusal> {
        let state = self.node.ground.control.state();
        state
            .restores
            .iter()
            .rev()
            .map(|(id, restore)| restores::view_of(*id, restore))
            .collect()
    }

    /// One restore.
    pub async fn restore(&self, id: u64) -> Result<RestoreView, Refusal> {
        let state = self.node.ground.control.state();
        let restore = state.restores.get(&id).ok_or_else(|| not_found("restore", id))?;
        restores::view_of(id, restore)
    }

    /// Ends a restore. What it wrote stays where it is.
    pub async fn cancel_restore(&self, id: u64) -> Result<RestoreView, Refusal> {
        submit(&self.node.ground.control, Command::CancelRestore { id }).await?;
        self.restore(id).await
    }

    /// The archive of a restore that was asked for with `to: archive`.
    pub async fn archive(&self, id: u64) -> Result<ArchiveStream, Refusal> {
        let state = self.node.ground.control.state();
        let restore = state.restores.get(&id).ok_or_else(|| not_found("restore", id))?;
        let set = self.to_read(&restore.replica_set).await?;
        restores::archive(&set, id, restore).await
    }

    // ---- small parts -------------------------------------------------------------------------------------------

    pub(crate) fn now_ms(&self) -> i64 {
        self.node.ground.host.clock.now_ms()
    }

    pub(crate) fn known(&self, name: &DeploymentName) -> Result<(), Refusal> {
        let known = self.node.ground.control.state().deployments.contains_key(name);
        if known {
            Ok(())
        } else {
            Err(not_found("deployment", name))
        }
    }

    pub(crate) fn sets_of(&self, name: &DeploymentName) -> Vec<ReplicaSetId> {
        let state = self.node.ground.control.state();
        state
            .replica_sets
            .keys()
            .filter(|id| id.deployment() == name)
            .cloned()
            .collect()
    }

    pub(crate) fn only_set(&self, name: &DeploymentName) -> Result<ReplicaSetId, Refusal> {
        self.known(name)?;
        let mut sets = self.sets_of(name);
        if sets.len() > 1 {
            let message = format!(
                "{name} is a sharded cluster; name one of its members: {}",
                sharding::names(&sets)
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        sets.pop().ok_or_else(|| {
            let message = format!("no agent has reached deployment {name} yet: see `headwater status`");
            Refusal::new(RefusalKind::Conflict, message)
        })
    }

    /// A replica set to read from: the one that is worked on where this node owns it, else its stores as they are now.
    pub(crate) async fn to_read(&self, id: &ReplicaSetId) -> Result<Arc<Set>, Refusal> {
        let ground = &self.node.ground;
        match self.node.set(id).await {
            Err(refusal) if refusal.kind == RefusalKind::Unavailable => {
                let opened = Set::open_to_read(ground.clone(), id.clone()).await;
                opened.map_err(crate::trouble::refusal)
            }
            answer => answer,
        }
    }

    /// The members of a sharded cluster that is asked for as a whole; `None` where one replica set is meant.
    async fn members_for_restore(
        &self,
        name: &DeploymentName,
        request: &RestoreRequest,
    ) -> Result<Option<Members>, Refusal> {
        self.known(name)?;
        let state = self.node.ground.control.state();
        let names = Names::of(&state, name).filter(|_| request.replica_set.is_none());
        let Some(names) = names else {
            return match request.to {
                Destination::Cluster(_) => {
                    let message =
                        "only a sharded cluster as a whole can become a new cluster: name the deployment alone";
                    Err(Refusal::new(RefusalKind::Invalid, message))
                }
                _ => Ok(None),
            };
        };
        let mut opened = BTreeMap::new();
        for id in names.stored(&state) {
            let set = self.to_read(&id).await?;
            opened.insert(id, set);
        }
        names.members(opened).map(Some)
    }

    pub(crate) async fn set_for_restore(
        &self,
        name: &DeploymentName,
        request: &RestoreRequest,
    ) -> Result<Arc<Set>, Refusal> {
        let id = match &request.replica_set {
            None => self.only_set(name)?,
            Some(set) => {
                let id = ReplicaSetId::new(name.clone(), set);
                id.map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))?
            }
        };
        self.to_read(&id).await
    }
}

pub(crate) fn not_found(what: &str, which: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("there is no {what} {which}"))
}
