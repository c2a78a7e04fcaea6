//! Documents of `system.views`, which the role `backup` may not read, rebuilt from what listCollections tells.

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use bson::raw::cstr;

use crate::source::SourceError;

/// The document for a view or a time-series collection; `None` for anything else.
///
/// A time-series collection is a view, too; what its document looks like was read from real servers: 5.0 writes
/// `exclude: []` into the stage, 6.0 does not.
pub fn document(db: &str, item: &RawDocument, server_version: &str) -> Result<Option<RawDocumentBuf>, SourceError> {
    let name = item.get_str("name").map_err(SourceError::answer)?;
    let empty = RawDocumentBuf::new();
    let options = item.get_document("options").unwrap_or(&empty);
    let id = format!("{db}.{name}");
    let mut view = match item.get_str("type").unwrap_or("collection") {
        "view" => {
            let on = options.get_str("viewOn").map_err(SourceError::answer)?;
            let pipeline = options.get_array("pipeline").map_err(SourceError::answer)?;
            rawdoc! { "_id": id, "viewOn": on, "pipeline": pipeline.to_owned() }
        }
        "timeseries" => {
            let series = options.get_document("timeseries").map_err(SourceError::answer)?;
            let mut pipeline = RawArrayBuf::new();
            pipeline.push(rawdoc! { "$_internalUnpackBucket": unpack(series, server_version)? });
            rawdoc! { "_id": id, "viewOn": format!("system.buckets.{name}"), "pipeline": pipeline }
        }
        _ => return Ok(None),
    };
    if let Ok(collation) = options.get_document("collation") {
        view.append(cstr!("collation"), collation);
    }
    Ok(Some(view))
}

fn unpack(series: &RawDocument, server_version: &str) -> Result<RawDocumentBuf, SourceError> {
    let mut stage = RawDocumentBuf::new();
    for name in [cstr!("timeField"), cstr!("metaField"), cstr!("bucketMaxSpanSeconds")] {
        if let Some(value) = series.get(name).map_err(SourceError::answer)? {
            stage.append(name, value);
        }
    }
    if major(server_version) < 6 {
        stage.append(cstr!("exclude"), RawArrayBuf::new());
    }
    Ok(stage)
}

/// The first number of a server version; 0 when it has none.
pub fn major(server_version: &str) -> u32 {
    server_version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_pipeline_and_collation_in_the_order_of_the_server() {
        let item = rawdoc! {
            "name": "v", "type": "view",
            "options": { "viewOn": "x", "pipeline": [{ "$match": { "a": 1 } }], "collation": { "locale": "de" } },
        };
        let view = rawdoc! {
            "_id": "d.v", "viewOn": "x", "pipeline": [{ "$match": { "a": 1 } }], "collation": { "locale": "de" },
        };
        assert_eq!(document("d", &item, "6.0.5").unwrap(), Some(view));
    }

    #[test]
    fn a_time_series_is_a_view_of_its_buckets_as_each_version_writes_it() {
        let item = rawdoc! {
            "name": "a", "type": "timeseries", "options": {
                "expireAfterSeconds": 9_i64,
                "timeseries": { "timeField": "t", "metaField": "m", "granularity": "hours", "bucketMaxSpanSeconds": 2592000 },
            },
        };
        let six = rawdoc! { "timeField": "t", "metaField": "m", "bucketMaxSpanSeconds": 2592000 };
        let five = rawdoc! { "timeField": "t", "metaField": "m", "bucketMaxSpanSeconds": 2592000, "exclude": [] };
        for (version, stage) in [("6.0.5", six), ("5.0.4", five)] {
            let view = rawdoc! {
                "_id": "d.a", "viewOn": "system.buckets.a", "pipeline": [{ "$_internalUnpackBucket": stage }],
            };
            assert_eq!(document("d", &item, version).unwrap(), Some(view), "{version}");
        }
    }

    #[test]
    fn a_collection_is_no_view() {
        assert_eq!(document("d", &rawdoc! { "name": "c", "type": "collection", "options": {} }, "6.0.5").unwrap(), None);
    }
}
