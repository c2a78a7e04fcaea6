//! Submitting commands to the control state, with refusals in the words of the API.

use headwater_cluster::{Command, Control, Response};
use headwater_protocol::agent::{Refusal, RefusalKind};

use crate::worker::Fault;

/// Submits a command wherever the leader is; it is durable, and applied here, when this answers.
pub async fn submit(control: &Control, command: Command) -> Result<Response, Refusal> {
    match control.submit_to_leader(command).await {
        Ok(Response::Refused { kind, message }) => Err(Refusal::new(kind_of(kind), message)),
        Ok(done) => Ok(done),
        Err(e) => Err(Refusal::new(RefusalKind::Unavailable, e.to_string())),
    }
}

/// The same for children: a refusal that names a stale epoch or history means that the child's time is over.
pub async fn submit_as_child(control: &Control, command: Command) -> Result<Response, Fault> {
    submit(control, command).await.map_err(|refusal| match refusal.kind {
        RefusalKind::Stale => Fault::Fenced(refusal.message),
        _ => Fault::Retry(refusal.message),
    })
}

fn kind_of(kind: headwater_cluster::RefusalKind) -> RefusalKind {
    use headwater_cluster::RefusalKind as R;
    match kind {
        R::NotFound => RefusalKind::NotFound,
        R::Conflict | R::OutOfOrder | R::NotReady => RefusalKind::Conflict,
        R::Stale => RefusalKind::Stale,
        R::Limit => RefusalKind::Invalid,
    }
}
