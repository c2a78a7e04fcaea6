//! `headwater restores`: restores that were started.

use clap::Subcommand;
use headwater_protocol::admin::{RestoreState, RestoreView};

use crate::cli::restore;
use crate::client::Client;
use crate::failure::Outcome;
use crate::instants;
use crate::output::{Format, bytes, pairs, table};

/// See restores that were started, and end them.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater restores list
  headwater restores show 7
  headwater restores cancel 7
")]
pub enum Restores {
    /// List restores
    List,
    /// Show one restore
    Show {
        /// Its number
        id: u64,
    },
    /// End a restore that runs; what it wrote stays at the target
    Cancel {
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
            Restores::Cancel { id } => {
                let path = format!("/api/v1/restores/{id}/cancel");
                let view: RestoreView = client.post(&path, &serde_json::json!({})).await?;
                format.print(&view, cancelled_text)
            }
        }
    }
}

/// A restore as it stands.
pub async fn of(client: &Client, id: u64) -> Outcome<RestoreView> {
    client.get(&format!("/api/v1/restores/{id}")).await
}

fn state(view: &RestoreView) -> String {
    match view.state {
        RestoreState::Running if view.error.is_some() => format!("held up ({})", view.step),
        RestoreState::Running => format!("running ({})", view.step),
        RestoreState::Finished => "finished".to_owned(),
        RestoreState::Failed => "failed".to_owned(),
        RestoreState::Cancelled => "cancelled".to_owned(),
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
    let error = match view.state {
        RestoreState::Running => "held up by",
        _ => "error",
    };
    facts.extend(view.error.clone().map(|why| (error, why)));
    facts.extend(view.notes.iter().map(|note| ("note", note.clone())));
    pairs(&facts)
}

fn cancelled_text(view: &RestoreView) -> String {
    let to = &view.plan.to;
    format!(
        "Restore {} is cancelled. What it wrote to {to} stays there: drop it, or restore again with --drop.",
        view.id
    )
}
