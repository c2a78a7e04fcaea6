//! One Supervisor per replica set on this node: owns the children and keeps as many alive as the phase calls for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use headwater_model::{Epoch, Incarnation};

use crate::child::{Report, Waker, keep_alive};
use crate::children::{ChildKind, wanted};
use crate::set::Set;
use crate::work;
use crate::worker::Fault;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Look at the control state: it may have changed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Look;

/// The assignment is over: end, and all children with you.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Retire;

/// See the module.
pub struct Supervisor {
    set: Arc<Set>,
    children: BTreeMap<ChildKind, Child>,
    serving: Option<(Incarnation, Epoch)>,
}

/// A child's task; dropping it cuts the child off wherever it is, which its work must bear.
struct Child(tokio::task::JoinHandle<()>);

impl Drop for Child {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Supervisor {
    /// Starts without children; the first look starts them.
    pub fn new(set: Arc<Set>) -> Self {
        Supervisor {
            set,
            children: BTreeMap::new(),
            serving: None,
        }
    }

    fn look(&mut self) {
        let Ok((state, record)) = self.set.record() else {
            self.let_go(|_| false);
            return;
        };
        let active = state
            .deployments
            .get(self.set.id.deployment())
            .is_some_and(|d| d.active);
        let serving = Some((record.incarnation, record.epoch));
        if self.serving != serving {
            // Whoever works on a head of another history or assignment must end before its successor begins.
            self.let_go(|_| false);
            self.set.board.forget_requests();
            self.set.board.forget_applied();
            self.set.forget_fenced();
            self.serving = serving;
        }
        let wanted = wanted(record.phase, active);
        self.let_go(|kind| wanted.contains(&kind));
        for kind in wanted {
            self.children
                .entry(kind)
                .or_insert_with(|| start(kind, self.set.clone()));
        }
    }

    /// Ends the children that are not kept. Their troubles end with them: nobody else would take those back.
    fn let_go(&mut self, keep: impl Fn(ChildKind) -> bool) {
        let board = &self.set.board;
        self.children.retain(|kind, _| {
            let kept = keep(*kind);
            if !kept {
                board.set_trouble(kind.name(), None);
            }
            kept
        });
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, |supervisor, _| supervisor.look());
        self.look();
    }
}

impl Handler<Look> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Look, _: &mut Self::Context) {
        self.look();
    }
}

impl Handler<Retire> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        self.children.clear();
        ctx.stop();
    }
}

struct OnBoard {
    set: Arc<Set>,
    kind: ChildKind,
}

impl Report for OnBoard {
    fn failed(&self, fault: &Fault) {
        self.set.board.set_trouble(self.kind.name(), Some(fault.to_string()));
        if matches!(fault, Fault::Fenced(_)) {
            self.set.set_fenced(self.kind.name(), true);
        }
    }

    fn running(&self) {
        self.set.board.set_trouble(self.kind.name(), None);
        self.set.set_fenced(self.kind.name(), false);
    }
}

fn start(kind: ChildKind, set: Arc<Set>) -> Child {
    let report = OnBoard { set: set.clone(), kind };
    let name = kind.name();
    let task = match kind {
        ChildKind::Sync => tokio::task::spawn_local(keep_alive(name, set.head_waker.clone(), report, move || {
            work::sync::SyncWork::build(set.clone())
        })),
        ChildKind::OplogApply => {
            tokio::task::spawn_local(keep_alive(name, set.head_waker.clone(), report, move || {
                work::oplog_apply::OplogApplyWork::build(set.clone())
            }))
        }
        ChildKind::Snapshot => {
            tokio::task::spawn_local(keep_alive(name, set.snapshot_waker.clone(), report, move || {
                let work = work::snapshot::SnapshotWork::new(set.clone());
                async move { Ok(work) }
            }))
        }
        ChildKind::Groom => tokio::task::spawn_local(keep_alive(name, Waker::default(), report, move || {
            let work = work::groom::GroomWork::new(set.clone());
            async move { Ok(work) }
        })),
        ChildKind::Retention => tokio::task::spawn_local(keep_alive(name, Waker::default(), report, move || {
            let work = work::retention::RetentionWork::new(set.clone());
            async move { Ok(work) }
        })),
        ChildKind::Restore => {
            tokio::task::spawn_local(keep_alive(name, set.restore_waker.clone(), report, move || {
                let work = work::restore::RestoreWork::new(set.clone());
                async move { Ok(work) }
            }))
        }
    };
    Child(task)
}
