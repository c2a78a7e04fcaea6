use bson::{Document, doc};
use headwater_protocol::admin::Rename;

use super::*;

fn collection(name: &str, options: Document) -> CollectionAtT {
    let mut uuid = [0; 16];
    uuid[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    CollectionAtT {
        namespace: Namespace::parse(name).unwrap(),
        uuid: CollectionUuid(uuid),
        options,
        indexes: Vec::new(),
        documents: 1,
        bytes: 10,
    }
}

fn backup() -> (Vec<CollectionAtT>, Vec<ViewAtT>) {
    let mut collections: Vec<_> = [
        "shop.orders",
        "shop.people",
        "shop.system.views",
        "shop.system.js",
        "shop.system.profile",
        "shop.system.drop.1i1t1.gone",
        "crm.people",
        "admin.system.users",
        "admin.system.roles",
        "admin.system.version",
        "admin.system.keys",
        "admin.notes",
        "config.settings",
        "config.transactions",
        "config.chunks",
        "config.system.sessions",
        "local.oplog.rs",
    ]
    .into_iter()
    .map(|name| collection(name, doc! {}))
    .collect();
    collections.push(collection("shop.tmp.agg_out.1", doc! { "temp": true }));
    collections.push(collection(
        "shop.system.buckets.ts",
        doc! { "timeseries": { "timeField": "t" } },
    ));
    let view = |name: &str, on: &str, pipeline: Document| {
        ViewAtT::read(&doc! { "_id": name, "viewOn": on, "pipeline": [pipeline] }).unwrap()
    };
    let views = vec![
        view(
            "shop.open",
            "orders",
            doc! { "$lookup": { "from": "people", "pipeline": [{ "$unionWith": "orders" }] } },
        ),
        view("shop.ts", "system.buckets.ts", doc! { "$_internalUnpackBucket": {} }),
        view(
            "shop.lost",
            "system.buckets.lost",
            doc! { "$_internalUnpackBucket": {} },
        ),
    ];
    (collections, views)
}

fn chosen(include: &[&str], renames: &[(&str, &str)], with_users: bool) -> Result<Chosen, NamingFault> {
    let include: Vec<_> = include.iter().map(|s| s.to_string()).collect();
    let renames: Vec<_> = renames
        .iter()
        .map(|(f, t)| Rename {
            from: f.to_string(),
            to: t.to_string(),
        })
        .collect();
    let (collections, views) = backup();
    choose(collections, views, &Selection::new(&include, &renames, with_users)?)
}

fn pairs(chosen: &Chosen) -> Vec<String> {
    let text = |i: &Item| {
        if i.from == i.to {
            i.to.to_string()
        } else {
            format!("{} -> {}", i.from, i.to)
        }
    };
    chosen.items.iter().map(text).collect()
}

#[test]
fn without_patterns_everything_of_the_user_is_restored_and_nothing_of_the_server() {
    let all = chosen(&[], &[], false).unwrap();
    assert_eq!(
        pairs(&all),
        [
            "admin.notes",
            "config.settings",
            "crm.people",
            "shop.open",
            "shop.orders",
            "shop.people",
            "shop.system.js",
            "shop.ts",
        ]
    );
    assert_eq!(
        all.notes,
        ["shop.lost is left out: its buckets are missing in the backup"]
    );
}

#[test]
fn users_and_roles_come_only_when_asked_for() {
    let with = pairs(&chosen(&["crm.*"], &[], true).unwrap());
    assert_eq!(
        with,
        [
            "admin.system.roles",
            "admin.system.users",
            "admin.system.version",
            "crm.people"
        ]
    );
}

#[test]
fn renaming_a_database_takes_views_and_time_series_along() {
    let renamed = chosen(&["shop.*"], &[("shop.*", "shop2.*")], false).unwrap();
    let item = |name: &str| renamed.items.iter().find(|i| i.to.to_string() == name).unwrap();
    assert_eq!(item("shop2.ts").to_data().to_string(), "shop2.system.buckets.ts");
    assert_eq!(item("shop2.system.js").kind, Kind::Collection);
    let Kind::View(view) = &item("shop2.open").kind else {
        panic!("no view")
    };
    assert_eq!(view.view_on, "orders");
}

#[test]
fn what_a_view_reads_is_renamed_within_it() {
    let renames = [("shop.orders", "shop.bills"), ("shop.people", "shop.staff")];
    let renamed = chosen(&["shop.*"], &renames, false).unwrap();
    let view = renamed.items.iter().find(|i| i.from.coll == "open").unwrap();
    let Kind::View(view) = &view.kind else {
        panic!("no view")
    };
    assert_eq!(view.view_on, "bills");
    let expected = doc! { "$lookup": { "from": "staff", "pipeline": [{ "$unionWith": "bills" }] } };
    assert_eq!(view.pipeline, [bson::Bson::Document(expected)]);
}

#[test]
fn a_view_torn_from_what_it_reads_is_refused() {
    let fault = chosen(&[], &[("shop.orders", "old.orders")], false).unwrap_err();
    assert!(matches!(fault, NamingFault::ViewTorn { .. }), "{fault}");
}

#[test]
fn two_collections_under_one_name_are_refused() {
    let fault = chosen(&["shop.people", "crm.*"], &[("shop.people", "crm.people")], false).unwrap_err();
    assert!(matches!(fault, NamingFault::TwoToOne { .. }), "{fault}");
    let fault = chosen(&["shop.orders", "crm.*"], &[("shop.*", "CRM.*")], false).unwrap_err();
    assert!(matches!(fault, NamingFault::CaseOnly { .. }), "{fault}");
}

#[test]
fn a_pattern_that_means_nothing_is_refused_with_names_there_are() {
    for (include, renames) in [
        (&["shop.order"][..], &[][..]),
        (&["local.*"], &[]),
        (&["admin.system.users"], &[]),
        (&["shop.system.buckets.ts"], &[]),
        (&["crm.*"], &[("shop.*", "shop2.*")]),
    ] {
        let fault = chosen(include, renames, false).unwrap_err();
        assert!(fault.to_string().contains("admin.notes"), "{fault}");
    }
}

#[test]
fn names_no_server_takes_are_refused() {
    for to in [
        "local.x",
        "config.x",
        "shop.system.users",
        "a b.x",
        "shop.a$b",
        &format!("{}.x", "d".repeat(64)),
    ] {
        let fault = chosen(&["crm.people"], &[("crm.people", to)], false).unwrap_err();
        assert!(matches!(fault, NamingFault::Target { .. }), "{to}: {fault}");
    }
}
