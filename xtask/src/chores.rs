//! Running cargo for the chores.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// One thing a chore does: told before, and ended by its first failure.
pub struct Step<'a> {
    program: PathBuf,
    arguments: Vec<&'a str>,
    variables: Vec<(&'a str, String)>,
}

/// Runs `cargo` with these arguments in the workspace.
pub fn cargo<'a>(arguments: &[&'a str]) -> Step<'a> {
    Step {
        program: cargo_program(),
        arguments: arguments.to_vec(),
        variables: Vec::new(),
    }
}

/// Runs a program of this workspace that was built before.
pub fn built<'a>(profile: &str, name: &str, arguments: &[&'a str]) -> Step<'a> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    Step {
        program: target.join(profile).join(name),
        arguments: arguments.to_vec(),
        variables: Vec::new(),
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

impl<'a> Step<'a> {
    /// With an environment variable.
    pub fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Runs it, showing what it prints.
    pub fn run(self) -> Result<()> {
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let shown = format!("{name} {}", self.arguments.join(" "));
        eprintln!("── {shown}");
        let mut command = command(&self.program, &self.arguments);
        command.envs(self.variables);
        let status = command
            .status()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        if !status.success() {
            bail!("`{shown}` failed");
        }
        Ok(())
    }
}

/// Whether cargo has this subcommand on this machine.
pub fn has(subcommand: &str) -> bool {
    let quiet = command(&cargo_program(), &[subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace());
    // What cargo told this program about itself; the cargo that it calls would take some of it for changes, and build anew.
    let of_this = std::env::vars_os().map(|(name, _)| name);
    for name in of_this.filter(|name| name.to_str().is_some_and(tells_of_this_package)) {
        command.env_remove(name);
    }
    command
}

/// Whether cargo sets the variable for programs that it runs: <https://doc.rust-lang.org/cargo/reference/environment-variables.html>.
fn tells_of_this_package(variable: &str) -> bool {
    let exact = [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_MANIFEST_LINKS",
        "CARGO_PRIMARY_PACKAGE",
    ];
    exact.contains(&variable) || variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_BIN_")
}
