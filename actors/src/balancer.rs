//! The balancer of a sharded cluster: orders for the agent of its config servers, and what that says. Decisions are in
//! `cluster/src/balancer.rs`.

use headwater_cluster::Command;
use headwater_cluster::balancer::{self, BalancerStep, Wanted};
use headwater_protocol::agent::{BalancerOrder, BalancerOutcome, BalancerWish, BalancerWord, Refusal};

use crate::commands::submit;
use crate::set::Set;

impl Set {
    /// What is wanted of the agent.
    pub(crate) fn balancer_order(&self) -> Result<Option<BalancerOrder>, Refusal> {
        let (state, _) = self.record()?;
        let order = |(step, wanted)| BalancerOrder {
            step,
            wish: match wanted {
                Wanted::Look => BalancerWish::Look,
                Wanted::Stop => BalancerWish::Stop,
                Wanted::PutBack(mode) => BalancerWish::PutBack { mode },
            },
        };
        Ok(balancer::wanted(&state, &self.id).map(order))
    }

    /// Takes the word of the agent; one about a step that is over is passed over.
    pub(crate) async fn note_balancer(&self, word: BalancerWord) -> Result<(), Refusal> {
        let (state, _) = self.record()?;
        if balancer::wanted(&state, &self.id).is_none_or(|(step, _)| step != word.step) {
            return Ok(());
        }
        let command = Command::NoteBalancer {
            name: self.id.deployment().clone(),
            step: word.step,
            outcome: match word.outcome {
                BalancerOutcome::Found { mode } => BalancerStep::Found(mode),
                BalancerOutcome::Stopped => BalancerStep::Stopped,
                BalancerOutcome::Failed { why } => BalancerStep::Failed(why),
                BalancerOutcome::PutBack => BalancerStep::PutBack,
            },
        };
        if let Err(refusal) = submit(&self.ground.control, command).await {
            // The agent tells it again, and its stream must not suffer.
            tracing::info!(set = %self.id, "a word about the balancer is not taken in: {}", refusal.message);
        }
        Ok(())
    }
}
