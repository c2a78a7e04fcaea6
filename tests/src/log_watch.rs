//! Watches the log of a process for a moment that a test waits for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use crate::until::PATIENCE;

/// Reads what a log grows by, from where it was when the watch began.
#[derive(Debug)]
pub struct LogWatch {
    path: PathBuf,
    offset: u64,
    text: String,
}

impl LogWatch {
    /// Begins at the end of the log as it is now.
    pub fn from_now(path: &Path) -> Result<LogWatch> {
        let offset = std::fs::metadata(path).map_or(0, |file| file.len());
        Ok(LogWatch {
            path: path.to_owned(),
            offset,
            text: String::new(),
        })
    }

    /// Everything logged since the watch began.
    pub fn seen(&mut self) -> Result<&str> {
        if let Ok(mut file) = File::open(&self.path) {
            file.seek(SeekFrom::Start(self.offset + self.text.len() as u64))?;
            let mut more = Vec::new();
            file.read_to_end(&mut more)?;
            // A line is looked at once it is whole.
            let whole = more.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.text
                .push_str(std::str::from_utf8(&more[..whole]).context("the log is no text")?);
        }
        Ok(&self.text)
    }

    /// Waits, looking every millisecond, until a line with `words` was logged.
    pub async fn until_logged(&mut self, words: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.seen()?.contains(words) {
            if Instant::now() > end {
                bail!("waited in vain for {words:?} in {}", self.path.display());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Whether `begin` was logged later than `end`: what lies between them is under way, or was when the process died.
    pub fn is_between(&mut self, begin: &str, end: &str) -> Result<bool> {
        let text = self.seen()?;
        let begun = text.rfind(begin);
        Ok(begun.is_some() && begun > text.rfind(end))
    }
}
