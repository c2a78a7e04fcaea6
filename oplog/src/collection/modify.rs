//! `collMod`, with the habits of each server version (`reference/oplog.md` §2.3).

use bytes::Bytes;

use super::fields::Fields;
use crate::raw::{self, BsonFault, EMPTY_DOCUMENT, Element, kind};
use crate::version::SourceVersion;

/// A collection's catalog entry after a `collMod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modified {
    /// The options.
    pub options: Bytes,
    /// The index specs, in their old order.
    pub indexes: Vec<Bytes>,
}

/// What `body` makes of options and indexes on a server of that version.
pub fn modified(version: SourceVersion, options: &[u8], indexes: &[Bytes], body: &[u8]) -> Result<Modified, BsonFault> {
    let mut indexes = indexes.to_vec();
    let mut after = Fields::of(options)?;
    match raw::find(body, "recordPreImages")? {
        Some(record) if record.is_true() => {
            after.take(record);
            after.remove("changeStreamPreAndPostImages");
        }
        None if !version.coll_mod_resets_pre_images() => {}
        _ => after.remove("recordPreImages"),
    }
    for change in raw::elements(body).skip(1) {
        let change = change?;
        match change.name {
            b"index" => modify_index(&mut indexes, change.document().unwrap_or(&EMPTY_DOCUMENT))?,
            b"recordPreImages" => {}
            _ => modify_option(&mut after, change)?,
        }
    }
    Ok(Modified {
        options: after.write()?,
        indexes,
    })
}

const SECONDS_OF_GRANULARITY: [(&str, i32); 3] = [("seconds", 3_600), ("minutes", 86_400), ("hours", 2_592_000)];

fn modify_option<'a>(options: &mut Fields<'a>, change: Element<'a>) -> Result<(), BsonFault> {
    match change.name {
        b"cappedSize" => options.set("size", change.kind, change.value),
        b"cappedMax" => options.set("max", change.kind, change.value),
        b"validator" | b"validationLevel" | b"validationAction" => {
            if change.name == b"validator" && change.value == EMPTY_DOCUMENT {
                options.remove("validator");
            } else {
                options.take(change);
            }
            // The server writes the defaults of the others next to any of the three.
            for (name, text) in [("validationLevel", "strict"), ("validationAction", "error")] {
                if options.get(name).is_none() {
                    options.set(name, kind::STRING, bson_text(text));
                }
            }
        }
        b"changeStreamPreAndPostImages" => {
            let enabled = raw::find(change.document().unwrap_or(&EMPTY_DOCUMENT), "enabled")?;
            if enabled.is_some_and(|enabled| enabled.is_true()) {
                options.take(change);
            } else {
                options.remove("changeStreamPreAndPostImages");
            }
        }
        b"expireAfterSeconds" if change.str() == Some("off") => options.remove("expireAfterSeconds"),
        b"timeseries" => modify_timeseries(options, change.document().unwrap_or(&EMPTY_DOCUMENT))?,
        // Generic arguments, which a user's applyOps leaves in; and what listCollections does not show.
        b"lsid" | b"txnNumber" | b"writeConcern" | b"comment" | b"maxTimeMS" | b"dryRun" => {}
        b"timeseriesBucketsMayHaveMixedSchemaData" | b"timeseriesBucketingParametersHaveChanged" => {}
        [b'$', ..] => {}
        _ => options.take(change),
    }
    Ok(())
}

fn modify_timeseries(options: &mut Fields<'_>, change: &[u8]) -> Result<(), BsonFault> {
    let old = options
        .get("timeseries")
        .and_then(|old| old.document())
        .unwrap_or(&EMPTY_DOCUMENT)
        .to_vec();
    let mut timeseries = Fields::of(&old)?;
    for part in raw::elements(change) {
        timeseries.take(part?);
    }
    let granularity = raw::find(change, "granularity")?.and_then(|granularity| granularity.str());
    let seconds = SECONDS_OF_GRANULARITY
        .iter()
        .find(|(name, _)| Some(*name) == granularity);
    if let (Some((_, seconds)), None) = (seconds, raw::find(change, "bucketMaxSpanSeconds")?) {
        timeseries.set("bucketMaxSpanSeconds", kind::INT32, seconds.to_le_bytes().to_vec());
    }
    let written = timeseries.write()?.to_vec();
    options.set("timeseries", kind::DOCUMENT, written);
    Ok(())
}

fn bson_text(text: &str) -> Vec<u8> {
    let mut value = (text.len() as u32 + 1).to_le_bytes().to_vec();
    value.extend_from_slice(text.as_bytes());
    value.push(0);
    value
}

fn modify_index(indexes: &mut [Bytes], change: &[u8]) -> Result<(), BsonFault> {
    let name = raw::find(change, "name")?;
    let key = raw::find(change, "keyPattern")?;
    for spec in indexes {
        let meant = match (name, key) {
            (Some(name), _) => raw::find(spec, "name")?.is_some_and(|own| own.value == name.value),
            (None, Some(key)) => raw::find(spec, "key")?.is_some_and(|own| own.value == key.value),
            (None, None) => false,
        };
        if meant {
            let after = modified_index(spec, change)?;
            *spec = after;
        }
    }
    Ok(())
}

fn modified_index(spec: &[u8], change: &[u8]) -> Result<Bytes, BsonFault> {
    let mut after = Fields::of(spec)?;
    for part in raw::elements(change) {
        let part = part?;
        match part.name {
            b"expireAfterSeconds" => after.take(part),
            b"hidden" if part.is_true() => after.take(part),
            b"hidden" => after.remove("hidden"),
            b"prepareUnique" if part.is_true() => after.take(part),
            b"prepareUnique" => after.remove("prepareUnique"),
            b"unique" => {
                after.take(part);
                after.remove("prepareUnique");
            }
            _ => {}
        }
    }
    after.write()
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;

    /// (options before, collMod, options after), as four servers from 4.4.2 to 6.0.27 showed them.
    fn validation() -> Vec<(Document, Document, Document)> {
        vec![
            (
                doc! {},
                doc! { "validationLevel": "moderate" },
                doc! { "validationLevel": "moderate", "validationAction": "error" },
            ),
            (
                doc! {},
                doc! { "validationAction": "warn" },
                doc! { "validationAction": "warn", "validationLevel": "strict" },
            ),
            (
                doc! { "validationLevel": "off", "validationAction": "error" },
                doc! { "validator": {} },
                doc! { "validationLevel": "off", "validationAction": "error" },
            ),
            (
                doc! { "validator": { "a": 1 } },
                doc! { "validationLevel": "moderate" },
                doc! { "validator": { "a": 1 }, "validationLevel": "moderate", "validationAction": "error" },
            ),
            (
                doc! { "validator": { "a": 1 } },
                doc! { "validator": {}, "validationLevel": "moderate" },
                doc! { "validationLevel": "moderate", "validationAction": "error" },
            ),
        ]
    }

    #[test]
    fn any_change_of_validation_writes_the_defaults_of_the_rest() {
        for (before, change, after) in validation() {
            let mut body = doc! { "collMod": "c" };
            body.extend(change);
            let bytes = |document: &Document| document.to_vec().unwrap();
            let version = SourceVersion {
                major: 6,
                minor: 0,
                patch: 5,
            };
            let modified = modified(version, &bytes(&before), &[], &bytes(&body)).unwrap();
            let modified = Document::from_reader(&*modified.options).unwrap();
            let sorted = |document: Document| document.into_iter().collect::<std::collections::BTreeMap<_, _>>();
            assert_eq!(sorted(modified), sorted(after), "{before} after {body}");
        }
    }
}
