//! `headwater check`: proves that what is at rest is whole.

use std::time::Duration;

use clap::{Args, Subcommand};
use headwater_model::{DeploymentName, SnapshotId};
use headwater_protocol::integrity::{CheckRequest, CheckState, CheckStatus, CheckView, DamageView};
use serde::Serialize;

use crate::cli::named::Named;
use crate::cli::progress::Progress;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::instants;
use crate::output::{Format, bytes, pairs, table};

/// How often a check that is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Prove that what is at rest is whole.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(before_help = "Examples:
  headwater check shop                     everything that snapshots refer to is there
  headwater check shop --data              every byte of it is as it was written
  headwater check shop --data --snapshot ID
  headwater check shop/sh0                 only one member of a sharded cluster
  headwater check status shop\n")]
pub struct Check {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Which deployment, with all members where it is a sharded cluster; NAME/MEMBER for one of them
    #[arg(required = true)]
    name: Option<Named>,
    /// Read and verify every block and every oplog entry
    #[arg(long)]
    data: bool,
    /// Only this snapshot
    #[arg(long, value_name = "ID")]
    snapshot: Option<SnapshotId>,
    /// Come back at once; `check status` shows how it stands
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the last checks, what is read by itself, and damage that is known
    #[command(before_help = "Examples:\n  headwater check status shop\n")]
    Status {
        /// Which deployment; NAME/MEMBER for one member of a sharded cluster
        name: Named,
    },
}

impl Check {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        if let Some(Verb::Status { name }) = self.verb {
            let mut all = Vec::new();
            for member in name.members(client).await? {
                let status: CheckStatus = client.get(&path(&name.deployment, "check", member.as_deref())).await?;
                all.push(status);
            }
            return print_all(format, &all, status_text);
        }
        let name = self
            .name
            .ok_or_else(|| Failure::new(Exit::Usage, "name a deployment"))?;
        let mut asked = Vec::new();
        for member in name.members(client).await? {
            let request = CheckRequest {
                data: self.data,
                snapshot: self.snapshot.clone(),
                replica_set: member,
            };
            let path = path(&name.deployment, "check", None);
            asked.push(client.post(&path, &request).await?);
        }
        finish(client, format, asked, !self.no_wait).await
    }
}

fn path(name: &DeploymentName, what: &str, member: Option<&str>) -> String {
    let member = member.map_or_else(String::new, |member| format!("?replica_set={member}"));
    format!("/api/v1/deployments/{name}/{what}{member}")
}

/// Prints the result for one replica set, or those for several members of a cluster.
fn print_all<T: Serialize>(format: Format, all: &[T], text: impl Fn(&T) -> String) -> Outcome {
    match all {
        [one] => format.print(one, text),
        several => format.print(&several, |several| {
            let texts: Vec<String> = several.iter().map(text).collect();
            texts.join("\n\n")
        }),
    }
}

/// Waits for checks, unless that is not wanted, prints them, and ends as they did: damage comes before what could not be done.
pub async fn finish(client: &Client, format: Format, asked: Vec<CheckView>, wait: bool) -> Outcome {
    let mut views = Vec::new();
    for view in asked {
        views.push(match wait {
            true => ended(client, view).await?,
            false => view,
        });
    }
    print_all(format, &views, text)?;
    let damaged = views.iter().find(|view| view.state == CheckState::Damaged);
    let failed = views.iter().find(|view| view.state == CheckState::Failed);
    match damaged.or(failed) {
        None => Ok(()),
        Some(view) => Err(failure(view)),
    }
}

fn failure(view: &CheckView) -> Failure {
    let set = &view.replica_set;
    if view.state == CheckState::Damaged {
        let failure = Failure::new(
            Exit::Damaged,
            format!("{} faults were found in {set}", view.faults.max(1)),
        );
        return failure.help(format!("`headwater check status {set}` shows what is concerned"));
    }
    let message = view.error.as_deref().unwrap_or("it could not be completed");
    Failure::new(
        Exit::Failed,
        format!("the {} check of {set}: {message}", view.kind.text()),
    )
}

async fn ended(client: &Client, mut view: CheckView) -> Outcome<CheckView> {
    let mut progress = Progress::start();
    let set = view.replica_set.clone();
    let path = format!(
        "/api/v1/deployments/{}/check/{}?replica_set={}",
        set.deployment(),
        view.number,
        set.set()
    );
    while view.state == CheckState::Running {
        progress.show(view.kind.text(), view.bytes, view.bytes_total);
        tokio::time::sleep(LOOK_AGAIN).await;
        view = client.get(&path).await?;
    }
    progress.end();
    Ok(view)
}

fn state(view: &CheckView) -> String {
    match view.state {
        CheckState::Running => "running".to_owned(),
        CheckState::Sound if view.mended > 0 => format!("sound, {} faults mended", view.mended),
        CheckState::Sound => "sound".to_owned(),
        CheckState::Damaged => format!("{} faults", view.faults.max(1)),
        CheckState::Failed => "failed".to_owned(),
    }
}

fn rate(view: &CheckView) -> String {
    match view.seconds > 0.0 {
        true => format!(
            "{} at {}/s",
            bytes(view.bytes),
            bytes((view.bytes as f64 / view.seconds) as u64)
        ),
        false => bytes(view.bytes),
    }
}

/// A check in full.
pub fn text(view: &CheckView) -> String {
    let mut facts = vec![
        ("check", format!("{} of {}", view.number, view.replica_set)),
        ("kind", view.kind.text().to_owned()),
        ("state", state(view)),
        ("asked", view.asked.clone()),
        ("took", format!("{:.1} s", view.seconds)),
        (
            "images",
            format!("{}, {} nodes, {} leaves", view.images, view.nodes, view.leaves),
        ),
        (
            "read",
            format!("{}, {} objects of {}", rate(view), view.objects, view.objects_total),
        ),
        ("oplog", format!("{} entries", view.entries)),
    ];
    facts.extend(view.snapshot.as_ref().map(|id| ("snapshot", id.to_string())));
    facts.extend(view.proof.as_ref().map(|proof| {
        let agree = if proof.agree { "agree" } else { "DO NOT agree" };
        let shown = format!(
            "{}: {} {agree}, {} documents, {}",
            instants::position(proof.at),
            proof.ways,
            proof.documents,
            bytes(proof.bytes)
        );
        ("proof", shown)
    }));
    facts.extend(view.error.clone().map(|error| ("error", error)));
    let findings = view.findings.iter().map(|finding| format!("fault: {finding}\n"));
    pairs(&facts) + &findings.collect::<String>()
}

fn status_text(status: &CheckStatus) -> String {
    let rows = status.checks.iter().map(|view| {
        vec![
            view.number.to_string(),
            view.kind.text().to_owned(),
            state(view),
            view.ended.clone().unwrap_or_else(|| format!("asked {}", view.asked)),
            rate(view),
        ]
    });
    let mut out = format!("{}\n", status.replica_set);
    out += &table(
        &["check", "kind", "state", "ended", "read"],
        rows.collect(),
        "Nothing was checked yet.",
    );
    out.push_str(&format!("\n\nby itself: {}", status.share));
    if !status.next_proof.is_empty() {
        out.push_str(&format!("\nproof restores: {}", status.next_proof));
    }
    if !status.damage.is_empty() {
        out.push_str("\n\n");
        out.push_str(&damage_text(&status.damage));
    }
    out
}

fn damage_text(damage: &[DamageView]) -> String {
    let lines = damage.iter().map(|damage| {
        let mut concerned: Vec<String> = damage.snapshots.iter().map(|id| format!("snapshot {id}")).collect();
        if damage.head {
            concerned.push("the head".to_owned());
        }
        let concerned = match concerned.is_empty() {
            true => "no snapshot".to_owned(),
            false => concerned.join(", "),
        };
        format!(
            "damage: {} ({}), found {}: {}; concerns {concerned}\n",
            damage.object, damage.kind, damage.found, damage.detail
        )
    });
    lines.collect()
}
