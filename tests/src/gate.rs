//! What stands between the daemons of a cluster: one gate before each, through which all others call it, and that can be
//! shut for single callers in one or both directions.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const HEAD_MAX_BYTES: usize = 64 << 10;
/// Whom a process calls itself that is no node yet.
const NOBODY: u64 = 0;
const CHUNK_BYTES: usize = 64 << 10;

/// One direction between a caller and the daemon it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the caller to the called.
    Questions,
    /// Back.
    Answers,
}

/// What is shut: the caller's node, the place of the called, the way.
type Shut = BTreeSet<(u64, usize, Way)>;

/// All gates of a cluster have the same rules.
#[derive(Debug)]
pub struct Rules(watch::Sender<Shut>);

impl Default for Rules {
    fn default() -> Self {
        Rules(watch::Sender::new(Shut::new()))
    }
}

impl Rules {
    /// Shuts a way. What is under way stays on the way, as it does in a network that sends again what was lost; what is
    /// called anew meanwhile gets no further.
    pub fn shut(&self, caller: u64, place: usize, way: Way) {
        self.0.send_modify(|shut| {
            shut.insert((caller, place, way));
        });
    }

    /// Opens everything.
    pub fn open_all(&self) {
        self.0.send_modify(BTreeSet::clear);
    }
}

/// The gate before the daemon at one place. It is gone when this is dropped; what passes then is cut off.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    listening: JoinHandle<()>,
}

impl Gate {
    /// Begins to let through to `port` on this machine.
    #[expect(clippy::disallowed_methods, reason = "a proxy of the bed runs beside the test")]
    pub async fn before(place: usize, port: u16, rules: &Rules) -> Result<Gate> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shut = rules.0.subscribe();
        let listening = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                let shut = shut.clone();
                passing.spawn(async move {
                    // An end of either side is an end of both, and nobody's fault.
                    let _ = pass(caller, place, port, shut).await;
                });
                while passing.try_join_next().is_some() {}
            }
        });
        Ok(Gate { address, listening })
    }

    /// Where others call.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass(mut from: TcpStream, place: usize, port: u16, shut: watch::Receiver<Shut>) -> Result<()> {
    from.set_nodelay(true)?;
    let mut begin = Vec::new();
    let caller = loop {
        if let Some(caller) = caller_of(&begin)? {
            break caller;
        }
        ensure!(begin.len() < HEAD_MAX_BYTES, "no end of the head");
        ensure!(from.read_buf(&mut begin).await? > 0, "ended within its head");
    };
    until_open(&mut shut.clone(), (caller, place, Way::Questions)).await?;
    let mut to = TcpStream::connect(("127.0.0.1", port)).await?;
    to.set_nodelay(true)?;
    to.write_all(&begin).await?;
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let mut new_rules = shut.clone();
    new_rules.mark_unchanged();
    tokio::select! {
        biased;
        // Whoever had no number when it connected may have one by now: it has to connect again.
        _ = new_rules.changed(), if caller == NOBODY => Ok(()),
        ended = pump(from_read, to_write, shut.clone(), (caller, place, Way::Questions)) => ended,
        ended = pump(to_read, from_write, shut, (caller, place, Way::Answers)) => ended,
    }
}

/// The node that calls, once the head of its first question is whole. A connection belongs to one process, so the first
/// question tells for all, unless the process had no number yet.
fn caller_of(begin: &[u8]) -> Result<Option<u64>> {
    let Some(end) = begin.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&begin[..end]).context("a head that is no text")?;
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("headwater-from")
        {
            return Ok(Some(value.trim().parse()?));
        }
    }
    bail!("only daemons pass here: {head}")
}

async fn until_open(shut: &mut watch::Receiver<Shut>, way: (u64, usize, Way)) -> Result<()> {
    shut.wait_for(|shut| !shut.contains(&way)).await?;
    Ok(())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut shut: watch::Receiver<Shut>,
    way: (u64, usize, Way),
) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        until_open(&mut shut, way).await?;
        to.write_all(&chunk[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Answers every line with the same line.
    #[expect(clippy::disallowed_methods, reason = "an echo beside the test")]
    async fn echo() -> Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        Ok(port)
    }

    #[tokio::test]
    async fn a_shut_way_holds_back_and_gives_when_it_opens() -> Result<()> {
        let rules = Rules::default();
        let gate = Gate::before(0, echo().await?, &rules).await?;
        let mut stream = TcpStream::connect(gate.address()).await?;
        let head = b"POST / HTTP/1.1\r\nHeadwater-From: 2\r\n\r\n";
        stream.write_all(head).await?;
        let mut back = vec![0; head.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, head);
        for way in [Way::Questions, Way::Answers] {
            rules.shut(3, 0, way);
            stream.write_all(b"x").await?;
            assert_eq!(stream.read_u8().await?, b'x', "another caller's way");
            rules.shut(2, 0, way);
            stream.write_all(b"y").await?;
            let mut one = [0];
            let held = timeout(Duration::from_millis(50), stream.read_exact(&mut one)).await;
            assert!(held.is_err(), "{way:?}");
            rules.open_all();
            stream.read_exact(&mut one).await?;
            assert_eq!(one, *b"y");
        }
        Ok(())
    }
}
