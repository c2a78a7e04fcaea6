//! The log of who did what: an entry before the deed, its outcome afterwards.

use headwater_cluster::Command;
use headwater_cluster::audit::AuditEntry;
use headwater_model::DeploymentName;
use headwater_protocol::access::AuditView;
use headwater_protocol::agent::Refusal;

use crate::access::Bearer;
use crate::backup::Backup;
use crate::commands::submit;
use crate::times::rfc3339;

/// A deed that is noted and not yet done.
#[derive(Clone, Copy, Debug)]
pub struct Begun(u64);

/// What became of a deed.
#[derive(Clone, Debug, Default)]
pub struct Became {
    /// Of which deployment it was, if the path did not say.
    pub deployment: Option<DeploymentName>,
    /// The restore that came of it.
    pub restore: Option<u64>,
    /// In words.
    pub outcome: String,
}

impl Backup {
    /// Notes that `who` is about to do `what`. Where this fails nothing must be done.
    pub async fn note_deed(
        &self,
        who: &Bearer,
        what: &str,
        path: &str,
        deployment: Option<DeploymentName>,
    ) -> Result<Begun, Refusal> {
        let token = self.node.ground.host.entropy.number();
        let entry = AuditEntry {
            token,
            at_ms: self.now_ms(),
            who: who.name.to_string(),
            key: who.id.clone(),
            what: what.to_owned(),
            path: path.to_owned(),
            deployment,
            restore: None,
            outcome: None,
        };
        submit(&self.node.ground.control, Command::BeginAudit { entry }).await?;
        Ok(Begun(token))
    }

    /// Notes what became of it. Where this fails the entry stays without an outcome, and the log of this process has it.
    pub async fn note_outcome(&self, begun: Begun, became: Became) {
        let command = Command::EndAudit {
            token: begun.0,
            deployment: became.deployment,
            restore: became.restore,
            outcome: became.outcome,
        };
        if let Err(refusal) = submit(&self.node.ground.control, command).await {
            tracing::warn!(target: "audit", "an outcome could not be noted: {}", refusal.message);
        }
    }

    /// Who did what, newest first.
    pub fn deeds(&self) -> Vec<AuditView> {
        let state = self.node.ground.control.state();
        let view = |(number, entry): (&u64, &AuditEntry)| AuditView {
            number: *number,
            at: rfc3339(entry.at_ms),
            who: entry.who.clone(),
            key: entry.key.clone(),
            what: entry.what.clone(),
            path: entry.path.clone(),
            deployment: entry.deployment.clone(),
            restore: entry.restore,
            outcome: entry.outcome.clone(),
        };
        state.audit.iter().rev().map(view).collect()
    }
}
