//! Where a daemon's master keys come from: a file, or a command that asks whoever keeps them.
//!
//! The command is run once for each key, with the key's name in `HEADWATER_MASTER_KEY_NAME`, and prints the key: 64
//! hexadecimal digits. Nothing of what it prints is ever shown or logged.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use headwater_config::MasterKeySource;
use headwater_host::Host;
use headwater_model::MasterKeyId;
use headwater_store::sealed::{KeyFault, Keyring, MasterKey, MasterKeys, Secret, key_file};

/// How long the command may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(20);
/// The longest file of keys that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// The keyring of a daemon with these settings.
pub fn keyring(source: Option<&MasterKeySource>, host: &Host) -> Keyring {
    match source {
        None => Keyring::default(),
        Some(MasterKeySource::File(path)) => Keyring::new(KeyFile {
            path: path.clone(),
            host: host.clone(),
        }),
        Some(MasterKeySource::Command { command, current }) => Keyring::new(KeyCommand {
            command: command.clone(),
            current: current.clone(),
        }),
    }
}

/// Keys in a file; read anew each time.
struct KeyFile {
    path: PathBuf,
    host: Host,
}

impl KeyFile {
    async fn read(&self) -> Result<Vec<MasterKey>, KeyFault> {
        let path = self.path.clone();
        let read = self.host.blocking(move || read(&path)).await;
        read.map_err(|fault| KeyFault(format!("the file {} cannot be used: {fault}", self.path.display())))
    }
}

fn read(path: &Path) -> Result<Vec<MasterKey>, String> {
    use std::os::unix::fs::PermissionsExt;
    let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if about.len() > FILE_MAX_BYTES {
        return Err("it is too large for a file of keys".to_owned());
    }
    if about.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "other users of the machine can read the master keys; chmod 600");
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    key_file::parse(&text)
}

#[async_trait]
impl MasterKeys for KeyFile {
    async fn current(&self) -> Result<MasterKeyId, KeyFault> {
        let first = self.read().await?.into_iter().next();
        first
            .map(|key| key.id)
            .ok_or_else(|| KeyFault(format!("the file {} holds no key", self.path.display())))
    }

    async fn key(&self, id: &MasterKeyId) -> Result<MasterKey, KeyFault> {
        let found = self.read().await?.into_iter().find(|key| key.id == *id);
        let none = || {
            KeyFault(format!(
                "it is not in the file {}; add its line there, no restart is needed",
                self.path.display()
            ))
        };
        found.ok_or_else(none)
    }
}

/// Keys that a command prints.
struct KeyCommand {
    command: String,
    current: MasterKeyId,
}

#[async_trait]
impl MasterKeys for KeyCommand {
    async fn current(&self) -> Result<MasterKeyId, KeyFault> {
        Ok(self.current.clone())
    }

    async fn key(&self, id: &MasterKeyId) -> Result<MasterKey, KeyFault> {
        let fault = |what: &str| {
            KeyFault(format!(
                "the command {:?} {what}; try it by hand with HEADWATER_MASTER_KEY_NAME={id}",
                self.command
            ))
        };
        let mut words = self.command.split_whitespace();
        let program = words.next().ok_or_else(|| fault("is empty"))?;
        let running = tokio::process::Command::new(program)
            .args(words)
            .env("HEADWATER_MASTER_KEY_NAME", id.as_str())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMMAND_PATIENCE, running)
            .await
            .map_err(|_| fault("took too long"))?
            .map_err(|e| fault(&format!("could not be run: {e}")))?;
        let printed = zeroize::Zeroizing::new(output.stdout);
        if !output.status.success() {
            return Err(fault(&format!("ended with {}", output.status)));
        }
        let secret = std::str::from_utf8(&printed)
            .ok()
            .and_then(|text| Secret::from_hex(text.trim()));
        let secret = secret.ok_or_else(|| fault("printed something else than 64 hexadecimal digits"))?;
        Ok(MasterKey::new(id.clone(), secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> MasterKeyId {
        MasterKeyId::new(text).unwrap()
    }

    fn command(dir: &Path, text: &str) -> KeyCommand {
        let script = dir.join("keys.sh");
        std::fs::write(&script, text).unwrap();
        KeyCommand {
            command: format!("sh {}", script.display()),
            current: id("k1"),
        }
    }

    #[tokio::test]
    async fn a_command_is_told_the_name_and_prints_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let good = format!("test \"$HEADWATER_MASTER_KEY_NAME\" = k1 && echo {}", "0a".repeat(32));
        let keys = command(dir.path(), &good);
        assert_eq!(keys.key(&id("k1")).await.unwrap().id, id("k1"));
        let fault = keys.key(&id("k2")).await.unwrap_err().to_string();
        assert!(
            fault.contains("exit status: 1") && fault.contains("HEADWATER_MASTER_KEY_NAME=k2"),
            "{fault}"
        );
        let fault = command(dir.path(), "echo secret-words")
            .key(&id("k1"))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            fault.contains("64 hexadecimal digits") && !fault.contains("secret-words"),
            "{fault}"
        );
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let host = Host::real().unwrap();
        let keys = KeyFile {
            path: path.clone(),
            host,
        };
        let missing = keys.current().await.unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
        std::fs::write(&path, format!("k1 {}\n", "0a".repeat(32))).unwrap();
        assert_eq!(keys.current().await.unwrap(), id("k1"));
        assert!(
            keys.key(&id("k2"))
                .await
                .unwrap_err()
                .to_string()
                .contains("add its line")
        );
        std::fs::write(&path, format!("k2 {}\nk1 {}\n", "0b".repeat(32), "0a".repeat(32))).unwrap();
        assert_eq!(keys.current().await.unwrap(), id("k2"));
        assert_eq!(keys.key(&id("k1")).await.unwrap().id, id("k1"));
    }
}
