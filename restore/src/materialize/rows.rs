//! The documents of a collection in the order they are given back: by key, or in the order of insertion.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_head::{Head, HeadError, Scan};
use headwater_model::{CollectionUuid, limits};
use headwater_store::objects::StoreError;

use crate::source::{Row, Rows, SourceFault};

/// Documents of a capped collection put into order at once.
const CAPPED_BYTES: usize = 64 * limits::MIB;

pub(super) fn backup(e: HeadError) -> SourceFault {
    match e {
        HeadError::Store(e @ (StoreError::Unavailable { .. } | StoreError::Full(_))) => {
            SourceFault::Away(e.to_string())
        }
        other => SourceFault::Backup(other.to_string()),
    }
}

/// In the order of keys.
pub(super) struct KeyedRows {
    scan: Scan,
    after: Option<Bytes>,
}

impl KeyedRows {
    /// `scan` begins at `after`, or at the first document.
    pub fn new(scan: Scan, after: Option<Bytes>) -> Self {
        KeyedRows { scan, after }
    }
}

#[async_trait]
impl Rows for KeyedRows {
    async fn next_batch(&mut self) -> Result<Vec<Row>, SourceFault> {
        loop {
            let batch = self.scan.next_batch().await.map_err(backup)?;
            let ended = batch.is_empty();
            let rows: Vec<_> = batch
                .into_iter()
                // A scan begins at a key, we go on after it.
                .filter(|(key, ..)| self.after.as_ref() != Some(&key.0))
                .map(|(key, doc, _)| Row { key: key.0, doc })
                .collect();
            if ended || !rows.is_empty() {
                return Ok(rows);
            }
        }
    }
}

type Place = (u64, Bytes);

/// In the order of insertion. Each pass over the collection picks the next documents that fit the budget: a collection
/// below it takes one pass, a larger one as many as it is larger.
pub(super) struct CappedRows<'a> {
    head: &'a Head,
    uuid: CollectionUuid,
    last: Option<Place>,
    waiting: BTreeMap<Place, Bytes>,
    ended: bool,
    budget: usize,
}

impl<'a> CappedRows<'a> {
    /// Documents after the one with the row key `after`, or all.
    pub fn new(head: &'a Head, uuid: CollectionUuid, after: Option<Bytes>) -> Self {
        let last = after.as_deref().and_then(place_and_key);
        CappedRows {
            head,
            uuid,
            last,
            waiting: BTreeMap::new(),
            ended: false,
            budget: CAPPED_BYTES,
        }
    }

    #[cfg(test)]
    pub fn with_budget(self, budget: usize) -> Self {
        CappedRows { budget, ..self }
    }

    async fn pass(&mut self) -> Result<(), HeadError> {
        let mut scan = self.head.scan(self.uuid, None)?;
        let mut bytes = 0;
        self.ended = true;
        loop {
            let batch = scan.next_batch().await?;
            if batch.is_empty() {
                return Ok(());
            }
            for (key, doc, place) in batch {
                let at = (place, key.0);
                if self.last.as_ref().is_some_and(|last| at <= *last) {
                    continue;
                }
                bytes += doc.len();
                self.waiting.insert(at, doc);
                while bytes > self.budget && self.waiting.len() > 1 {
                    if let Some((_, latest)) = self.waiting.pop_last() {
                        bytes -= latest.len();
                    }
                    self.ended = false;
                }
            }
        }
    }
}

#[async_trait]
impl Rows for CappedRows<'_> {
    async fn next_batch(&mut self) -> Result<Vec<Row>, SourceFault> {
        if self.waiting.is_empty() && !self.ended {
            self.pass().await.map_err(backup)?;
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < limits::MIB
            && let Some((at, doc)) = self.waiting.pop_first()
        {
            bytes += doc.len();
            rows.push(Row {
                key: [&at.0.to_be_bytes()[..], &at.1].concat().into(),
                doc,
            });
            self.last = Some(at);
        }
        Ok(rows)
    }
}

fn place_and_key(row_key: &[u8]) -> Option<Place> {
    let (place, key) = row_key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*place), Bytes::copy_from_slice(key)))
}
