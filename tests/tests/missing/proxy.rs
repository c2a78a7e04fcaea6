//! Stands between agent and service, and tampers with what the agent ships: that is how holes come into a first copy, and
//! how one is held up in the middle.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use headwater_protocol::frame::{Frame, FrameKind, seal};
use headwater_protocol::slices::{SyncSliceHeader, documents};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Gates that requests wait at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gates {
    /// Whether only the first slice of each part may arrive.
    pub first_slices_only: bool,
    /// Whether the scan may end.
    pub scan_may_end: bool,
    /// Whether fetched documents may arrive.
    pub documents_may_arrive: bool,
}

/// A running proxy; ends with the test's runtime.
pub struct Proxy {
    address: String,
    gates: watch::Sender<Gates>,
}

impl Proxy {
    /// Passes everything on to `service`, but takes documents with the field `hole` out of sync slices.
    #[expect(
        clippy::disallowed_methods,
        reason = "a proxy of the test's own, beside the processes under test"
    )]
    pub async fn start(service: &str) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let (gates, watched) = watch::channel(Gates::default());
        let service: Arc<str> = service.trim_start_matches("http://").into();
        tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                let (service, watched) = (service.clone(), watched.clone());
                // A connection that breaks is the agent's to try again.
                tokio::spawn(async move { pass(agent, &service, watched).await.ok() });
            }
        });
        Ok(Proxy { address, gates })
    }

    /// What the agent is told to be the service.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens gates, or shuts them.
    pub fn open(&self, which: impl FnOnce(&mut Gates)) {
        self.gates.send_modify(which);
    }
}

/// One request and its answer; the connection is closed after it.
async fn pass(mut agent: TcpStream, service: &str, mut gates: watch::Receiver<Gates>) -> Result<()> {
    let mut received = Vec::new();
    let head_end = loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if agent.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8(received[..head_end].to_vec())?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, length)| length.trim().parse())?;
    while received.len() < head_end + length {
        if agent.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
    let mut body = Bytes::from(received).slice(head_end..);
    let path = head.split(' ').nth(1).context("a request without a path")?.to_owned();
    if path.ends_with("/sync/slice") {
        let header: SyncSliceHeader = Frame::open(FrameKind::SyncSlice, body.clone())?.header()?;
        gates
            .wait_for(|gates| header.number == 0 || !gates.first_slices_only)
            .await?;
        body = with_holes(body)?;
    } else if path.ends_with("/sync/end") {
        gates.wait_for(|gates| gates.scan_may_end).await?;
    } else if path.ends_with("/documents") {
        gates.wait_for(|gates| gates.documents_may_arrive).await?;
    }
    let mut service = TcpStream::connect(service).await?;
    for line in head.lines().filter(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if !["content-length", "connection"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
        {
            service.write_all(format!("{line}\r\n").as_bytes()).await?;
        }
    }
    let own = format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    service.write_all(own.as_bytes()).await?;
    service.write_all(&body).await?;
    let mut answer = Vec::new();
    service.read_to_end(&mut answer).await?;
    agent.write_all(&answer).await?;
    agent.shutdown().await?;
    Ok(())
}

fn with_holes(body: Bytes) -> Result<Bytes> {
    let frame = Frame::open(FrameKind::SyncSlice, body.clone())?;
    let mut header: SyncSliceHeader = frame.header()?;
    let raw = frame.payload()?;
    let mut kept = Vec::new();
    let mut count = 0;
    for document in documents(&raw) {
        let document = document?;
        if bson::RawDocument::from_bytes(document)?.get("hole")?.is_none() {
            kept.extend_from_slice(document);
            count += 1;
        }
    }
    if count == header.count {
        return Ok(body);
    }
    header.count = count;
    Ok(seal(FrameKind::SyncSlice, &header, &kept)?)
}
