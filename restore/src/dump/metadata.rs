//! The text of `<collection>.metadata.json`. Pure.

use bson::{Bson, Document, doc};

use super::{EntryType, json};
use crate::naming::{Item, Kind};
use crate::timeseries;

/// Options, indexes, UUID, name and type of an item under its new name: canonical extended JSON in mongodump's order.
/// Parts of an index that no user can have defined make the index be left out.
pub fn metadata(item: &Item) -> String {
    let (options, indexes) = match (&item.kind, &item.data) {
        (Kind::View(view), _) => {
            let mut options = doc! { "viewOn": &view.view_on, "pipeline": Bson::Array(view.pipeline.clone()) };
            if let Some(collation) = &view.collation {
                options.insert("collation", collation.clone());
            }
            (options, Vec::new())
        }
        (Kind::TimeSeries, Some(buckets)) => {
            let indexes = buckets
                .indexes
                .iter()
                .filter_map(|i| timeseries::seen_index(&buckets.options, i))
                .collect();
            (timeseries::seen_options(&buckets.options), indexes)
        }
        (_, Some(collection)) => (collection.options.clone(), collection.indexes.clone()),
        (_, None) => (Document::new(), Vec::new()),
    };
    let mut out = String::from("{");
    if !options.is_empty() {
        out.push_str("\"options\":");
        json::document(&mut out, &options);
        out.push(',');
    }
    out.push_str("\"indexes\":");
    json::documents(&mut out, &indexes);
    if let (Some(uuid), false) = (item.uuid(), item.kind == Kind::TimeSeries) {
        out.push_str(&format!(",\"uuid\":\"{uuid}\""));
    }
    out.push_str(",\"collectionName\":");
    json::text(&mut out, &item.to.coll);
    out.push_str(&format!(",\"type\":\"{}\"}}", EntryType::of(item).text()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{CollectionAtT, ViewAtT};
    use headwater_model::{CollectionUuid, Namespace};

    fn item(kind: Kind, options: Document, indexes: Vec<Document>) -> Item {
        let from = Namespace::new("shop", "old");
        let data = CollectionAtT {
            namespace: from.clone(),
            uuid: CollectionUuid([0xab; 16]),
            options,
            indexes,
            documents: 0,
            bytes: 0,
        };
        let data = (!matches!(kind, Kind::View(_))).then_some(data);
        Item {
            from,
            to: Namespace::new("shop", "new"),
            kind,
            data,
        }
    }

    #[test]
    fn metadata_is_written_as_mongodump_does() {
        let id = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
        let plain = item(Kind::Collection, doc! {}, vec![id.clone()]);
        assert_eq!(
            metadata(&plain),
            r#"{"indexes":[{"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}},"name":"_id_"}],"uuid":"abababababababababababababababab","collectionName":"new","type":"collection"}"#
        );
        let capped = item(Kind::Collection, doc! { "capped": true, "size": 4096 }, vec![]);
        assert_eq!(
            metadata(&capped),
            r#"{"options":{"capped":true,"size":{"$numberInt":"4096"}},"indexes":[],"uuid":"abababababababababababababababab","collectionName":"new","type":"collection"}"#
        );
    }

    #[test]
    fn a_view_has_metadata_only() {
        let view = ViewAtT {
            namespace: Namespace::new("shop", "new"),
            view_on: "orders".into(),
            pipeline: vec![Bson::Document(doc! { "$match": {} })],
            collation: None,
        };
        assert_eq!(
            metadata(&item(Kind::View(view), doc! {}, vec![])),
            r#"{"options":{"viewOn":"orders","pipeline":[{"$match":{}}]},"indexes":[],"collectionName":"new","type":"view"}"#
        );
    }

    #[test]
    fn a_time_series_collection_is_described_as_its_user_sees_it() {
        let options = doc! { "validator": {}, "clusteredIndex": true, "timeseries": { "timeField": "t" } };
        let index = doc! { "key": { "control.min.t": 1, "control.max.t": 1 }, "name": "t_1" };
        assert_eq!(
            metadata(&item(Kind::TimeSeries, options, vec![index])),
            r#"{"options":{"timeseries":{"timeField":"t"}},"indexes":[{"key":{"t":{"$numberInt":"1"}},"name":"t_1"}],"collectionName":"new","type":"timeseries"}"#
        );
    }
}
