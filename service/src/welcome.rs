//! The first bytes of a connection: with TLS it is secured, and whoever speaks plainly is told how to come back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::error::DispatchError;
use headwater_host::real::TlsAcceptor;
use headwater_protocol::agent::{Refusal, RefusalKind};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Both sides must have agreed on keys by then.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// With this byte every connection with TLS begins: the type of a record of its handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// A connection, secured or plain.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection for T {}

/// A connection and who is at its other end.
pub(crate) type Guest = (Box<dyn Connection>, Option<SocketAddr>);

/// Takes a connection in, or ends it.
pub(crate) async fn welcome(mut stream: TcpStream, tls: Option<TlsAcceptor>) -> Result<Guest, DispatchError> {
    // An answer is not to wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let from = stream.peer_addr().ok();
    let Some(tls) = tls else {
        return Ok((Box::new(stream), from));
    };
    let secured = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            turn_away(&mut stream).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks without TLS"));
        }
        tls.accept(stream).await
    };
    match timeout(HANDSHAKE_DEADLINE, secured).await {
        Ok(Ok(secured)) => Ok((Box::new(secured), from)),
        Ok(Err(error)) => {
            tracing::debug!(?from, %error, "a connection was not secured");
            Err(DispatchError::Io(error))
        }
        Err(_) => Err(DispatchError::SlowRequestTimeout),
    }
}

async fn turn_away(stream: &mut TcpStream) -> io::Result<()> {
    let message = "this service speaks TLS only: write https:// instead of http://";
    let body = serde_json::to_string(&Refusal::new(RefusalKind::Invalid, message))?;
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What it still sends is taken from it: a connection closed over unread bytes is reset, and the answer lost with it.
    let mut rest = tokio::io::sink();
    let mut bounded = tokio::io::AsyncReadExt::take(stream, 1 << 16);
    tokio::io::copy(&mut bounded, &mut rest).await.map(drop)
}
