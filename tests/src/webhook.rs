//! A webhook that alerts are told to: it listens on this machine, plainly or by TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use headwater_host::real::TlsAcceptor;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::certificates::Certificate;
use crate::until;

/// A webhook; closed when dropped.
#[derive(Debug)]
pub struct Hook {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How it proves who it is; it speaks plainly without.
    tls: Option<TlsAcceptor>,
    refuse_next: bool,
    /// Event and id, in the order of arrival.
    told: Vec<(String, String)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Hook {
    /// Begins to listen, plainly.
    #[expect(clippy::disallowed_methods, reason = "the listener runs beside the test")]
    pub async fn start() -> Result<Hook> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let served = shared.clone();
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Err(error) = serve(&served, stream).await {
                    eprintln!("a call of the webhook broke: {error}");
                }
            }
        });
        Ok(Hook {
            address,
            shared,
            listening,
        })
    }

    /// Its address, with a secret in it.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/hook?token=verysecret", self.address)
    }

    /// From now on it speaks TLS, and proves who it is by this.
    pub fn speak_tls(&self, certificate: &Certificate) -> Result<()> {
        self.shared.state().tls = Some(TlsAcceptor::open(&certificate.cert, &certificate.key)?);
        Ok(())
    }

    /// The next call is answered with an error.
    pub fn refuse_next(&self) {
        self.shared.state().refuse_next = true;
    }

    /// What it took, as event and id.
    pub fn told(&self) -> Vec<(String, String)> {
        self.shared.state().told.clone()
    }

    /// Waits until it took this.
    pub async fn until_told(&self, event: &str, id: &str) -> Result<()> {
        let wanted = (event.to_owned(), id.to_owned());
        let what = format!("the webhook to be told: {event} of {id}");
        until(&what, || async { Ok(self.told().contains(&wanted).then_some(())) }).await
    }
}

async fn serve(shared: &Shared, stream: TcpStream) -> Result<()> {
    let tls = shared.state().tls.clone();
    match tls {
        Some(tls) => take(shared, tls.accept(stream).await?).await,
        None => take(shared, stream).await,
    }
}

async fn take(shared: &Shared, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line).await? > 2 {
        let header = line.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let alert: Value = serde_json::from_slice(&body)?;
    let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
    let refused = {
        let mut state = shared.state();
        let refused = std::mem::take(&mut state.refuse_next);
        if !refused {
            state.told.push((text("event"), text("id")));
        }
        refused
    };
    let status = if refused { "500 Trouble" } else { "200 OK" };
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
