//! `headwater restore`: gives data back as it was at an instant.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use headwater_protocol::admin::{At, Destination, Rename, RestoreOrder, RestorePlanView};
use headwater_protocol::admin::{RestoreRequest, RestoreState, RestoreView};
use headwater_protocol::redact;

use crate::cli::archive::Sink;
use crate::cli::named::Named;
use crate::cli::progress::Progress;
use crate::cli::restores;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, bytes, pairs, table};
use crate::{at, confirm, instants, stop};

/// How often a running restore is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How many looks in a row may fail before following is given up: a minute.
const LOOKS_THAT_MAY_FAIL: u32 = 120;

/// How many namespaces of a plan are shown to people; `--output json` has them all.
const NAMESPACES_SHOWN: usize = 200;

/// Give data back, as it was at any instant.
#[derive(Clone, Debug, Args)]
#[command(before_help = "Examples:
  headwater restore shop --at latest --to-uri mongodb://spare:27017
  headwater restore shop --at -15m --to-dir ./dump && mongorestore ./dump
  headwater restore shop --at 1795343591,42 --to-archive - | mongorestore --archive
  headwater restore shop --at 2026-11-22T10:33:11Z --to-uri mongodb://spare \\
      --ns-include 'shop.orders' --ns-rename 'shop.*=rescued.*'
  headwater restore shop --at snapshot:ID --to-cluster cfg=mongodb://new1:27019 \\
      --to-cluster sh0=mongodb://new2:27018 --to-cluster sh1=mongodb://new3:27018\n")]
#[command(group(ArgGroup::new("destination").required(true).args(["to_uri", "to_cluster", "to_dir", "to_archive"])))]
pub struct Restore {
    /// Which deployment; a sharded cluster as its routers show it, or one of its replica sets as DEPLOYMENT/SET
    #[arg(value_name = "NAME")]
    source: Named,
    /// Which instant: latest, snapshot:ID, 2026-11-22T10:33:11Z, an oplog position T,I, or a time ago such as -15m
    #[arg(long, value_name = "INSTANT", allow_hyphen_values = true, value_parser = instant)]
    at: At,
    /// Into a running MongoDB; in the environment it is not seen by other users of the machine
    #[arg(long, value_name = "URI", env = "HEADWATER_TARGET_URI", hide_env_values = true)]
    to_uri: Option<String>,
    /// A sharded cluster into a new one: fresh replica sets, one for each shard and one for the config servers. In the
    /// environment, with spaces between them, they are not seen by other users of the machine
    #[arg(long, value_name = "MEMBER=URI", value_parser = member, value_delimiter = ' ')]
    #[arg(env = "HEADWATER_TARGET_CLUSTER", hide_env_values = true)]
    to_cluster: Vec<(String, String)>,
    /// Into a directory in mongodump's format
    #[arg(long, value_name = "DIR")]
    to_dir: Option<PathBuf>,
    /// Into an archive in mongodump's format; - for standard output
    #[arg(long, value_name = "FILE")]
    to_archive: Option<PathBuf>,
    /// Only these namespaces: db.coll, db.* or *; may be given several times
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    ns_include: Vec<String>,
    /// Call namespaces otherwise at the target; a * stands for the same text on both sides
    #[arg(long, value_name = "FROM=TO", value_parser = rename)]
    ns_rename: Vec<Rename>,
    /// Restore users and roles as well
    #[arg(long)]
    with_users: bool,
    /// Drop collections at the target that stand in the way
    #[arg(long, conflicts_with_all = ["to_dir", "to_archive"])]
    drop: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn instant(text: &str) -> Result<At, String> {
    at::parse(text, instants::now())
}

fn member(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(member, _)| !member.is_empty());
    match pair {
        Some((member, uri)) if uri.starts_with("mongodb") => Ok((member.to_owned(), uri.to_owned())),
        _ => Err(format!("{:?} is no pair; write MEMBER=mongodb://…", redact::uri(text))),
    }
}

fn pattern(text: &str) -> Result<String, String> {
    let whole = text == "*";
    let halves = text
        .split_once('.')
        .is_some_and(|(db, coll)| !db.is_empty() && !coll.is_empty());
    if whole || halves {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no pattern; write db.coll, db.* or *"))
    }
}

fn rename(text: &str) -> Result<Rename, String> {
    let (from, to) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is no pair; write FROM=TO"))?;
    let (from, to) = (pattern(from)?, pattern(to)?);
    if from.matches('*').count() == to.matches('*').count() {
        Ok(Rename { from, to })
    } else {
        Err(format!("{text:?} does not have the same stars on both sides"))
    }
}

impl Restore {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let sink = self.sink();
        if let (Some(sink), false) = (&sink, self.dry_run) {
            sink.check()?;
        }
        let request = self.request();
        let plan: RestorePlanView = client.post(&self.path("restores/plan"), &request).await?;
        if self.dry_run {
            return format.print(&plan, plan_text);
        }
        if format == Format::Table {
            eprintln!("{}", plan_text(&plan));
        }
        self.confirm()?;
        let token = Some(rand::random());
        let order = RestoreOrder { request, token };
        let started: RestoreView = client.post_until_answered(&self.path("restores"), &order).await?;
        let done = match &sink {
            None => follow(client, started.id).await?,
            Some(sink) => sink.receive(client, &started).await?,
        };
        match sink {
            Some(Sink::Stdout) => Ok(()),
            _ => format.print(&done, |done| self.done_text(done)),
        }
    }

    fn path(&self, what: &str) -> String {
        format!("/api/v1/deployments/{}/{what}", self.source.deployment)
    }

    fn sink(&self) -> Option<Sink> {
        match (&self.to_dir, &self.to_archive) {
            (Some(dir), _) => Some(Sink::Directory(dir.clone())),
            (_, Some(file)) if file.as_os_str() == "-" => Some(Sink::Stdout),
            (_, Some(file)) => Some(Sink::File(file.clone())),
            _ => None,
        }
    }

    fn request(&self) -> RestoreRequest {
        RestoreRequest {
            at: self.at.clone(),
            to: self.destination(),
            replica_set: self.source.member.clone(),
            include: self.ns_include.clone(),
            rename: self.ns_rename.clone(),
            with_users: self.with_users,
            drop: self.drop,
        }
    }

    fn destination(&self) -> Destination {
        match &self.to_uri {
            Some(uri) => Destination::Uri(uri.clone()),
            None if self.to_cluster.is_empty() => Destination::Archive,
            None => Destination::Cluster(self.to_cluster.iter().cloned().collect()),
        }
    }

    fn confirm(&self) -> Outcome {
        let hosts = match self.destination() {
            Destination::Archive => return Ok(()),
            Destination::Uri(uri) => redact::hosts(&uri),
            Destination::Cluster(targets) => {
                let hosts: Vec<_> = targets.values().map(|uri| redact::hosts(uri)).collect();
                hosts.join(",")
            }
        };
        let name = if hosts.is_empty() {
            self.source.deployment.as_str()
        } else {
            &hosts
        };
        let drops = if self.drop {
            " Collections that stand in the way there will be dropped."
        } else {
            ""
        };
        let about = format!(
            "This writes {} of {} to {name}.{drops}",
            at::text(&self.at),
            self.source.deployment
        );
        confirm::typed(&about, name, self.yes)
    }

    fn done_text(&self, done: &RestoreView) -> String {
        let to = match (&self.to_dir, &self.to_archive) {
            (Some(path), _) | (_, Some(path)) => path.display().to_string(),
            _ => done.plan.to.clone(),
        };
        let instant = instants::position(done.plan.at);
        if self.destination() == Destination::Archive {
            return format!("Restored everything as of {instant} to {to}.");
        }
        let mut text = format!(
            "Restored {} documents ({}) as of {instant} to {to}.",
            done.documents_done,
            bytes(done.bytes_done)
        );
        for note in &done.notes {
            text.push_str(&format!("\nnote: {note}"));
        }
        text
    }
}

/// What is restored.
pub fn of(plan: &RestorePlanView) -> String {
    match plan.members.as_slice() {
        [] => format!("{}, incarnation {}", plan.replica_set, plan.incarnation),
        members => {
            let names: Vec<_> = members.iter().map(|member| member.set()).collect();
            format!("{} as a whole: {}", plan.replica_set.deployment(), names.join(", "))
        }
    }
}

/// A plan in words.
fn plan_text(plan: &RestorePlanView) -> String {
    let facts = pairs(&[
        ("restore", of(plan)),
        ("at", instants::position(plan.at)),
        ("from", format!("{} of {}", plan.base, instants::position(plan.base_at))),
        (
            "plus",
            format!("{} oplog slices, {}", plan.oplog_slices, bytes(plan.oplog_bytes)),
        ),
        ("to", plan.to.clone()),
    ]);
    let rows = plan
        .namespaces
        .iter()
        .take(NAMESPACES_SHOWN)
        .map(|ns| {
            vec![
                ns.from.clone(),
                ns.to.clone(),
                ns.documents.to_string(),
                bytes(ns.bytes),
            ]
        })
        .collect();
    let namespaces = table(
        &["in the backup", "at the target", "documents", "data"],
        rows,
        "No namespace is chosen.",
    );
    let hidden = plan.namespaces.len().saturating_sub(NAMESPACES_SHOWN) as u64 + plan.namespaces_left_out;
    match hidden {
        0 => format!("{facts}\n{namespaces}"),
        more => format!("{facts}\n{namespaces}\nand {more} namespaces more"),
    }
}

/// Follows a restore that the daemon carries out. Ctrl-C ends the following, not the restore.
async fn follow(client: &Client, id: u64) -> Outcome<RestoreView> {
    let mut progress = Progress::start();
    let outcome = tokio::select! {
        outcome = watch(client, id, &mut progress) => outcome,
        () = stop::wished() => {
            let failure = Failure::new(Exit::Interrupted, format!("restore {id} goes on without this command"));
            let help = format!("see `headwater restores show {id}`; end it with `headwater restores cancel {id}`");
            Err(failure.help(help))
        }
    };
    progress.end();
    outcome
}

async fn watch(client: &Client, id: u64, progress: &mut Progress) -> Outcome<RestoreView> {
    let mut failed = 0;
    let mut held_up_by = None;
    loop {
        match restores::of(client, id).await {
            Ok(view) => {
                failed = 0;
                if view.state == RestoreState::Running && view.error != held_up_by {
                    let cancel = format!("tried again until `headwater restores cancel {id}`");
                    if let Some(why) = &view.error {
                        progress.say(&format!("held up: {why} ({cancel})"));
                    }
                    held_up_by.clone_from(&view.error);
                }
                let step = view.step.clone();
                let (done, total) = (view.bytes_done, view.bytes_total);
                match ended(view) {
                    Some(end) => return end,
                    None => progress.show(&step, done, total),
                }
            }
            Err(failure) if may_pass(&failure) && failed < LOOKS_THAT_MAY_FAIL => failed += 1,
            Err(failure) => {
                return Err(failure.help(format!("restore {id} may go on; see `headwater restores show {id}`")));
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn may_pass(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Unreachable | Exit::Retry)
}

/// How a restore ended; `None` while it runs.
pub fn ended(view: RestoreView) -> Option<Outcome<RestoreView>> {
    match view.state {
        RestoreState::Running => None,
        RestoreState::Finished => Some(Ok(view)),
        RestoreState::Cancelled => Some(Err(Failure::new(
            Exit::Failed,
            format!("restore {} was cancelled; what it wrote stays at the target", view.id),
        ))),
        RestoreState::Failed => {
            let exit = if view.step == "verifying" {
                Exit::Verification
            } else {
                Exit::Failed
            };
            let why = view.error.unwrap_or_else(|| "the daemon did not say why".to_owned());
            Some(Err(Failure::new(exit, format!("restore {} failed: {why}", view.id))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_is_a_pair_with_the_same_stars() {
        let pair = |from: &str, to: &str| Rename {
            from: from.into(),
            to: to.into(),
        };
        assert_eq!(rename("a.b=c.d"), Ok(pair("a.b", "c.d")));
        assert_eq!(rename("shop.*=copy.*"), Ok(pair("shop.*", "copy.*")));
        for wrong in ["a.b", "a.b=", "=a.b", "a=b", "a.*=b.c", ""] {
            assert!(rename(wrong).is_err(), "{wrong:?}");
        }
    }
}
