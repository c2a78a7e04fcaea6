//! `headwater restores`: restores that were started.

use clap::Subcommand;
use headwater_protocol::admin::{RestoreState, RestoreView};

use crate::cli::restore;
use crate::client::Client;
use crate::failure::Outcome;
use crate::instants;
use crate::output::{Format, bytes, pairs, table};

/// See restores that were started.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:\n  headwater restores list\n  headwater restores show 7\n")]
pub enum Restores {
    /// List restores
    List,
    /// Show one restore
    Show {
        /// Its number
        id: u64,
    },
}

impl Restores {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        match self {
            Restores::List => {
                let views: Vec<RestoreView> = client.get("/api/v1/restores").await?;
                format.print(&views, |views| list(views))
            }
            Restores::Show { id } => format.print(&of(client, id).await?, text),
        }
    }
}

/// A restore as it stands.
pub async fn of(client: &Client, id: u64) -> Outcome<RestoreView> {
    client.get(&format!("/api/v1/restores/{id}")).await
}

fn state(view: &RestoreView) -> String {
    match view.state {
        RestoreState::Running => format!("running ({})", view.step),
        RestoreState::Finished => "finished".to_owned(),
        RestoreState::Failed => "failed".to_owned(),
    }
}

fn done(view: &RestoreView) -> String {
    match view.state {
        RestoreState::Running => format!(
            "{} of about {}",
            bytes(view.bytes_done),
            bytes(view.bytes_total.max(view.bytes_done))
        ),
        // What went into an archive is counted by whoever reads it.
        _ if view.bytes_done == 0 => "-".to_owned(),
        _ => format!("{} documents, {}", view.documents_done, bytes(view.bytes_done)),
    }
}

fn list(views: &[RestoreView]) -> String {
    let rows = views
        .iter()
        .map(|view| {
            vec![
                view.id.to_string(),
                match view.plan.members.is_empty() {
                    true => view.plan.replica_set.to_string(),
                    false => view.plan.replica_set.deployment().to_string(),
                },
                instants::position(view.plan.at),
                view.plan.to.clone(),
                state(view),
                done(view),
            ]
        })
        .collect();
    table(
        &["restore", "of", "at", "to", "state", "done"],
        rows,
        "No restore was started yet.",
    )
}

/// A restore in full.
pub fn text(view: &RestoreView) -> String {
    let mut facts = vec![
        ("restore", view.id.to_string()),
        ("of", restore::of(&view.plan)),
        ("at", instants::position(view.plan.at)),
        ("to", view.plan.to.clone()),
        ("state", state(view)),
        ("done", done(view)),
        ("created", view.created.clone()),
    ];
    facts.extend(view.error.clone().map(|error| ("error", error)));
    pairs(&facts)
}
