//! Transactions: in one oplog entry, in a chain of several (a startup parameter of the source makes chains of small
//! ones), prepared; committed and aborted.

use std::time::Duration;

use anyhow::Result;
use bson::{Document, doc};
use mongodb::ClientSession;
use rand::Rng;

use super::Writer;
use super::documents::{document, id, modifiers};

impl Writer {
    pub(super) async fn transaction(&mut self) -> (&'static str, Result<()>) {
        let mut session = match self.client.start_session().await {
            Ok(session) => session,
            Err(error) => return ("transaction", Err(error.into())),
        };
        if let Err(error) = self.statements(&mut session).await {
            // The server aborts it by itself where it still can; a refusal of the abort tells nothing new.
            let _ = session.abort_transaction().await;
            return ("transaction", Err(error));
        }
        if self.spec.prepared && self.chance(0.25) {
            return self.decide_prepared(&mut session).await;
        }
        if self.chance(0.85) {
            ("transaction", session.commit_transaction().await.map_err(Into::into))
        } else {
            (
                "aborted transaction",
                session.abort_transaction().await.map_err(Into::into),
            )
        }
    }

    async fn statements(&mut self, session: &mut ClientSession) -> Result<()> {
        session.start_transaction().await?;
        for _ in 0..self.rng.gen_range(1..9) {
            let name = self.collection_name();
            let collection = self.database().collection::<Document>(name);
            let filter = doc! { "_id": id(&mut self.rng) };
            match self.rng.gen_range(0..10) {
                0..4 => {
                    collection
                        .insert_one(document(&mut self.rng))
                        .session(&mut *session)
                        .await?;
                }
                4..8 => {
                    let update = modifiers(&mut self.rng);
                    collection.update_one(filter, update).session(&mut *session).await?;
                }
                _ => {
                    collection.delete_one(filter).session(&mut *session).await?;
                }
            }
        }
        Ok(())
    }

    /// Prepares as a shard would, lets others write meanwhile, then decides.
    async fn decide_prepared(&mut self, session: &mut ClientSession) -> (&'static str, Result<()>) {
        let admin = self.client.database("admin");
        // Waiting for a majority here may never end: a waiting global lock of another writer stops the flush of the
        // journal that would make one, and that lock waits for this transaction.
        let prepare = doc! { "prepareTransaction": 1, "writeConcern": { "w": 1, "j": false } };
        let prepared = admin.run_command(prepare).session(&mut *session).await;
        let prepared = prepared
            .map_err(anyhow::Error::from)
            .and_then(|reply| Ok(reply.get_timestamp("prepareTimestamp")?));
        let time = match prepared {
            Ok(time) => time,
            Err(error) => {
                let _ = session.abort_transaction().await;
                return ("prepared transaction", Err(error));
            }
        };
        tokio::time::sleep(Duration::from_millis(self.rng.gen_range(0..200))).await;
        // The driver knows nothing of prepared transactions, so the decision is a command of its own.
        let (kind, command) = if self.chance(0.6) {
            (
                "prepared transaction",
                doc! { "commitTransaction": 1, "commitTimestamp": time },
            )
        } else {
            ("aborted prepared transaction", doc! { "abortTransaction": 1 })
        };
        (
            kind,
            admin
                .run_command(command)
                .session(&mut *session)
                .await
                .map(drop)
                .map_err(Into::into),
        )
    }
}
