//! `headwater proof`: restores that prove that restores work.

use clap::Subcommand;
use headwater_protocol::integrity::{CheckView, ProofRequest};

use crate::at;
use crate::cli::check;
use crate::cli::named::Named;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::instants;
use crate::output::Format;

/// Prove that an instant can be restored.
#[derive(Debug, Subcommand)]
#[command(
    before_help = "Examples:\n  headwater proof run shop\n  headwater proof run shop --at -15m\n  headwater proof run shop/sh0\n"
)]
pub enum Proof {
    /// Make an instant in two ways, which must give the same data; nothing is written to a server
    #[command(before_help = "Examples:\n  headwater proof run shop\n  headwater proof run shop --at latest\n")]
    Run {
        /// Which deployment, with all members where it is a sharded cluster; NAME/MEMBER for one of them
        name: Named,
        /// Which instant: latest, snapshot:ID, RFC 3339, T,I, or a time ago such as -15m [default: one at random]
        #[arg(long, allow_hyphen_values = true)]
        at: Option<String>,
        /// Come back at once; `check status` shows how it stands
        #[arg(long)]
        no_wait: bool,
    },
}

impl Proof {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let Proof::Run { name, at, no_wait } = self;
        let parse = |text: String| at::parse(&text, instants::now());
        let at = at.map(parse).transpose().map_err(|e| Failure::new(Exit::Usage, e))?;
        let path = format!("/api/v1/deployments/{}/proof", name.deployment);
        let mut asked: Vec<CheckView> = Vec::new();
        for member in name.members(client).await? {
            let request = ProofRequest {
                at: at.clone(),
                replica_set: member,
            };
            asked.push(client.post(&path, &request).await?);
        }
        check::finish(client, format, asked, !no_wait).await
    }
}
