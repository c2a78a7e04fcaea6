//! `headwater store`: where backups rest.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use headwater_config::keys as settings_keys;
use headwater_model::StoreUri;
use headwater_store::backend::open::Places;
use serde::Serialize;

use crate::cli::{Global, daemon};
use crate::failure::Outcome;
use crate::node::places;
use crate::output::Format;
use crate::store_move::Move;
use crate::{confirm, logging};

/// See to where backups rest.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater store move --store file:/srv/backups --to s3://backups/prod --dry-run
  headwater store move --config /etc/headwater.yaml --to-oplog mongodb://store1,store2,store3/oplog\n")]
pub enum Store {
    /// Bring everything to another store, while the backups go on
    Move(Box<MoveStore>),
}

/// Bring everything to another store.
///
/// Copies while the daemons work. Then, after a confirmation, ends them, brings what was written meanwhile, and says how they are
/// started again; agents wait until then, and nothing is lost. Run again after an interruption, it goes on. The old store keeps
/// what it holds, and no daemon works with it again. Needs no service; run it where the stores can be reached.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  headwater store move --store file:/srv/backups --to s3://backups/prod --dry-run
  headwater store move --store file:/srv/backups --to s3://backups/prod
  headwater store move --config /etc/headwater.yaml --to-oplog mongodb://store1,store2,store3/oplog\n")]
pub struct MoveStore {
    /// Where the backups rest now: the same as for the daemons
    #[arg(long, value_name = "URI")]
    store: Option<String>,
    /// Settings file of the daemons, where their stores are named
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    config: Option<PathBuf>,
    /// Where they shall rest [default: where they are]
    #[arg(long, value_name = "URI")]
    to: Option<StoreUri>,
    /// Where oplog slices shall rest [default: with --to, else where they are]
    #[arg(long, value_name = "URI")]
    to_oplog: Option<StoreUri>,
    /// Where sync slices shall rest [default: with --to, else where they are]
    #[arg(long, value_name = "URI")]
    to_sync: Option<StoreUri>,
    /// Only show what would be copied
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Told {
    /// Whether it was done, or only planned.
    done: bool,
    cluster: String,
    /// Objects that were lacking at first.
    objects: usize,
    /// Bytes that were copied, or would be.
    bytes: u64,
    /// The settings that the daemons need now.
    settings: NewPlaces,
    /// What no daemon works with any more.
    left_behind: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewPlaces {
    uri: String,
    oplog_uri: Option<String>,
    sync_uri: Option<String>,
}

impl MoveStore {
    /// Carries it out.
    pub async fn run(self, global: Global) -> Outcome {
        logging::start(logging::LogFormat::Text, true);
        let flags = [(settings_keys::STORE_URI, "--store", self.store.clone())];
        let from = places(&daemon::settings(flags, self.config.as_deref())?);
        let to = self.destination(&from);
        let moving = Move::look(from, to).await?;
        let plan = moving.plan().await?;
        let mut told = Told {
            done: false,
            cluster: moving.cluster.clone(),
            objects: plan.copy.len(),
            bytes: plan.bytes(),
            settings: NewPlaces {
                uri: moving.destination().blocks.to_string(),
                oplog_uri: moving.destination().oplog.as_ref().map(ToString::to_string),
                sync_uri: moving.destination().sync.as_ref().map(ToString::to_string),
            },
            left_behind: moving.left_behind(),
        };
        if self.dry_run {
            return global.output.print(&told, text);
        }
        told.bytes = moving.copy_beside().await?;
        let about = format!(
            "{} MB are copied. To bring the rest, the daemons of cluster {} end now, and must be started again with the new store.",
            told.bytes / 1_000_000,
            moving.cluster
        );
        confirm::typed(&about, &moving.cluster, self.yes)?;
        told.bytes += moving.finish().await?;
        told.done = true;
        global.output.print(&told, text)?;
        if global.output == Format::Table {
            eprintln!("{}", next(&told));
        }
        Ok(())
    }

    fn destination(&self, from: &Places) -> Places {
        let stays = |apart: &Option<StoreUri>| if self.to.is_some() { None } else { apart.clone() };
        Places {
            blocks: self.to.clone().unwrap_or_else(|| from.blocks.clone()),
            oplog: self.to_oplog.clone().or_else(|| stays(&from.oplog)),
            sync: self.to_sync.clone().or_else(|| stays(&from.sync)),
        }
    }
}

fn text(told: &Told) -> String {
    let verb = if told.done { "moved" } else { "to be moved" };
    format!(
        "cluster {}: {} objects, {} MB {verb} to {}",
        told.cluster,
        told.objects,
        told.bytes / 1_000_000,
        told.settings.uri
    )
}

fn next(told: &Told) -> String {
    let mut lines =
        vec!["Now put this into the settings of every daemon (with its options), and start them:".to_owned()];
    let NewPlaces {
        uri,
        oplog_uri,
        sync_uri,
    } = &told.settings;
    lines.push("  store:".to_owned());
    for (key, value) in [
        ("uri", Some(uri)),
        ("oplogUri", oplog_uri.as_ref()),
        ("syncUri", sync_uri.as_ref()),
    ] {
        if let Some(value) = value {
            lines.push(format!("    {key}: {value}"));
        }
    }
    for place in &told.left_behind {
        lines.push(format!(
            "{place} still holds what it held. Remove it when `headwater check NAME --data` has passed."
        ));
    }
    lines.join("\n")
}
