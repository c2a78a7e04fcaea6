//! MongoDB's wire protocol without a driver: commands go out exactly as they are written, with whatever session,
//! version and transaction fields the test puts in. The driver would add its own.

use anyhow::{Context, Result, bail, ensure};
use bson::{Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OP_MSG: i32 = 2013;
/// Length, request, answered request, kind of message.
const HEADER_BYTES: usize = 16;
/// Flags, and the kind of the only section.
const PREFIX_BYTES: usize = 5;
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A connection to one server.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    requests: i32,
}

impl Wire {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> Result<Wire> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, requests: 0 })
    }

    /// Runs a command; the reply may say that it failed.
    pub async fn ask(&mut self, db: &str, command: &Document) -> Result<Document> {
        let mut command = command.clone();
        command.insert("$db", db);
        let body = bson::serialize_to_vec(&command)?;
        self.requests += 1;
        let length = HEADER_BYTES + PREFIX_BYTES + body.len();
        let mut message = Vec::with_capacity(length);
        for number in [length as i32, self.requests, 0, OP_MSG, 0] {
            message.extend(number.to_le_bytes());
        }
        message.push(0);
        message.extend(body);
        self.stream.write_all(&message).await?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let length = i32::from_le_bytes(length) as usize;
        let sane = (HEADER_BYTES + PREFIX_BYTES..REPLY_BYTES_MAX).contains(&length);
        ensure!(sane, "a reply of {length} bytes");
        let mut reply = vec![0; length - 4];
        self.stream.read_exact(&mut reply).await?;
        Ok(bson::deserialize_from_slice(&reply[HEADER_BYTES - 4 + PREFIX_BYTES..])?)
    }

    /// Runs a command that must succeed.
    pub async fn command(&mut self, db: &str, command: &Document) -> Result<Document> {
        let reply = self.ask(db, command).await?;
        if is_done(&reply) {
            return Ok(reply);
        }
        bail!("{command} on {db} was refused: {reply}")
    }

    /// Every document that matches, of a result that fits into one reply.
    pub async fn find(&mut self, db: &str, collection: &str, filter: Document) -> Result<Vec<Document>> {
        let command = doc! {
            "find": collection, "filter": filter, "batchSize": 100_000, "singleBatch": true,
            "readConcern": { "level": "majority" },
        };
        first_batch(&self.command(db, &command).await?)
    }
}

/// Whether a command and all its writes succeeded.
pub fn is_done(reply: &Document) -> bool {
    let ok = reply.get_f64("ok").is_ok_and(|ok| ok == 1.0);
    ok && !reply.contains_key("writeErrors") && !reply.contains_key("writeConcernError")
}

/// The documents of a cursor's first reply.
pub fn first_batch(reply: &Document) -> Result<Vec<Document>> {
    let batch = reply.get_document("cursor")?.get_array("firstBatch")?;
    let document = |item: &bson::Bson| item.as_document().cloned().context("a result that is no document");
    batch.iter().map(document).collect()
}
