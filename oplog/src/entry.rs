//! The envelope of an oplog entry, decoded in one walk and without copies.

use headwater_model::{CollectionUuid, Optime, Ts};

use crate::raw::{self, BsonFault, Element};

/// An oplog entry, or an operation within an `applyOps`, as slices of its bytes.
///
/// Fields that say nothing about the data (`wall`, `v`, `h`, `stmtId`, `fromMigrate`, images …) are passed over.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it stands; [`Optime::ZERO`] for operations within an entry.
    pub position: Optime,
    /// What it does.
    pub op: Op,
    /// `db.collection`; only the database of a create matters, the rest goes by UUID.
    pub ns: &'a [u8],
    /// The collection.
    pub collection: Option<CollectionUuid>,
    /// The operation: a document, an update, a command.
    pub o: &'a [u8],
    /// Of an update: the document key.
    pub o2: Option<&'a [u8]>,
    /// The session, as the whole document.
    pub lsid: Option<&'a [u8]>,
    /// The number of the transaction or retryable write within the session.
    pub txn_number: Option<i64>,
    /// The entry before it in the same transaction: `Some(Ts::ZERO)` for the first.
    pub previous: Option<Ts>,
    /// Of an update within an `applyOps`: whether it is an upsert, if it says so.
    pub upsert: Option<bool>,
    /// An `applyOps` of a chain that stands for itself (vectored inserts of servers from 8.0 on).
    pub stands_alone: bool,
}

/// The kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `i`
    Insert,
    /// `u`
    Update,
    /// `d`
    Delete,
    /// `c`
    Command,
    /// `n`
    Noop,
    /// Anything else.
    Unknown,
}

impl<'a> Entry<'a> {
    /// Reads an entry or an inner operation.
    pub fn read(bytes: &'a [u8]) -> Result<Self, BsonFault> {
        let mut entry = Entry {
            position: Optime::ZERO,
            op: Op::Unknown,
            ns: &[],
            collection: None,
            o: &[],
            o2: None,
            lsid: None,
            txn_number: None,
            previous: None,
            upsert: None,
            stands_alone: false,
        };
        for field in raw::elements(bytes) {
            entry.take(field?)?;
        }
        if entry.o.is_empty() {
            return Err(BsonFault::NoField("o"));
        }
        Ok(entry)
    }

    fn take(&mut self, field: Element<'a>) -> Result<(), BsonFault> {
        match field.name {
            b"op" => self.op = Op::of(field.text()),
            b"ns" => self.ns = field.text().unwrap_or_default(),
            b"ui" => self.collection = field.uuid().map(CollectionUuid),
            b"o" => self.o = field.document().ok_or(BsonFault::NoField("o"))?,
            b"o2" => self.o2 = field.document(),
            b"ts" => self.position.ts = Ts(field.timestamp().ok_or(BsonFault::NoField("ts"))?),
            b"t" => self.position.term = field.number().ok_or(BsonFault::NoField("t"))?,
            b"lsid" => self.lsid = field.document(),
            b"txnNumber" => self.txn_number = field.number(),
            b"prevOpTime" => {
                let inner = field.document().ok_or(BsonFault::NoField("prevOpTime"))?;
                self.previous = raw::find(inner, "ts")?.and_then(|ts| ts.timestamp()).map(Ts);
            }
            b"b" => self.upsert = field.bool(),
            b"multiOpType" => self.stands_alone = field.number() == Some(1),
            _ => {}
        }
        Ok(())
    }

    /// The name of a command: the first field of `o`.
    pub fn command(&self) -> Result<Element<'a>, BsonFault> {
        raw::elements(self.o).next().ok_or(BsonFault::NoField("o"))?
    }
}

impl Op {
    fn of(text: Option<&[u8]>) -> Op {
        match text {
            Some(b"i") => Op::Insert,
            Some(b"u") => Op::Update,
            Some(b"d") => Op::Delete,
            Some(b"c") => Op::Command,
            Some(b"n") => Op::Noop,
            _ => Op::Unknown,
        }
    }
}

/// Only where an entry stands. An entry without term (protocol version 0) has -1.
pub fn position(entry: &[u8]) -> Result<Optime, BsonFault> {
    let (mut ts, mut term) = (None, None);
    for field in raw::elements(entry) {
        let field = field?;
        match field.name {
            b"ts" => ts = field.timestamp(),
            b"t" => term = field.number(),
            _ => continue,
        }
        if let (Some(ts), Some(term)) = (ts, term) {
            return Ok(Optime::new(Ts(ts), term));
        }
    }
    Ok(Optime::new(Ts(ts.ok_or(BsonFault::NoField("ts"))?), -1))
}
