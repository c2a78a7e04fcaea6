//! Azurite, Microsoft's own double of Azure Blob Storage, out of an npm package. It keeps everything in memory and is a test
//! program only. Node and npm come from the system; they cannot be kept in a cache folder.
//!
//! npm checks every package against the digest that the registry gives for it; only Azurite itself has its version here.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::mongod::{cache_folder, clear, run};

/// What it calls itself.
pub const VERSION: &str = "3.37.0";
/// The account that Azurite has, with its well-known key.
pub const ACCOUNT: &str = "devstoreaccount1";
/// See [`ACCOUNT`]; no secret.
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container: a request signed with the account's key, as Azure's "Authorize with Shared Key" says.
const MAKE_CONTAINER: &str = r"
import base64, email.utils, hashlib, hmac, sys, urllib.request
port, account, key, container = sys.argv[1:]
headers = {'x-ms-date': email.utils.formatdate(usegmt=True), 'x-ms-version': '2021-08-06'}
signed = 'PUT' + '\n' * 12 + ''.join(f'{name}:{headers[name]}\n' for name in sorted(headers))
signed += f'/{account}/{account}/{container}\nrestype:container'
signature = hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()
headers['Authorization'] = f'SharedKey {account}:{base64.b64encode(signature).decode()}'
url = f'http://127.0.0.1:{port}/{account}/{container}?restype=container'
urllib.request.urlopen(urllib.request.Request(url, method='PUT', headers=headers))
";

/// An installed double.
#[derive(Clone, Debug)]
pub struct AzureDouble {
    program: PathBuf,
}

impl AzureDouble {
    /// A command that serves blobs on this port of the loopback interface until it is ended.
    pub fn command(&self, port: u16) -> Command {
        let mut command = Command::new("node");
        command
            .arg(&self.program)
            .args(["--blobPort", &port.to_string()])
            .args(["--inMemoryPersistence", "--silent", "--disableTelemetry"])
            // It speaks the interface of its day and refuses newer ones by their number alone.
            .arg("--skipApiVersionCheck");
        command
    }

    /// A command that makes a container at the double on this port.
    pub fn make_container(port: u16, container: &str) -> Command {
        let mut command = Command::new("python3");
        command.args(["-c", MAKE_CONTAINER, &port.to_string(), ACCOUNT, KEY, container]);
        command
    }
}

/// The double that is there, if it is.
pub fn installed() -> Result<Option<AzureDouble>> {
    let home = cache_folder()?.join("azurite").join(VERSION);
    let program = home.join("node_modules/azurite/dist/src/blob/main.js");
    Ok(program.is_file().then_some(AzureDouble { program }))
}

/// Installs it into the cache if it is not there yet. Node 20 or newer with npm must be there already.
pub fn install() -> Result<AzureDouble> {
    if let Some(there) = installed()? {
        return Ok(there);
    }
    let folder = cache_folder()?.join("azurite");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock().context("cannot lock the cache of the double of Azure")?;
    if let Some(there) = installed()? {
        return Ok(there);
    }
    let (home, draft) = (folder.join(VERSION), folder.join(".draft"));
    eprintln!("installing azurite {VERSION} into {}", home.display());
    clear(&draft)?;
    fs::create_dir_all(&draft).with_context(|| format!("cannot make {}", draft.display()))?;
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--omit=dev",
        "--ignore-scripts",
    ])
    .arg("--prefix")
    .arg(&draft)
    .arg(format!("azurite@{VERSION}"));
    run(
        &mut npm,
        "are node and npm there (apt-get install nodejs npm), and is the registry of npm reachable?",
    )?;
    fs::rename(&draft, &home).with_context(|| format!("cannot rename to {}", home.display()))?;
    installed()?.context("the installed double vanished")
}
