//! A double of Amazon's S3 on a free port, with one bucket.

use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xtask::s3_double;

use crate::mongod::free_port;
use crate::process::Process;
use crate::until;

/// The bucket that is there.
pub const BUCKET: &str = "backups";

/// The double; killed, with all it holds, when dropped.
#[derive(Debug)]
pub struct S3 {
    port: u16,
    _process: Process,
}

impl S3 {
    /// Starts it, installing it first if needed.
    pub async fn start() -> Result<S3> {
        let installed = tokio::task::block_in_place(s3_double::install)?;
        let port = free_port()?;
        let mut command = installed.command(port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let double = S3 {
            port,
            _process: Process::start("the double of S3", &mut command)?,
        };
        until("the double of S3 to make a bucket", || async {
            Ok(make_bucket(port).await.ok().filter(|made| *made))
        })
        .await?;
        Ok(double)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As a store, with everything below `prefix`.
    pub fn uri(&self, prefix: &str) -> String {
        uri(self.port, prefix)
    }
}

/// The store on the double behind a port, be it its own or that of something in between.
pub fn uri(port: u16, prefix: &str) -> String {
    format!("s3://id:secret@{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{port}&region=us-east-1")
}

async fn make_bucket(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = String::from_utf8_lossy(answer.get(9..12).context("no answer")?).into_owned();
    Ok(status == "200")
}
