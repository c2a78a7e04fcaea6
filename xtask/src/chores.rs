//! Running cargo for the chores.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// One thing a chore does: told before, and ended by its first failure.
pub struct Step<'a> {
    arguments: Vec<&'a str>,
    variables: Vec<(&'a str, String)>,
}

/// Runs `cargo` with these arguments in the workspace.
pub fn cargo<'a>(arguments: &[&'a str]) -> Step<'a> {
    Step {
        arguments: arguments.to_vec(),
        variables: Vec::new(),
    }
}

impl<'a> Step<'a> {
    /// With an environment variable.
    pub fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Runs it, showing what it prints.
    pub fn run(self) -> Result<()> {
        let shown = self.arguments.join(" ");
        eprintln!("── cargo {shown}");
        let mut command = command(&self.arguments);
        command.envs(self.variables);
        let status = command.status().context("cannot run cargo")?;
        if !status.success() {
            bail!("`cargo {shown}` failed");
        }
        Ok(())
    }
}

/// Whether cargo has this subcommand on this machine.
pub fn has(subcommand: &str) -> bool {
    let quiet = command(&[subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

fn command(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command
}
