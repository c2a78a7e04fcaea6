//! `headwater alerts`: what a user must know.

use clap::Subcommand;
use headwater_protocol::integrity::{Acknowledge, AlertView};

use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Format, table};

/// See what needs a look, and say that you look after it.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater alerts list
  headwater alerts ack damage:shop/rs0 --comment 'resync tonight'\n")]
pub enum Alerts {
    /// List alerts: open ones first, then those that ended
    List,
    /// Say that somebody looks after an alert
    Ack {
        /// Its id
        id: String,
        /// Who, or what is done
        #[arg(long, default_value = "seen")]
        comment: String,
    },
}

impl Alerts {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        match self {
            Alerts::List => {
                let views: Vec<AlertView> = client.get("/api/v1/alerts").await?;
                format.print(&views, |views| list(views))
            }
            Alerts::Ack { id, comment } => {
                let request = Acknowledge { id, comment };
                let view: AlertView = client.post("/api/v1/alerts/ack", &request).await?;
                format.print(&view, |view| list(std::slice::from_ref(view)))
            }
        }
    }
}

/// What an alert says, and what keeps it from being told.
pub fn what(view: &AlertView) -> String {
    match &view.untold {
        Some(why) => format!("{}; not told: {why}", view.text),
        None => view.text.clone(),
    }
}

fn list(views: &[AlertView]) -> String {
    let rows = views.iter().map(|view| {
        vec![
            view.id.clone(),
            view.ended
                .clone()
                .map_or_else(|| "open".to_owned(), |at| format!("ended {at}")),
            view.begun.clone(),
            view.acknowledged.clone().unwrap_or_else(|| "-".to_owned()),
            what(view),
        ]
    });
    table(
        &["alert", "state", "begun", "acknowledged", "what"],
        rows.collect(),
        "No alerts: all is well.",
    )
}
