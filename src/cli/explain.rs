//! `headwater explain`: what the program's exit codes mean and how to go on.

use clap::Subcommand;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Format;

/// Explain what the program says.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:\n  headwater explain exit 8\n")]
pub enum Explain {
    /// Explain an exit code
    #[command(before_help = "Examples:\n  headwater explain exit 8\n  headwater explain exit $?\n")]
    Exit {
        /// The number
        code: u8,
    },
}

impl Explain {
    /// Carries it out.
    pub fn run(self, format: Format) -> Outcome {
        let Explain::Exit { code } = self;
        let Some(exit) = Exit::ALL.into_iter().find(|exit| exit.code() == code) else {
            let known = Exit::ALL.map(|exit| exit.code().to_string()).join(", ");
            let failure = Failure::new(Exit::Usage, format!("headwater never ends with {code}"));
            return Err(failure.help(format!("the exit codes are {known}")));
        };
        let (meaning, cure) = exit.explanation();
        let document = json!({ "exit": code, "kind": exit.name(), "meaning": meaning, "cure": cure });
        format.print(&document, |_| {
            format!("{code} ({}): {meaning}\nhelp: {cure}", exit.name())
        })
    }
}
