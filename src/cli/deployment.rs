//! `headwater deployment`: what is protected.

use clap::Subcommand;
use headwater_config::quantity::{duration_text, milliseconds};
use headwater_model::DeploymentName;
use headwater_protocol::admin::{AddDeployment, DeploymentState, DeploymentView};

use crate::cli::status;
use crate::client::Client;
use crate::confirm;
use crate::failure::Outcome;
use crate::output::{Format, pairs, table};

/// Protect deployments.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater deployment add shop --uri mongodb://backup:PASSWORD@db1,db2/?replicaSet=rs0
  headwater deployment add shop --uri mongodb://db1/ --encrypt
  headwater deployment list
  headwater deployment stop shop\n")]
pub enum Deployment {
    /// Protect a deployment from now on
    #[command(before_help = "Examples:
  headwater deployment add shop --uri mongodb://backup:PASSWORD@db1,db2/?replicaSet=rs0
  HEADWATER_SOURCE_URI=mongodb://… headwater deployment add shop --snapshot-interval 1h\n")]
    Add {
        /// What to call it
        name: DeploymentName,
        /// Connection string of the source; in the environment it is not seen by other users of the machine
        #[arg(long, env = "HEADWATER_SOURCE_URI", hide_env_values = true)]
        uri: String,
        /// Time between snapshots [default: that of the service, 6h]
        #[arg(long, value_name = "TIME", value_parser = interval_seconds)]
        snapshot_interval: Option<u64>,
        /// Encrypt everything of it in the store; the daemons need a master key. Decided here once and for all
        /// [default: as the service is set, off]
        #[arg(long)]
        encrypt: bool,
        /// Do not encrypt, whatever the service is set to
        #[arg(long, conflicts_with = "encrypt")]
        no_encrypt: bool,
        /// Stop the balancer of a sharded cluster while a checkpoint is taken, and put it back; not needed for checkpoints to
        /// be consistent. `schedule set` changes it later
        #[arg(long)]
        stop_balancer: bool,
    },
    /// List what is protected
    List,
    /// Show one deployment
    Show {
        /// Which one
        name: DeploymentName,
    },
    /// Stop streaming; snapshots are kept
    Stop {
        /// Which one
        name: DeploymentName,
    },
    /// Stream again after a stop
    Restart {
        /// Which one
        name: DeploymentName,
    },
    /// Copy everything anew; older snapshots stay restorable
    Resync {
        /// Which one
        name: DeploymentName,
    },
    /// Remove a deployment with all its snapshots
    #[command(
        before_help = "Examples:\n  headwater deployment remove shop\n  headwater deployment remove shop --yes\n"
    )]
    Remove {
        /// Which one
        name: DeploymentName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

fn interval_seconds(text: &str) -> Result<u64, String> {
    let ms = milliseconds(text).map_err(|e| e.to_string())?;
    if ms < 60_000 {
        Err(format!("{text} is too short; a minute is the least"))
    } else {
        Ok(ms / 1000)
    }
}

impl Deployment {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let one = |name: &DeploymentName| format!("/api/v1/deployments/{name}");
        match self {
            Deployment::Add {
                name,
                uri,
                snapshot_interval,
                encrypt,
                no_encrypt,
                stop_balancer,
            } => {
                let request = AddDeployment {
                    name,
                    uri,
                    snapshot_interval_seconds: snapshot_interval,
                    encrypt: (encrypt || no_encrypt).then_some(encrypt),
                    stop_balancer,
                };
                let view: DeploymentView = client.post("/api/v1/deployments", &request).await?;
                format.print(&view, |view| {
                    format!(
                        "{} is protected from now on ({}).\nnext: headwater status",
                        view.name, view.uri
                    )
                })
            }
            Deployment::List => {
                let views: Vec<DeploymentView> = client.get("/api/v1/deployments").await?;
                format.print(&views, |views| list(views))
            }
            Deployment::Show { name } => show(&client.get(&one(&name)).await?, format),
            Deployment::Stop { name } => show(&client.order(&format!("{}/stop", one(&name))).await?, format),
            Deployment::Restart { name } => show(&client.order(&format!("{}/restart", one(&name))).await?, format),
            Deployment::Resync { name } => show(&client.order(&format!("{}/resync", one(&name))).await?, format),
            Deployment::Remove { name, yes } => {
                // Asking for it first spares the user a confirmation for nothing.
                let _: DeploymentView = client.get(&one(&name)).await?;
                let about = format!("{name} and every snapshot of it will be removed for good.");
                confirm::typed(&about, name.as_str(), yes)?;
                client.delete(&one(&name)).await?;
                let done = serde_json::json!({ "removed": name });
                format.print(&done, |_| format!("{name} is removed."))
            }
        }
    }
}

fn state(view: &DeploymentView) -> String {
    match view.state {
        DeploymentState::Active => "active",
        DeploymentState::Stopped => "stopped",
    }
    .to_owned()
}

fn encrypted(view: &DeploymentView) -> String {
    match &view.encryption {
        Some(encryption) => format!("under master key {}", encryption.master_key),
        None => "no".to_owned(),
    }
}

fn interval(view: &DeploymentView) -> String {
    duration_text(view.snapshot_interval_seconds.saturating_mul(1000))
}

fn list(views: &[DeploymentView]) -> String {
    let rows = views
        .iter()
        .map(|view| {
            let sets = view
                .replica_sets
                .iter()
                .map(|set| set.name.set())
                .collect::<Vec<_>>()
                .join(", ");
            vec![
                view.name.to_string(),
                state(view),
                interval(view),
                sets,
                view.uri.clone(),
            ]
        })
        .collect();
    let none = "Nothing is protected yet.\nnext: headwater deployment add NAME --uri URI";
    table(
        &["name", "state", "snapshots every", "replica sets", "source"],
        rows,
        none,
    )
}

fn show(view: &DeploymentView, format: Format) -> Outcome {
    format.print(view, |view| {
        let facts = [
            ("name", view.name.to_string()),
            ("kind", view.kind.clone()),
            ("state", state(view)),
            ("source", view.uri.clone()),
            ("snapshots every", interval(view)),
            ("encrypted", encrypted(view)),
        ];
        format!(
            "{}\n{}",
            pairs(&facts),
            status::sets_text(&view.replica_sets, "No agent has reached it yet.")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_at_least_a_minute() {
        assert_eq!(interval_seconds("6h"), Ok(21_600));
        assert!(interval_seconds("59s").is_err());
        assert!(interval_seconds("often").is_err());
    }
}
