//! A time-series collection as its user sees it, from the buckets that hold it. Pure.

use bson::{Bson, Document};

/// Options for creating the collection, from the options of its buckets: what the server derives is left out.
pub fn seen_options(buckets: &Document) -> Document {
    buckets
        .iter()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "validator" | "clusteredIndex" | "validationLevel" | "validationAction"
            )
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// An index as the user defined it, from an index of the buckets; `None` for one no user can have made.
pub fn seen_index(buckets: &Document, index: &Document) -> Option<Document> {
    if let Ok(original) = index.get_document("originalSpec") {
        return Some(original.clone());
    }
    let meta_field = buckets.get_document("timeseries").ok()?.get_str("metaField").ok();
    let key = seen_key(meta_field, index.get_document("key").ok()?)?;
    let mut seen = index.clone();
    seen.insert("key", key);
    Some(seen)
}

/// `meta.x` is the user's meta field; a field `t` lies as a pair: `control.min.t, control.max.t` when ascending, the
/// other way round when descending; a measured place is `data.t: "2dsphere_bucket"`.
fn seen_key(meta_field: Option<&str>, key: &Document) -> Option<Document> {
    let mut seen = Document::new();
    let mut parts = key.iter();
    while let Some((name, value)) = parts.next() {
        if name == "meta" || name.starts_with("meta.") {
            seen.insert(format!("{}{}", meta_field?, &name["meta".len()..]), value.clone());
        } else if let Some(field) = name.strip_prefix("data.") {
            (*value == Bson::String("2dsphere_bucket".to_owned())).then_some(())?;
            seen.insert(field, "2dsphere");
        } else {
            let (field, partner) = match (name.strip_prefix("control.min."), name.strip_prefix("control.max.")) {
                (Some(field), _) => (field, format!("control.max.{field}")),
                (_, Some(field)) => (field, format!("control.min.{field}")),
                _ => return None,
            };
            (*parts.next()?.0 == partner).then_some(())?;
            seen.insert(field, value.clone());
        }
    }
    Some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn buckets() -> Document {
        doc! {
            "validator": {}, "clusteredIndex": true, "expireAfterSeconds": 3600_i64,
            "timeseries": { "timeField": "t", "metaField": "m", "granularity": "minutes", "bucketMaxSpanSeconds": 86400 },
        }
    }

    #[test]
    fn what_the_server_derives_is_left_out_of_the_options() {
        let names: Vec<_> = seen_options(&buckets()).keys().cloned().collect();
        assert_eq!(names, ["expireAfterSeconds", "timeseries"]);
    }

    #[test]
    fn indexes_of_buckets_are_seen_as_their_user_defined_them() {
        for (stored, seen) in [
            (doc! { "meta": 1 }, Some(doc! { "m": 1 })),
            (doc! { "meta.a.b": -1 }, Some(doc! { "m.a.b": -1 })),
            (doc! { "control.min.t": 1, "control.max.t": 1 }, Some(doc! { "t": 1 })),
            (
                doc! { "meta": 1, "control.max.t": -1, "control.min.t": -1, "meta.z": 1 },
                Some(doc! { "m": 1, "t": -1, "m.z": 1 }),
            ),
            (doc! { "data.loc": "2dsphere_bucket" }, Some(doc! { "loc": "2dsphere" })),
            (doc! { "meta": "hashed" }, Some(doc! { "m": "hashed" })),
            (doc! { "control.min.t": 1 }, None),
            (doc! { "data.loc": 1 }, None),
            (doc! { "other": 1 }, None),
        ] {
            let index = doc! { "v": 2, "key": stored.clone(), "name": "i" };
            let expected = seen.map(|key| doc! { "v": 2, "key": key, "name": "i" });
            assert_eq!(seen_index(&buckets(), &index), expected, "{stored}");
        }
    }

    #[test]
    fn an_index_that_carries_its_original_is_seen_as_that() {
        let original = doc! { "key": { "a": 1 }, "name": "i", "partialFilterExpression": { "a": { "$gt": 1 } } };
        let index =
            doc! { "v": 2, "key": { "control.min.a": 1, "control.max.a": 1 }, "originalSpec": original.clone() };
        assert_eq!(seen_index(&buckets(), &index), Some(original));
    }
}
