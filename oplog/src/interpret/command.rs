//! Commands: collections and indexes come, change and go.
//!
//! The command is the first field of `o`; other fields may be noise. One that is not known stops the stream: to skip it
//! would be to guess.

use bytes::Bytes;
use headwater_model::{CollectionUuid, Namespace};

use super::EntryProblem;
use crate::effect::Effect;
use crate::entry::Entry;
use crate::raw::{self, Element, kind};

/// Appends the effects of a command other than those of transactions; slices are of `bytes`.
pub fn interpret(bytes: &Bytes, entry: &Entry<'_>, effects: &mut Vec<Effect>) -> Result<(), EntryProblem> {
    let name = entry.command()?;
    let command = Command { entry, name };
    match name.name {
        b"create" => effects.push(command.create()?),
        b"drop" => effects.push(Effect::Drop {
            collection: command.uuid()?,
        }),
        b"renameCollection" => effects.push(command.rename()?),
        b"createIndexes" => effects.push(command.create_indexes()?),
        b"commitIndexBuild" => effects.push(command.commit_index_build()?),
        b"dropIndexes" | b"deleteIndexes" | b"deleteIndex" | b"dropIndex" => {
            let index = command.field("index")?.str().ok_or_else(|| command.amiss("index"))?;
            effects.push(Effect::DropIndex {
                collection: command.uuid()?,
                name: index.to_owned(),
            });
        }
        b"collMod" => effects.push(Effect::CollMod {
            collection: command.uuid()?,
            body: bytes.slice_ref(entry.o),
        }),
        b"emptycapped" => effects.push(Effect::Clear {
            collection: command.uuid()?,
        }),
        // A dropDatabase follows the drops of its collections; index builds count when they commit; the rest tells of
        // things a logical copy has not.
        b"dropDatabase"
        | b"startIndexBuild"
        | b"abortIndexBuild"
        | b"dbCheck"
        | b"modifyCollectionShardingIndexCatalog"
        | b"createDatabaseMetadata"
        | b"dropDatabaseMetadata" => {}
        b"importCollection" | b"convertToCapped" => return Err(EntryProblem::OutsideData(command.text())),
        // An abort or a commit that belongs to no session never was written by a server.
        _ => return Err(EntryProblem::UnknownCommand(command.text())),
    }
    Ok(())
}

struct Command<'a> {
    entry: &'a Entry<'a>,
    name: Element<'a>,
}

impl<'a> Command<'a> {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.name.name).into_owned()
    }

    fn amiss(&self, field: &'static str) -> EntryProblem {
        EntryProblem::Shape {
            command: self.text(),
            field,
        }
    }

    fn field(&self, name: &'static str) -> Result<Element<'a>, EntryProblem> {
        raw::find(self.entry.o, name)?.ok_or_else(|| self.amiss(name))
    }

    fn uuid(&self) -> Result<CollectionUuid, EntryProblem> {
        self.entry.collection.ok_or(EntryProblem::NoUuid)
    }

    fn create(&self) -> Result<Effect, EntryProblem> {
        let db = std::str::from_utf8(self.entry.ns)
            .ok()
            .and_then(|ns| ns.split_once('.'))
            .map(|(db, _)| db);
        let db = db.ok_or_else(|| self.amiss("ns"))?;
        let collection_name = self.name.str().ok_or_else(|| self.amiss("create"))?;
        let id_index = raw::find(self.entry.o, "idIndex")?.and_then(|spec| spec.document());
        let mut at = 0;
        let options = raw::filtered(self.entry.o, |option| {
            at += 1;
            at > 1 && option.name != b"idIndex"
        })?;
        Ok(Effect::Create {
            collection: self.uuid()?,
            namespace: Namespace::new(db, collection_name),
            options: options.into(),
            id_index: id_index.map(without_ns).transpose()?,
        })
    }

    fn rename(&self) -> Result<Effect, EntryProblem> {
        let to = self
            .field("to")?
            .str()
            .and_then(Namespace::parse)
            .ok_or_else(|| self.amiss("to"))?;
        let drop_target = match raw::find(self.entry.o, "dropTarget")? {
            Some(target) if target.kind == kind::BINARY => {
                Some(CollectionUuid(target.uuid().ok_or_else(|| self.amiss("dropTarget"))?))
            }
            // A drop by name: no supported server writes it.
            Some(target) if target.is_true() => return Err(self.amiss("dropTarget")),
            _ => None,
        };
        let stay_temp = raw::find(self.entry.o, "stayTemp")?.is_some_and(|stay| stay.is_true());
        Ok(Effect::Rename {
            collection: self.uuid()?,
            to,
            drop_target,
            stay_temp,
        })
    }

    /// The spec stands in the command itself.
    fn create_indexes(&self) -> Result<Effect, EntryProblem> {
        self.field("key")?;
        self.field("name")?;
        let mut at = 0;
        let spec = raw::filtered(self.entry.o, |field| {
            at += 1;
            at > 1 && field.name != b"ns"
        })?;
        Ok(Effect::CreateIndexes {
            collection: self.uuid()?,
            specs: vec![spec.into()],
        })
    }

    fn commit_index_build(&self) -> Result<Effect, EntryProblem> {
        let indexes = self.field("indexes")?.array().ok_or_else(|| self.amiss("indexes"))?;
        let mut specs = Vec::new();
        for spec in raw::elements(indexes) {
            specs.push(without_ns(spec?.document().ok_or_else(|| self.amiss("indexes"))?)?);
        }
        Ok(Effect::CreateIndexes {
            collection: self.uuid()?,
            specs,
        })
    }
}

/// Servers up to 4.2 write the namespace into every spec.
fn without_ns(spec: &[u8]) -> Result<Bytes, raw::BsonFault> {
    Ok(raw::filtered(spec, |field| field.name != b"ns")?.into())
}
