//! Changes of a collection's catalog entry: its options and its index specs, as listCollections and listIndexes would
//! give them afterwards. Pure functions on raw documents; the receiver of [`crate::Effect`]s keeps the results.

mod fields;
mod modify;

use bytes::Bytes;

use crate::raw::{self, BsonFault, Element, Writer, kind};

pub use modify::{Modified, modified};

/// The index specs of a collection that was just created, from its options and the spec its entry carried.
pub fn initial_indexes(options: &[u8], id_index: Option<&[u8]>) -> Result<Vec<Bytes>, BsonFault> {
    if let Some(spec) = id_index {
        return Ok(vec![Bytes::copy_from_slice(spec)]);
    }
    match raw::find(options, "clusteredIndex")? {
        Some(Element {
            kind: kind::DOCUMENT,
            value,
            ..
        }) => return Ok(vec![Bytes::copy_from_slice(value)]),
        Some(clustered) if clustered.is_true() => return Ok(Vec::new()),
        _ => {}
    }
    if raw::find(options, "autoIndexId")?.is_some_and(|auto| !auto.is_true()) {
        return Ok(Vec::new());
    }
    Ok(vec![id_index_v1()?])
}

/// `{v: 1, key: {_id: 1}, name: "_id_"}`: what an entry without `idIndex` implies.
fn id_index_v1() -> Result<Bytes, BsonFault> {
    let one = 1i32.to_le_bytes();
    let mut out = Vec::new();
    let writer = Writer::begin(&mut out);
    raw::element(
        &mut out,
        Element {
            kind: kind::INT32,
            name: b"v",
            value: &one,
        },
    );
    raw::name(&mut out, kind::DOCUMENT, b"key");
    let key = Writer::begin(&mut out);
    raw::element(
        &mut out,
        Element {
            kind: kind::INT32,
            name: b"_id",
            value: &one,
        },
    );
    key.end(&mut out)?;
    raw::element(
        &mut out,
        Element {
            kind: kind::STRING,
            name: b"name",
            value: b"\x05\0\0\0_id_\0",
        },
    );
    writer.end(&mut out)?;
    Ok(out.into())
}

/// The options after a rename: no longer temporary, unless it is to stay so.
pub fn renamed(options: &Bytes, stay_temp: bool) -> Result<Bytes, BsonFault> {
    if stay_temp {
        return Ok(options.clone());
    }
    Ok(raw::filtered(options, |option| option.name != b"temp")?.into())
}

/// Whether the collection is temporary: to be left out of a restore.
pub fn is_temporary(options: &[u8]) -> Result<bool, BsonFault> {
    Ok(raw::find(options, "temp")?.is_some_and(|temp| temp.is_true()))
}

/// The name of an index spec.
pub fn index_name(spec: &[u8]) -> Result<&str, BsonFault> {
    raw::find(spec, "name")?
        .ok_or(BsonFault::NoField("name"))?
        .str()
        .ok_or(BsonFault::Text)
}

/// Adds the specs whose names are free.
pub fn add_indexes(indexes: &mut Vec<Bytes>, specs: &[Bytes]) -> Result<(), BsonFault> {
    for spec in specs {
        if position(indexes, index_name(spec)?)?.is_none() {
            indexes.push(Bytes::copy_from_slice(spec));
        }
    }
    Ok(())
}

/// Removes the index of that name, if there is one.
pub fn drop_index(indexes: &mut Vec<Bytes>, name: &str) -> Result<(), BsonFault> {
    if let Some(at) = position(indexes, name)? {
        indexes.remove(at);
    }
    Ok(())
}

fn position(indexes: &[Bytes], name: &str) -> Result<Option<usize>, BsonFault> {
    for (at, spec) in indexes.iter().enumerate() {
        if index_name(spec)? == name {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// The bounds of a capped collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capped {
    /// The most bytes of all documents together.
    pub size: u64,
    /// The most documents; 0 without bound.
    pub max: u64,
}

impl Capped {
    /// The bounds in these options; `None` when the collection is not capped.
    pub fn of(options: &[u8]) -> Result<Option<Capped>, BsonFault> {
        if !raw::find(options, "capped")?.is_some_and(|capped| capped.is_true()) {
            return Ok(None);
        }
        let number = |name| {
            let number = raw::find(options, name)?
                .and_then(|number| number.number())
                .unwrap_or(0);
            Ok::<_, BsonFault>(u64::try_from(number).unwrap_or(0))
        };
        Ok(Some(Capped {
            // As the server rounds what it was asked for.
            size: number("size")?.next_multiple_of(256).max(4096),
            max: number("max")?,
        }))
    }

    /// How many of the oldest documents fall out, given the bytes of each, newest first: what servers before 5.0 do
    /// after every insert without logging it. The newest always stays.
    pub fn overflow(&self, newest_first: impl Iterator<Item = u64>) -> u64 {
        let (mut bytes, mut kept, mut total) = (0u64, 0u64, 0u64);
        let mut full = false;
        for size in newest_first {
            total += 1;
            bytes = bytes.saturating_add(size);
            full |= total > 1 && (bytes > self.size || self.max > 0 && total > self.max);
            kept += u64::from(!full);
        }
        total - kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_fall_out_of_a_full_capped_collection() {
        let capped = Capped { size: 100, max: 3 };
        assert_eq!(capped.overflow([40, 40].into_iter()), 0);
        assert_eq!(capped.overflow([40, 40, 40].into_iter()), 1);
        assert_eq!(capped.overflow([1, 1, 1, 1, 1].into_iter()), 2);
        assert_eq!(
            capped.overflow([200, 1].into_iter()),
            1,
            "one that is larger than all stays alone"
        );
    }
}
