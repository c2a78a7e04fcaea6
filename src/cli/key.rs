//! `headwater key`: the keys of encryption at rest.

use clap::Subcommand;
use headwater_host::Entropy;
use headwater_host::real::OsEntropy;
use headwater_model::{DeploymentName, MasterKeyId};
use headwater_protocol::admin::{DeploymentView, Rewrapped};
use headwater_store::sealed::key_file;
use serde::Serialize;

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, table};

/// Make and change the keys of encryption at rest.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater key new > /etc/headwater/master.keys      for daemon --master-key-file
  headwater key list
  headwater key rotate                                after a new key was put first in the file
  headwater key rotate shop\n")]
pub enum Key {
    /// Print a line with a new master key; no service is asked
    New {
        /// What to call it [default: k- and eight digits]
        name: Option<MasterKeyId>,
    },
    /// List which deployment is encrypted under which master key
    List,
    /// Wrap data keys by the current master key; nothing in the store is written anew
    Rotate {
        /// Only this deployment
        name: Option<DeploymentName>,
    },
}

#[derive(Serialize)]
struct Rotated {
    deployment: DeploymentName,
    #[serde(flatten)]
    now: Rewrapped,
}

/// Prints a new key.
pub fn new(name: Option<MasterKeyId>, format: Format) -> Outcome {
    let entropy: &dyn Entropy = &OsEntropy;
    let chosen = format!("k-{:08x}", entropy.number() >> 32);
    let name = match name {
        Some(name) => name,
        None => MasterKeyId::new(&chosen).map_err(|e| Failure::new(Exit::Failed, e.to_string()))?,
    };
    format.print(&key_file::new_line(&name, entropy), |line| line.clone())
}

impl Key {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        match self {
            Key::New { name } => new(name, format),
            Key::List => {
                let views: Vec<DeploymentView> = client.get("/api/v1/deployments").await?;
                format.print(&views, |views| list(views))
            }
            Key::Rotate { name } => {
                let views: Vec<DeploymentView> = client.get("/api/v1/deployments").await?;
                let wanted = |view: &&DeploymentView| match &name {
                    Some(name) => view.name == *name,
                    None => view.encryption.is_some(),
                };
                let mut rotated = Vec::new();
                for view in views.iter().filter(wanted) {
                    let path = format!("/api/v1/deployments/{}/rewrap", view.name);
                    let now: Rewrapped = client.order(&path).await?;
                    rotated.push(Rotated {
                        deployment: view.name.clone(),
                        now,
                    });
                }
                if let (Some(name), true) = (&name, rotated.is_empty()) {
                    return Err(Failure::new(Exit::NotFound, format!("there is no deployment {name}")));
                }
                format.print(&rotated, |rotated| done(rotated))
            }
        }
    }
}

fn list(views: &[DeploymentView]) -> String {
    let row = |view: &DeploymentView| {
        let encryption = view.encryption.as_ref()?;
        let (master, data) = (encryption.master_key.to_string(), encryption.data_key.to_string());
        Some(vec![view.name.to_string(), master, data])
    };
    let rows = views.iter().filter_map(row).collect();
    table(
        &["deployment", "master key", "data key"],
        rows,
        "No deployment is encrypted.",
    )
}

fn done(rotated: &[Rotated]) -> String {
    let line = |one: &Rotated| {
        let master = &one.now.encryption.master_key;
        match one.now.changed {
            true => format!("{} is under master key {master} now.", one.deployment),
            false => format!("{} was under master key {master} already.", one.deployment),
        }
    };
    match rotated.is_empty() {
        true => "No deployment is encrypted.".to_owned(),
        false => rotated.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}
