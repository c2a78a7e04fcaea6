//! A double of Azure Blob Storage on a free port, with one container.

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;
use tokio::process::Command;
use xtask::azure_double::{self, AzureDouble};

use crate::mongod::free_port;
use crate::process::Process;
use crate::until;

/// The container that is there.
pub const CONTAINER: &str = "backups";

/// The double; killed, with all it holds, when dropped.
#[derive(Debug)]
pub struct Azure {
    port: u16,
    _process: Process,
}

impl Azure {
    /// Starts it; `None` where it is not installed (`cargo xtask azure` does that).
    pub async fn start() -> Result<Option<Azure>> {
        let Some(installed) = azure_double::installed()? else {
            return Ok(None);
        };
        let port = free_port()?;
        let mut command = installed.command(port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let double = Azure {
            port,
            _process: Process::start("the double of Azure", &mut command)?,
        };
        until("the double of Azure to make a container", || async {
            let mut made = Command::from(AzureDouble::make_container(port, CONTAINER));
            let made = made.stderr(Stdio::null()).status().await?;
            Ok(made.success().then_some(()))
        })
        .await?;
        Ok(Some(double))
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The store on the double behind a port, be it its own or that of something in between, with everything below `prefix`. The
/// account's key is in `key`.
pub fn uri(port: u16, prefix: &str, key: &Path) -> String {
    let account = azure_double::ACCOUNT;
    let endpoint = format!("http://127.0.0.1:{port}/{account}");
    format!(
        "az://{CONTAINER}/{prefix}?account={account}&keyFile={}&endpoint={endpoint}",
        key.display()
    )
}
