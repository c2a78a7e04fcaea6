//! `headwater access`: who may call the service, and who did what.

use clap::{ArgGroup, Subcommand, ValueEnum};
use headwater_model::{DeploymentName, KeyName, KeyRole};
use headwater_protocol::access::{AuditView, CreateKey, CreatedKey, KeyView};

use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Format, table};

/// Let people and agents in, and shut them out.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater access create alice --role viewer > alice.key
  headwater access create oncall --role restorer --deployment shop > oncall.key
  headwater access create agent-shop --agent --deployment shop > agent.key
  headwater access list
  headwater access revoke alice
  headwater access log --output json\n")]
pub enum Access {
    /// Make a key and print it. Nobody can print it a second time
    #[command(group(ArgGroup::new("kind").required(true).args(["role", "agent"])))]
    #[command(before_help = "Examples:
  headwater access create alice --role viewer > alice.key
  headwater access create agent-shop --agent --deployment shop > agent.key\n")]
    Create {
        /// What to call it
        name: KeyName,
        /// What its bearer may do: docs/ACCESS.md has the table
        #[arg(long, value_enum)]
        role: Option<Role>,
        /// A key for an agent: it ships what its deployments write, and opens nothing else
        #[arg(long, requires = "deployment")]
        agent: bool,
        /// Only for this deployment; may be given several times [default: all]
        #[arg(long, value_name = "NAME")]
        deployment: Vec<DeploymentName>,
    },
    /// List the keys, without what makes them keys
    List,
    /// Show who changed and who restored what, newest first
    Log,
    /// Shut a key out at once
    Revoke {
        /// Its name
        name: KeyName,
    },
}

/// The roles of people and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Sees how everything stands, never the data
    Viewer,
    /// Changes what is protected and how
    Operator,
    /// Sees, and gives data back
    Restorer,
    /// Everything
    Admin,
}

impl Role {
    fn of_key(self) -> KeyRole {
        match self {
            Role::Viewer => KeyRole::Viewer,
            Role::Operator => KeyRole::Operator,
            Role::Restorer => KeyRole::Restorer,
            Role::Admin => KeyRole::Admin,
        }
    }
}

impl Access {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        match self {
            Access::Create {
                name,
                role,
                agent: _,
                deployment,
            } => {
                let request = CreateKey {
                    name,
                    role: role.map_or(KeyRole::Agent, Role::of_key),
                    deployments: deployment,
                };
                let created: CreatedKey = client.post("/api/v1/access/keys", &request).await?;
                if format == Format::Table {
                    eprintln!(
                        "This is the only time that the key is seen: keep it in a file that only its owner reads."
                    );
                }
                format.print(&created, |created| created.key.clone())
            }
            Access::List => {
                let views: Vec<KeyView> = client.get("/api/v1/access/keys").await?;
                format.print(&views, |views| list(views))
            }
            Access::Log => {
                let deeds: Vec<AuditView> = client.get("/api/v1/access/log").await?;
                format.print(&deeds, |deeds| log(deeds))
            }
            Access::Revoke { name } => {
                client.delete(&format!("/api/v1/access/keys/{name}")).await?;
                format.print(&serde_json::json!({ "revoked": name }), |_| {
                    format!("The key {name} opens nothing any more.")
                })
            }
        }
    }
}

fn list(views: &[KeyView]) -> String {
    let row = |view: &KeyView| {
        vec![
            view.name.to_string(),
            view.role.to_string(),
            scope(&view.deployments),
            format!("hw_{}_…", view.id),
            view.created.clone(),
        ]
    };
    let rows = views.iter().map(row).collect();
    table(
        &["name", "role", "deployments", "key", "created"],
        rows,
        "There are no keys.",
    )
}

fn log(deeds: &[AuditView]) -> String {
    let row = |deed: &AuditView| {
        let deployment = deed
            .deployment
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        vec![
            deed.at.clone(),
            deed.who.clone(),
            deed.what.clone(),
            deployment,
            deed.outcome.clone().unwrap_or_else(|| "not known".to_owned()),
        ]
    };
    let rows = deeds.iter().map(row).collect();
    table(
        &["at", "who", "what", "deployment", "outcome"],
        rows,
        "Nobody has done anything yet.",
    )
}

fn scope(deployments: &[DeploymentName]) -> String {
    match deployments.is_empty() {
        true => "all".to_owned(),
        false => deployments
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_keys_shows_what_they_are_for() {
        let view = |deployments: &[&str]| KeyView {
            name: "oncall".parse().unwrap(),
            id: "0a1b2c3d".to_owned(),
            role: KeyRole::Restorer,
            deployments: deployments.iter().map(|name| name.parse().unwrap()).collect(),
            created: "2026-11-23T04:00:00Z".to_owned(),
        };
        let shown = list(&[view(&["blog", "shop"]), view(&[])]);
        assert!(
            shown.contains("oncall  restorer  blog,shop    hw_0a1b2c3d_…"),
            "{shown}"
        );
        assert!(shown.contains("oncall  restorer  all "), "{shown}");
    }
}
