//! A front before an HTTP server that does to some requests what networks and overloaded services do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing: it goes through.
    None,
    /// It is refused as too much, without effect.
    Throttled,
    /// It fails without effect.
    FailedBefore,
    /// It has its effect, and is answered with an error.
    FailedAfter,
    /// It has its effect, and the connection ends without an answer.
    Unanswered,
    /// Half of the answer comes, then the connection ends.
    Cut,
    /// It takes longer.
    Slow,
    /// Its condition is not looked at.
    Unconditional,
}

/// One request, as the one who decides sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counts from 0.
    pub number: u64,
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub target: String,
}

type Decide = Box<dyn FnMut(&Request) -> Mishap + Send>;

/// The front; closed when dropped.
pub struct HttpFront {
    port: u16,
    mishaps: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for HttpFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpFront {
    /// Stands before `port` and asks `decide` about every request.
    #[expect(clippy::disallowed_methods, reason = "a front of the bed runs beside the test")]
    pub async fn before(port: u16, decide: impl FnMut(&Request) -> Mishap + Send + 'static) -> Result<HttpFront> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let (decide, mishaps) = (
            Arc::new(Mutex::new(Box::new(decide) as Decide)),
            Arc::new(AtomicU64::new(0)),
        );
        let counted = mishaps.clone();
        let numbers = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (decide, counted, numbers) = (decide.clone(), counted.clone(), numbers.clone());
                // A client that goes away is no fault of the front.
                tokio::spawn(async move { serve(stream, port, &decide, &counted, &numbers).await.ok() });
            }
        });
        Ok(HttpFront {
            port: own,
            mishaps,
            task,
        })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many requests something happened to.
    pub fn mishaps(&self) -> u64 {
        self.mishaps.load(Ordering::SeqCst)
    }
}

const THROTTLED: &[u8] = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 76\r\nConnection: close\r\n\r\n<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>    ";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Google's service understands what Amazon's does, but for the header with the condition; its client writes every path as one part.
fn as_amazon_says(line: &str) -> String {
    if line.ends_with(" HTTP/1.1") {
        return line.replace("%2F", "/").replace("%2D", "-").replace("%2E", ".");
    }
    match line.to_ascii_lowercase().as_str() {
        "x-goog-if-generation-match: 0" => "if-none-match: *".to_owned(),
        _ => line.to_owned(),
    }
}

/// The double wants to see somebody's key, and does not look whether it fits.
const SOMEBODY: &str = "Authorization: AWS4-HMAC-SHA256 Credential=id/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n";

/// One request, then the connection is closed: every answer says so.
async fn serve(
    mut client: TcpStream,
    port: u16,
    decide: &Mutex<Decide>,
    counted: &AtomicU64,
    numbers: &AtomicU64,
) -> Result<()> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        anyhow::ensure!(client.read_buf(&mut bytes).await? > 0, "no request");
    };
    let head = String::from_utf8_lossy(&bytes[..head_ends]).into_owned();
    let mut words = head.split_whitespace();
    let request = Request {
        number: numbers.fetch_add(1, Ordering::SeqCst),
        method: words.next().context("no method")?.to_owned(),
        target: words.next().context("no target")?.to_owned(),
    };
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let length: usize = header("content-length").map_or(Ok(0), |value| value.parse())?;
    while bytes.len() < head_ends + length {
        anyhow::ensure!(client.read_buf(&mut bytes).await? > 0, "half a request");
    }
    let mishap = decide.lock().unwrap_or_else(PoisonError::into_inner)(&request);
    if mishap != Mishap::None {
        counted.fetch_add(1, Ordering::SeqCst);
    }
    match mishap {
        Mishap::Throttled => return Ok(client.write_all(THROTTLED).await?),
        Mishap::FailedBefore => return Ok(client.write_all(FAILED).await?),
        Mishap::Slow => tokio::time::sleep(Duration::from_millis(300)).await,
        _ => {}
    }
    let kept: String = head
        .lines()
        .filter(|line| {
            let line = line.to_ascii_lowercase();
            let condition = line.starts_with("if-none-match:") || line.starts_with("x-goog-if-generation-match:");
            let conditional = condition && mishap == Mishap::Unconditional;
            !line.starts_with("connection:")
                && !line.starts_with("authorization: bearer")
                && !line.is_empty()
                && !conditional
        })
        .map(|line| format!("{}\r\n", as_amazon_says(line)))
        .collect();
    let key = match head.contains("AWS4-") {
        true => "",
        false => SOMEBODY,
    };
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server
        .write_all(format!("{kept}{key}Connection: close\r\n\r\n").as_bytes())
        .await?;
    server.write_all(&bytes[head_ends..]).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    let answer = match mishap {
        Mishap::FailedAfter => FAILED,
        Mishap::Unanswered => &[],
        // Within the body, if there is one worth it.
        Mishap::Cut => &answer[..answer.len() - answer.len() / 4],
        _ => &answer,
    };
    client.write_all(answer).await?;
    client.shutdown().await?;
    Ok(())
}
