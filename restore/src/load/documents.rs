//! Writes the documents of a collection that is there, and counts them.

use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Bson, Document, doc};
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use headwater_model::Namespace;

use super::batch::{self, Batch, Batcher};
use super::create::Making;
use super::cursor::{Arrived, Watermark};
use super::target::code;
use super::{Load, LoadFault, Stage};
use crate::naming::Item;
use crate::source::{CollectionAtT, Row, Rows, SourceFault};

impl Load<'_> {
    pub(super) async fn documents(&self, item: &Item, _: &Making) -> Result<(), LoadFault> {
        // Anything else was counted before: all collections were begun.
        let (Some(data), Some(Stage::Documents { uuid, .. })) = (&item.data, self.ledger.stage(&item.to)) else {
            return Ok(());
        };
        let (documents, bytes) = self.copy(item, data).await?;
        self.count(&item.to_data(), documents).await?;
        let counted = Stage::Counted { documents, bytes, uuid };
        self.ledger.advance(&item.to, counted).await
    }

    async fn copy(&self, item: &Item, data: &CollectionAtT) -> Result<(u64, u64), LoadFault> {
        let Some(Stage::Documents {
            after,
            documents,
            bytes,
            uuid,
        }) = self.ledger.stage(&item.to)
        else {
            return Ok((0, 0));
        };
        let after = after.map(hex::decode).transpose();
        let after = after.map_err(|e| LoadFault::Keep(format!("the cursor is damaged: {e}")))?;
        let after = after.map(Bytes::from);
        let mut watermark = Watermark::new(after.clone(), documents, bytes, uuid);
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
            .map(|batch| async { self.send(&to, data.is_capped(), batch?).await })
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

    async fn send(&self, to: &Namespace, is_capped: bool, batch: Batch) -> Result<Arrived, LoadFault> {
        let unusable = |e: bson::error::Error| SourceFault::Document {
            namespace: to.clone(),
            detail: e.to_string(),
        };
        // The semaphore is never closed; without a permit nothing worse happens than one writer more.
        let _permit = self.writers.acquire().await;
        let command = batch::insert(&to.coll, &batch.documents).map_err(unusable)?;
        let sent = self.target.run_raw(&to.db, &command).await;
        let (reply, repeated) = sent.map_err(|e| self.target.fault(&format!("documents of {to}"), &e))?;
        // A capped collection is begun anew whenever the load is: what is there already came from another daemon that does
        // not know yet that it is over, and the order is no longer ours.
        let duplicates = duplicates(&reply, repeated || self.resumed && !is_capped).map_err(|detail| {
            if self.resumed && is_capped {
                return self.target.interrupted(&format!("{to} is begun anew: {detail}"));
            }
            LoadFault::Refused {
                what: format!("documents of {to}"),
                detail,
            }
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
