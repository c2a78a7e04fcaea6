//! `headwater groom`: the space of what is no longer needed.

use std::time::Duration;

use clap::Subcommand;
use headwater_model::DeploymentName;
use headwater_protocol::keeping::{GroomDone, GroomRequest, GroomView};

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, bytes, pairs};

/// How often a groom that is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Return the space of what is no longer needed.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater groom status shop
  headwater groom run shop --dry-run
  headwater groom run shop\n")]
pub enum Groom {
    /// Show what was done last, and when the next groom is due and why
    #[command(before_help = "Examples:\n  headwater groom status shop\n")]
    Status {
        /// Of which deployment
        name: DeploymentName,
    },
    /// Groom now, whatever the thresholds say
    #[command(before_help = "Examples:\n  headwater groom run shop --dry-run\n")]
    Run {
        /// Which deployment
        name: DeploymentName,
        /// Count and plan only
        #[arg(long)]
        dry_run: bool,
        /// Do not wait for its end
        #[arg(long)]
        no_wait: bool,
    },
}

impl Groom {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let place = |name: &DeploymentName| format!("/api/v1/deployments/{name}/groom");
        match self {
            Groom::Status { name } => {
                let views: Vec<GroomView> = client.get(&place(&name)).await?;
                format.print(&views, |views| text(views))
            }
            Groom::Run { name, dry_run, no_wait } => {
                let asked: Vec<GroomView> = client.post(&place(&name), &GroomRequest { dry_run }).await?;
                let ended = match no_wait {
                    true => asked,
                    false => ended(client, &place(&name), asked).await?,
                };
                format.print(&ended, |views| text(views))?;
                let failed = ended.iter().filter(|_| !no_wait).find_map(|view| {
                    let error = view.last.as_ref()?.error.as_ref()?;
                    Some(format!(
                        "the groom of {} did not come to its end: {error}",
                        view.replica_set
                    ))
                });
                failed.map_or(Ok(()), |failed| Err(Failure::new(Exit::Failed, failed)))
            }
        }
    }
}

/// Waits until every groom that was asked for has ended.
async fn ended(client: &Client, place: &str, asked: Vec<GroomView>) -> Outcome<Vec<GroomView>> {
    loop {
        let now: Vec<GroomView> = client.get(place).await?;
        let is_done = |wish: &GroomView| {
            let view = now.iter().find(|view| view.replica_set == wish.replica_set);
            view.is_none_or(|view| view.asked_ms != wish.asked_ms || view.asked_ms.is_none())
        };
        if asked.iter().all(is_done) {
            return Ok(now);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn text(views: &[GroomView]) -> String {
    if views.is_empty() {
        return "No agent has reached it yet: there is nothing to groom.".to_owned();
    }
    let one = |view: &GroomView| {
        let mut facts = vec![
            ("replica set", view.replica_set.to_string()),
            ("next", view.decision.clone()),
        ];
        if view.condemned > 0 {
            facts.push(("on their way out", format!("{} packs", view.condemned)));
        }
        match &view.last {
            None => facts.push(("last", "there was none yet".to_owned())),
            Some(last) => facts.extend(done(last)),
        }
        pairs(&facts)
    };
    views.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn done(last: &GroomDone) -> Vec<(&'static str, String)> {
    let would = if last.dry_run { " (looked only)" } else { "" };
    let share = last.living_bytes * 100 / (last.living_bytes + last.dead_bytes).max(1);
    let mut facts = vec![
        ("last", format!("{} in {} ms{would}", last.ended, last.took_ms)),
        ("because", last.why.clone()),
        (
            "found",
            format!(
                "{} living and {} dead bytes in {} packs, {share} % living",
                bytes(last.living_bytes),
                bytes(last.dead_bytes),
                last.packs
            ),
        ),
        (
            "removed",
            format!(
                "{} packs, {} written elsewhere",
                last.packs_removed,
                bytes(last.copied_bytes)
            ),
        ),
        (
            "space",
            format!("{} before, {} after", bytes(last.bytes_before), bytes(last.bytes_after)),
        ),
    ];
    if let Some(error) = &last.error {
        facts.push(("ended early", error.clone()));
    }
    facts
}
