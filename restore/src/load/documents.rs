//! Creates a collection, writes its documents and counts them.

use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Bson, Document, doc};
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use headwater_model::Namespace;

use super::batch::{self, Batch, Batcher};
use super::create::{self, Making, without_collation_version};
use super::cursor::{Arrived, Watermark};
use super::target::{code, error_code};
use super::{Load, LoadFault, Stage};
use crate::naming::{Item, Kind};
use crate::source::{CollectionAtT, Row, Rows, SourceFault};

/// How many creates of an earlier try may land late.
const LATE_CREATES: u32 = 3;

impl Load<'_> {
    pub(super) async fn documents(&self, item: &Item, making: &Making) -> Result<(), LoadFault> {
        let Some(data) = &item.data else { return Ok(()) };
        let (watermark, resumed) = match self.ledger.stage(&item.to) {
            Some(Stage::Counted { .. } | Stage::Done { .. }) => return Ok(()),
            // A capped collection cannot go on in its middle without risk to its order; it is small by nature.
            Some(Stage::Documents {
                after,
                documents,
                bytes,
            }) if !data.is_capped() => {
                let after = after.map(hex::decode).transpose();
                let after = after.map_err(|e| LoadFault::Keep(format!("the cursor is damaged: {e}")))?;
                (Watermark::new(after.map(Bytes::from), documents, bytes), true)
            }
            _ => {
                self.begin(item, making).await?;
                (Watermark::new(None, 0, 0), self.resumed)
            }
        };
        let (documents, bytes) = self.copy(item, data, watermark, resumed).await?;
        self.count(&item.to_data(), documents).await?;
        self.ledger.advance(&item.to, Stage::Counted { documents, bytes }).await
    }

    /// Throws away what bears the claimed name and creates the collection.
    async fn begin(&self, item: &Item, making: &Making) -> Result<(), LoadFault> {
        let mut late = if self.resumed { LATE_CREATES } else { 0 };
        loop {
            self.drop(&item.to).await?;
            if item.kind == Kind::TimeSeries {
                self.drop(&item.to_data()).await?;
            }
            match self.create_as(item, making).await {
                // An earlier try that was killed may have left a command on its way.
                Err(LoadFault::Taken { .. }) if late > 0 => late -= 1,
                created => break created?,
            }
        }
        let stage = Stage::Documents {
            after: None,
            documents: 0,
            bytes: 0,
        };
        self.ledger.advance(&item.to, stage).await
    }

    pub(super) async fn drop(&self, name: &Namespace) -> Result<(), LoadFault> {
        let command = doc! { "drop": &name.coll, "writeConcern": { "w": "majority" } };
        match self.target.try_run(&name.db, &command).await {
            Err(e) if error_code(&e) != Some(code::NAMESPACE_NOT_FOUND) => {
                Err(self.target.fault(&format!("drop of {name}"), &e))
            }
            _ => Ok(()),
        }
    }

    /// Creates a collection, under the UUID it had where that is asked for.
    async fn create_as(&self, item: &Item, making: &Making) -> Result<(), LoadFault> {
        let with_uuid = create::with_uuid(item, making).filter(|_| self.settings.keep_uuids);
        if let Some(mut command) = with_uuid {
            command.insert("writeConcern", doc! { "w": "majority" });
            self.run_whatever_the_collation(&item.to_data(), &command, "create")
                .await?;
            if item.kind != Kind::TimeSeries {
                return Ok(());
            }
        }
        self.create(&item.to, making).await
    }

    pub(super) async fn create(&self, name: &Namespace, making: &Making) -> Result<(), LoadFault> {
        let Some(create) = &making.create else { return Ok(()) };
        let mut command = create.clone();
        command.insert("writeConcern", doc! { "w": "majority" });
        self.run_whatever_the_collation(name, &command, "create")
            .await
            .map(drop)
    }

    /// Runs a command with collations; where the target knows only other versions of them, without their versions.
    pub(super) async fn run_whatever_the_collation(
        &self,
        name: &Namespace,
        command: &Document,
        what: &str,
    ) -> Result<Document, LoadFault> {
        let fault = |e: &mongodb::error::Error| self.target.fault(&format!("{what} of {name}"), e);
        match (
            self.target.try_run(&name.db, command).await,
            without_collation_version(command),
        ) {
            (Err(e), Some(command)) if error_code(&e) == Some(code::COLLATION_VERSION) => {
                self.ledger
                    .note(format!("{name} gets the target's version of its collation: {e}"));
                self.target.try_run(&name.db, &command).await.map_err(|e| fault(&e))
            }
            (result, _) => result.map_err(|e| fault(&e)),
        }
    }

    async fn copy(
        &self,
        item: &Item,
        data: &CollectionAtT,
        mut watermark: Watermark,
        resumed: bool,
    ) -> Result<(u64, u64), LoadFault> {
        let Stage::Documents { after, .. } = watermark.stage() else {
            return Ok((0, 0));
        };
        let after = after.and_then(|hex| hex::decode(hex).ok()).map(Bytes::from);
        let rows = self.source.rows(data.uuid, after).await?;
        let lanes = if data.is_capped() {
            1
        } else {
            self.settings.writers.max(1)
        };
        let to = item.to_data();
        // After a failure nothing new is sent, and what is under way is waited for: a write that was given up could land
        // in the middle of the next try.
        let failed = AtomicBool::new(false);
        let sent = batches(rows)
            .take_while(|_| future::ready(!failed.load(Ordering::Relaxed)))
            .map(|batch| async { self.send(&to, batch?, resumed).await })
            .buffer_unordered(lanes);
        let mut sent = std::pin::pin!(sent);
        let mut outcome = Ok(());
        while let Some(arrived) = sent.next().await {
            let noted = match arrived {
                Ok(batch) => {
                    watermark.arrive(batch);
                    self.ledger.advance(&item.to, watermark.stage()).await
                }
                Err(fault) => Err(fault),
            };
            if noted.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            outcome = outcome.and(noted);
        }
        outcome?;
        Ok(watermark.amount())
    }

    async fn send(&self, to: &Namespace, batch: Batch, resumed: bool) -> Result<Arrived, LoadFault> {
        let unusable = |e: bson::error::Error| SourceFault::Document {
            namespace: to.clone(),
            detail: e.to_string(),
        };
        // The semaphore is never closed; without a permit nothing worse happens than one writer more.
        let _permit = self.writers.acquire().await;
        let command = batch::insert(&to.coll, &batch.documents).map_err(unusable)?;
        let sent = self.target.run_raw(&to.db, &command).await;
        let (reply, repeated) = sent.map_err(|e| self.target.fault(&format!("documents of {to}"), &e))?;
        let duplicates = duplicates(&reply, resumed || repeated).map_err(|detail| LoadFault::Refused {
            what: format!("documents of {to}"),
            detail,
        })?;
        let inserted = reply.get("n").and_then(number).unwrap_or_default();
        if inserted + duplicates != batch.documents.len() as u64 {
            return Err(LoadFault::Count {
                to: to.clone(),
                expected: batch.documents.len() as u64,
                found: inserted,
            });
        }
        for document in batch.documents.iter().filter(|d| batch::has_empty_timestamp(d)) {
            if let Some(command) = batch::replace(&to.coll, document, false).map_err(unusable)? {
                let run = self.target.run_raw(&to.db, &command).await;
                let (reply, _) = run.map_err(|e| self.target.fault(&format!("update of {to}"), &e))?;
                if let Some(detail) = first_write_error(&reply) {
                    return Err(LoadFault::Refused {
                        what: format!("update of {to}"),
                        detail,
                    });
                }
            }
        }
        let documents = batch.documents.len() as u64;
        Ok(Arrived {
            number: batch.number,
            last_key: batch.last_key,
            documents,
            bytes: batch.bytes,
        })
    }

    /// Compares the count, by the collection's statistics, and if they are wrong (they can be, after a crash of the
    /// target) by its documents.
    async fn count(&self, to: &Namespace, expected: u64) -> Result<(), LoadFault> {
        let reply = self.target.run(&to.db, &doc! { "count": &to.coll }).await?;
        if reply.get("n").and_then(number) == Some(expected) {
            return Ok(());
        }
        let pipeline = [doc! { "$group": { "_id": null, "n": { "$sum": 1_i64 } } }];
        let command = doc! { "aggregate": &to.coll, "pipeline": pipeline, "cursor": {}, "allowDiskUse": true };
        let reply = self.target.run(&to.db, &command).await?;
        let batch = reply
            .get_document("cursor")
            .and_then(|c| c.get_array("firstBatch"))
            .ok();
        let found = batch.and_then(|b| b.first()).and_then(|d| d.as_document()?.get("n"));
        let found = found.and_then(number).unwrap_or_default();
        if found == expected {
            Ok(())
        } else {
            Err(LoadFault::Count {
                to: to.clone(),
                expected,
                found,
            })
        }
    }
}

/// Rows gathered to batches.
fn batches<'a>(rows: Box<dyn Rows + 'a>) -> impl stream::Stream<Item = Result<Batch, SourceFault>> + 'a {
    struct Gathering<'a> {
        rows: Box<dyn Rows + 'a>,
        waiting: std::vec::IntoIter<Row>,
        held: Option<Row>,
        batcher: Batcher,
    }
    let start = Gathering {
        rows,
        waiting: Vec::new().into_iter(),
        held: None,
        batcher: Batcher::default(),
    };
    stream::try_unfold(start, |mut g| async move {
        loop {
            let row = match g.held.take().or_else(|| g.waiting.next()) {
                Some(row) => row,
                None => {
                    g.waiting = g.rows.next_batch().await?.into_iter();
                    if g.waiting.len() == 0 {
                        return Ok(g.batcher.take().map(|batch| (batch, g)));
                    }
                    continue;
                }
            };
            if g.batcher.is_full(row.doc.len()) {
                g.held = Some(row);
                return Ok(g.batcher.take().map(|batch| (batch, g)));
            }
            g.batcher.add(row);
        }
    })
}

fn number(value: &Bson) -> Option<u64> {
    match value {
        Bson::Int32(n) => u64::try_from(*n).ok(),
        Bson::Int64(n) => u64::try_from(*n).ok(),
        Bson::Double(n) if *n >= 0.0 => Some(*n as u64),
        _ => None,
    }
}

/// The documents that were there already; an error if that cannot be our own work, or anything else went wrong.
pub(crate) fn duplicates(reply: &Document, ours: bool) -> Result<u64, String> {
    let mut duplicates = 0;
    for error in reply
        .get_array("writeErrors")
        .into_iter()
        .flatten()
        .filter_map(Bson::as_document)
    {
        if ours && error.get_i32("code").is_ok_and(|c| c == code::DUPLICATE_KEY) {
            duplicates += 1;
        } else {
            return Err(error.get_str("errmsg").unwrap_or("no details").to_owned());
        }
    }
    Ok(duplicates)
}

pub(super) fn first_write_error(reply: &Document) -> Option<String> {
    duplicates(reply, false).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_there_already_is_ours_only_if_the_batch_was_sent_before() {
        let reply =
            doc! { "n": 1, "writeErrors": [{ "code": 11000, "errmsg": "dup" }, { "code": 11000, "errmsg": "dup" }] };
        assert_eq!(duplicates(&reply, true), Ok(2));
        assert_eq!(duplicates(&reply, false), Err("dup".to_owned()));
        let reply = doc! { "n": 1, "writeErrors": [{ "code": 10334, "errmsg": "too large" }] };
        assert_eq!(duplicates(&reply, true), Err("too large".to_owned()));
        assert_eq!(duplicates(&doc! { "n": 1 }, false), Ok(0));
    }
}
