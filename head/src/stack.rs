//! What the runs of a stack say together about one key.

use bytes::Bytes;
use headwater_model::CollectionUuid;
use headwater_oplog::key::DocumentKey;
use headwater_oplog::record::{Place, Record, Settled};

use crate::error::HeadError;
use crate::merge::Value;

/// The values of one key, from oldest to newest, as one record.
pub(crate) fn composed(
    collection: CollectionUuid,
    key: &Bytes,
    oldest: Value<Record>,
    newer: Vec<(usize, Value<Record>)>,
) -> Result<Record, HeadError> {
    let mut record = record_of(collection, oldest)?;
    for (_, value) in newer {
        record = compose(collection, key, record, record_of(collection, value)?)?;
    }
    Ok(record)
}

/// [`Record::compose`], with the place named in the error.
pub(crate) fn compose(
    collection: CollectionUuid,
    key: &Bytes,
    older: Record,
    newer: Record,
) -> Result<Record, HeadError> {
    let key = || DocumentKey(key.clone());
    Record::compose(older, newer).map_err(|fault| HeadError::Change {
        collection,
        key: key(),
        fault,
    })
}

/// [`Record::settle`], with the place named in the error.
pub(crate) fn settled(collection: CollectionUuid, key: &Bytes, record: Record) -> Result<Settled, HeadError> {
    let key = || DocumentKey(key.clone());
    record.settle().map_err(|fault| HeadError::Change {
        collection,
        key: key(),
        fault,
    })
}

/// Decodes a stored value; its documents are slices of it.
pub(crate) fn decoded(collection: CollectionUuid, value: &Bytes) -> Result<Record, HeadError> {
    Record::decode_shared(value).map_err(|fault| HeadError::Record { collection, fault })
}

fn record_of(collection: CollectionUuid, value: Value<Record>) -> Result<Record, HeadError> {
    match value {
        Value::Stored(bytes) => decoded(collection, &bytes),
        Value::Memory(record) => Ok(record),
    }
}

/// The record of a document at the bottom of a stack.
pub(crate) fn bottom(doc: Bytes, place: u64, capped: bool) -> Record {
    Record::Document {
        doc,
        place: if capped { Place::Keep(place) } else { Place::None },
    }
}
