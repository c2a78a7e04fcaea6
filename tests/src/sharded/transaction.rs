//! Transactions over several shards, committed by the coordinator as a mongos has it done.

use anyhow::{Result, bail};
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, Timestamp, doc};

use super::router::{Router, majority};
use crate::wire::is_done;

/// A transaction that is open. Dropping it leaves it to the servers, which abort it after a while.
#[derive(Debug)]
pub struct Transaction {
    session: Document,
    participants: Vec<String>,
}

impl Default for Transaction {
    fn default() -> Self {
        let id = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: bson::Uuid::new().bytes().to_vec(),
        };
        Transaction {
            session: doc! { "id": id },
            participants: Vec::new(),
        }
    }
}

impl Transaction {
    fn tail(&self) -> Document {
        doc! { "lsid": self.session.clone(), "txnNumber": 1_i64, "autocommit": false }
    }

    /// A statement, to the shard that holds a value of the shard key. Fails when that shard aborted the transaction.
    pub async fn run(&mut self, router: &mut Router, ns: &str, value: i64, command: &Document) -> Result<Document> {
        let shard = router.owner(ns, value).await?;
        let mut statement = command.clone();
        statement.extend(self.tail());
        if !self.participants.contains(&shard) {
            statement.insert("startTransaction", true);
            statement.insert("readConcern", doc! { "level": "snapshot" });
            if self.participants.is_empty() {
                statement.insert("coordinator", true);
            }
            self.participants.push(shard.clone());
        }
        let reply = router.once(ns, &shard, &statement).await?;
        if is_done(&reply) {
            return Ok(reply);
        }
        router.look_again(ns).await;
        bail!("a statement was refused: {reply}")
    }

    /// Commits, in two phases where several shards take part.
    pub async fn commit(self, router: &mut Router) -> Result<()> {
        let mut command = match self.participants.as_slice() {
            [] => return Ok(()),
            [_] => doc! { "commitTransaction": 1 },
            several => {
                let participants: Vec<Bson> = several.iter().map(|shard| doc! { "shardId": shard }.into()).collect();
                doc! { "coordinateCommitTransaction": 1, "participants": participants }
            }
        };
        command.extend(self.tail());
        command.insert("writeConcern", majority());
        router.on(&self.participants[0], "admin", command).await.map(drop)
    }

    /// Gives it up everywhere.
    pub async fn abort(self, router: &mut Router) {
        for shard in &self.participants {
            let mut command = doc! { "abortTransaction": 1 };
            command.extend(self.tail());
            // A shard that aborted it by itself says that there is none.
            let _ = router.on(shard, "admin", command).await;
        }
    }

    /// Prepares it on every shard, as a coordinator would; answers the time at which it must commit.
    pub async fn prepare(&self, router: &mut Router) -> Result<Timestamp> {
        let mut latest = Timestamp { time: 0, increment: 0 };
        for shard in &self.participants {
            let mut command = doc! { "prepareTransaction": 1, "writeConcern": majority() };
            command.extend(self.tail());
            let reply = router.on(shard, "admin", command).await?;
            latest = latest.max(reply.get_timestamp("prepareTimestamp")?);
        }
        Ok(latest)
    }

    /// Commits it on one shard after [`Transaction::prepare`].
    pub async fn commit_prepared(&self, router: &mut Router, shard: &str, at: Timestamp) -> Result<()> {
        let mut command = doc! { "commitTransaction": 1, "commitTimestamp": at, "writeConcern": majority() };
        command.extend(self.tail());
        router.on(shard, "admin", command).await.map(drop)
    }

    /// The shards that take part, the coordinator first.
    pub fn participants(&self) -> &[String] {
        &self.participants
    }
}
