//! A way to a server on which what is sent takes its time: what passes it lasts as long on a fast machine as on a slow one.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// So much passes at once on one connection.
const CHUNK_BYTES: usize = 16 << 10;
/// Every chunk, however small, takes at least so long.
const CHUNK_TAKES: Duration = Duration::from_millis(4);

/// The way, gone when this is dropped; what passes then is cut off.
#[derive(Debug)]
pub struct SlowWay {
    port: u16,
    listening: JoinHandle<()>,
}

impl SlowWay {
    /// Opens a way to `port` on this machine: at most 4 MB/s on each connection, answers at once.
    #[expect(clippy::disallowed_methods, reason = "a proxy of the bed runs beside the test")]
    pub async fn to(port: u16) -> Result<SlowWay> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?.port();
        let listening = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                // An end of either side is an end of both, and nobody's fault.
                passing.spawn(async move { drop(pass(caller, port).await) });
                while passing.try_join_next().is_some() {}
            }
        });
        Ok(SlowWay { port: own, listening })
    }

    /// Connection string of the one server at its end.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }
}

impl Drop for SlowWay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass(from: TcpStream, port: u16) -> Result<()> {
    let to = TcpStream::connect(("127.0.0.1", port)).await?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let ((mut questions, mut back), (mut answers, mut there)) = (from.into_split(), to.into_split());
    let slowly = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = questions.read(&mut chunk).await?;
            if length == 0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(CHUNK_TAKES).await;
            there.write_all(&chunk[..length]).await?;
        }
    };
    tokio::select! {
        ended = slowly => ended,
        ended = tokio::io::copy(&mut answers, &mut back) => Ok(ended.map(drop)?),
    }
}
