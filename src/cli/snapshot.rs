//! `headwater snapshot`: images that are kept.

use std::time::Duration;

use clap::Subcommand;
use headwater_config::quantity::milliseconds;
use headwater_model::{DeploymentName, SnapshotId};
use headwater_protocol::admin::SnapshotView;
use headwater_protocol::keeping::SnapshotChange;

use crate::client::Client;
use crate::confirm;
use crate::failure::Outcome;
use crate::instants;
use crate::output::{Format, bytes, pairs, table};

/// How often a snapshot that is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Take and see snapshots.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater snapshot take shop --wait
  headwater snapshot list shop
  headwater snapshot show shop ID
  headwater snapshot keep shop ID\n")]
pub enum Snapshot {
    /// Take a snapshot now
    #[command(
        before_help = "Examples:\n  headwater snapshot take shop --wait\n  headwater snapshot take shop --expires 30d\n"
    )]
    Take {
        /// Of which deployment
        name: DeploymentName,
        /// Come back when it is complete
        #[arg(long)]
        wait: bool,
        /// How long it stays [default: as long as the schedule lets every snapshot stay]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<u64>,
        /// Let it stay until it is released or deleted
        #[arg(long)]
        keep: bool,
    },
    /// List the snapshots of a deployment
    List {
        /// Of which deployment
        name: DeploymentName,
    },
    /// Show one snapshot
    Show {
        /// Of which deployment
        name: DeploymentName,
        /// Which one
        id: SnapshotId,
    },
    /// Let a snapshot stay whatever its date
    #[command(before_help = "Examples:\n  headwater snapshot keep shop ID\n")]
    Keep {
        /// Of which deployment
        name: DeploymentName,
        /// Which one
        id: SnapshotId,
    },
    /// Let a snapshot go when its date comes
    #[command(
        before_help = "Examples:\n  headwater snapshot release shop ID\n  headwater snapshot release shop ID --expires 7d\n"
    )]
    Release {
        /// Of which deployment
        name: DeploymentName,
        /// Which one
        id: SnapshotId,
        /// How long it stays from now on [default: until the date it has]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<u64>,
    },
    /// Delete a snapshot
    #[command(
        before_help = "Examples:\n  headwater snapshot delete shop ID\n  headwater snapshot delete shop ID --yes\n"
    )]
    Delete {
        /// Of which deployment
        name: DeploymentName,
        /// Which one
        id: SnapshotId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl Snapshot {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        match self {
            Snapshot::Take {
                name,
                wait,
                expires,
                keep,
            } => {
                let mut asked: SnapshotView = client.order(&all(&name)).await?;
                if keep || expires.is_some() {
                    let wish = change(keep.then_some(true), expires);
                    asked = client.post(&one(&name, &asked.id), &wish).await?;
                }
                let view = if wait {
                    completed(client, &name, asked).await?
                } else {
                    asked
                };
                format.print(&view, taken_text)
            }
            Snapshot::List { name } => {
                let views: Vec<SnapshotView> = client.get(&all(&name)).await?;
                format.print(&views, |views| list_text(views))
            }
            Snapshot::Show { name, id } => {
                let view: SnapshotView = client.get(&one(&name, &id)).await?;
                format.print(&view, show_text)
            }
            Snapshot::Keep { name, id } => {
                let view: SnapshotView = client.post(&one(&name, &id), &change(Some(true), None)).await?;
                format.print(&view, show_text)
            }
            Snapshot::Release { name, id, expires } => {
                let view: SnapshotView = client.post(&one(&name, &id), &change(Some(false), expires)).await?;
                format.print(&view, show_text)
            }
            Snapshot::Delete { name, id, yes } => {
                let view: SnapshotView = client.get(&one(&name, &id)).await?;
                let about = format!(
                    "Snapshot {id} of {name}, asked for at {}, will be deleted for good.",
                    view.created
                );
                confirm::typed(&about, id.as_str(), yes)?;
                client.delete(&one(&name, &id)).await?;
                let done = serde_json::json!({ "deleted": id });
                format.print(&done, |_| format!("Snapshot {id} of {name} is deleted."))
            }
        }
    }
}

fn expiry(text: &str) -> Result<u64, String> {
    milliseconds(text).map_err(|e| e.to_string())
}

/// `expires` is a time from now, in milliseconds.
fn change(keep: Option<bool>, expires: Option<u64>) -> SnapshotChange {
    let from_now = |ms| instants::now().as_millisecond().saturating_add_unsigned(ms);
    SnapshotChange {
        keep,
        expires_ms: expires.map(from_now),
    }
}

fn all(name: &DeploymentName) -> String {
    format!("/api/v1/deployments/{name}/snapshots")
}

fn one(name: &DeploymentName, id: &SnapshotId) -> String {
    format!("/api/v1/deployments/{name}/snapshots/{id}")
}

async fn completed(client: &Client, name: &DeploymentName, mut view: SnapshotView) -> Outcome<SnapshotView> {
    while !view.complete {
        tokio::time::sleep(LOOK_AGAIN).await;
        view = client.get(&one(name, &view.id)).await?;
    }
    Ok(view)
}

fn instant(view: &SnapshotView) -> String {
    view.at.map_or_else(|| "not yet known".to_owned(), instants::position)
}

fn taken_text(view: &SnapshotView) -> String {
    let deployment = view.replica_set.deployment();
    if view.complete {
        let source = match view.members.first() {
            Some(member) => member.to_string(),
            None => deployment.to_string(),
        };
        return format!(
            "{}\nnext: headwater restore {source} --at snapshot:{} --to-dir ./dump",
            show_text(view),
            view.id
        );
    }
    format!(
        "Snapshot {} is being taken.\nnext: headwater snapshot show {deployment} {}",
        view.id, view.id
    )
}

fn show_text(view: &SnapshotView) -> String {
    let mut facts = vec![
        ("snapshot", view.id.to_string()),
        ("of", of(view)),
        ("state", state(view)),
        ("shows", instant(view)),
        ("created", format!("{} ({})", view.created, view.reason)),
        (
            "holds",
            format!("{} documents in {} collections", view.documents, view.collections),
        ),
        ("data", bytes(view.logical_bytes)),
        ("newly stored", bytes(view.stored_bytes)),
        ("stays", stays(view)),
        ("because", because(view)),
    ];
    if let Some(why) = &view.possibly_inconsistent {
        facts.push(("doubt", format!("its members may not fit together: {why}")));
    }
    pairs(&facts)
}

fn state(view: &SnapshotView) -> String {
    match (view.complete, &view.possibly_inconsistent, &view.waits_for) {
        (true, None, _) => "complete".to_owned(),
        (true, Some(_), _) => "complete, possibly inconsistent".to_owned(),
        (false, _, None) => "being taken".to_owned(),
        (false, _, Some(what)) => format!("being taken, waits for: {what}"),
    }
}

fn of(view: &SnapshotView) -> String {
    match view.members.is_empty() {
        true => format!("{}, incarnation {}", view.replica_set, view.incarnation),
        false => {
            let members: Vec<String> = view.members.iter().map(ToString::to_string).collect();
            format!("{} at one cluster time", members.join(", "))
        }
    }
}

/// Until when a snapshot stays.
pub fn stays(view: &SnapshotView) -> String {
    match (&view.expires, view.keep) {
        (_, true) => "until it is released".to_owned(),
        (Some(expires), false) => format!("until {expires}"),
        (None, false) if view.complete => "for ever".to_owned(),
        (None, false) => "until a date that it gets when it is complete".to_owned(),
    }
}

/// Why a snapshot is there.
pub fn because(view: &SnapshotView) -> String {
    match (view.complete, view.kept_because.is_empty()) {
        (false, _) => "it is being taken".to_owned(),
        (true, true) => "its time is over; it goes soon".to_owned(),
        (true, false) => view.kept_because.join(", "),
    }
}

/// Snapshots as a table.
pub fn list_text(views: &[SnapshotView]) -> String {
    let rows = views
        .iter()
        .map(|view| {
            vec![
                view.id.to_string(),
                match view.members.is_empty() {
                    true => view.replica_set.to_string(),
                    false => format!("{}, {} members", view.replica_set.deployment(), view.members.len()),
                },
                state(view),
                instant(view),
                bytes(view.logical_bytes),
                bytes(view.stored_bytes),
                view.documents.to_string(),
                view.reason.clone(),
                stays(view),
            ]
        })
        .collect();
    let header = [
        "snapshot",
        "replica set",
        "state",
        "shows",
        "data",
        "stored",
        "documents",
        "reason",
        "stays",
    ];
    table(&header, rows, "There is no snapshot yet.")
}
