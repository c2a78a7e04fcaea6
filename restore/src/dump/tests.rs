//! The writer and the parser against each other, and both against bytes laid out by hand.

use std::sync::Arc;

use bson::{Document, doc};
use bytes::Bytes;
use futures::StreamExt;
use headwater_model::{CollectionUuid, Namespace};
use proptest::prelude::*;

use super::*;
use crate::naming::{Chosen, Selection, choose};
use crate::source::{CollectionAtT, Held, Source, ViewAtT};

fn collection(name: &str, options: Document) -> CollectionAtT {
    let mut uuid = [0; 16];
    uuid[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    CollectionAtT {
        namespace: Namespace::parse(name).unwrap(),
        uuid: CollectionUuid(uuid),
        options,
        indexes: Vec::new(),
        documents: 0,
        bytes: 0,
    }
}

fn raw(document: Document) -> Bytes {
    bson::serialize_to_vec(&document).unwrap().into()
}

fn choose_all(held: &Held, views: Vec<ViewAtT>) -> Chosen {
    choose(held.collections(), views, &Selection::new(&[], &[], true).unwrap()).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn written(held: Held, chosen: Chosen) -> Result<Vec<u8>, DumpFault> {
    run(async {
        let mut out = Vec::new();
        let mut chunks = std::pin::pin!(archive(Arc::new(held), chosen, "6.0.5"));
        while let Some(chunk) = chunks.next().await {
            out.extend_from_slice(&chunk?);
        }
        Ok(out)
    })
}

fn parsed(bytes: &[u8], chunk: usize) -> Result<Vec<Event>, ArchiveFault> {
    let mut parser = ArchiveParser::default();
    let mut events = Vec::new();
    for chunk in bytes.chunks(chunk) {
        parser.push(chunk);
        while let Some(event) = parser.next_event()? {
            events.push(event);
        }
    }
    parser.finish()?;
    Ok(events)
}

fn small() -> (Held, Chosen) {
    let held = Held::default()
        .with(collection("d.c", doc! {}), vec![raw(doc! { "_id": 1 })])
        .with(collection("d.empty", doc! {}), vec![]);
    let views = vec![ViewAtT::read(&doc! { "_id": "d.v", "viewOn": "c", "pipeline": [] }).unwrap()];
    let chosen = choose_all(&held, views);
    (held, chosen)
}

/// A small archive, byte by byte.
fn golden() -> Vec<u8> {
    let document = |d: Document| bson::serialize_to_vec(&d).unwrap();
    let entry = |name: &str, metadata: &str, kind: &str| {
        document(doc! { "db": "d", "collection": name, "metadata": metadata, "size": 0, "type": kind })
    };
    let head =
        |name: &str, end: bool, crc: i64| document(doc! { "db": "d", "collection": name, "EOF": end, "CRC": crc });
    let stop = [0xff; 4];
    [
        &[0x6d, 0xe2, 0x99, 0x81][..],
        &document(doc! {
            "concurrent_collections": 3, "version": "0.1", "server_version": "6.0.5",
            "tool_version": concat!("headwater ", env!("CARGO_PKG_VERSION")),
        }),
        &entry(
            "c",
            r#"{"indexes":[],"uuid":"642e6300000000000000000000000000","collectionName":"c","type":"collection"}"#,
            "collection",
        ),
        &entry(
            "empty",
            r#"{"indexes":[],"uuid":"642e656d707479000000000000000000","collectionName":"empty","type":"collection"}"#,
            "collection",
        ),
        &entry(
            "v",
            r#"{"options":{"viewOn":"c","pipeline":[]},"indexes":[],"collectionName":"v","type":"view"}"#,
            "view",
        ),
        &stop,
        &head("v", true, 0),
        &stop,
        &head("c", false, 0),
        &[14, 0, 0, 0, 0x10, b'_', b'i', b'd', 0, 1, 0, 0, 0, 0],
        &stop,
        // CRC-64/XZ of the 14 bytes, worked out by another program.
        &head("c", true, GOLDEN_CRC as i64),
        &stop,
        &head("empty", true, 0),
        &stop,
    ]
    .concat()
}

const GOLDEN_CRC: u64 = 0xf3ea_6143_6a44_59fe;

#[test]
fn the_checksum_is_crc_64_xz() {
    assert_eq!(archive::CRC.checksum(b"123456789"), 0x995d_c9bb_df19_39fa);
}

#[test]
fn a_small_archive_is_written_byte_by_byte_as_laid_down() {
    let (held, chosen) = small();
    let bytes = written(held, chosen).unwrap();
    assert!(
        bytes == golden(),
        "{:?}\n{:?}",
        parsed(&bytes, 1000),
        parsed(&golden(), 1000)
    );
}

#[test]
fn an_archive_is_read_as_it_was_written_in_chunks_of_any_size() {
    let expected = parsed(&golden(), usize::MAX).unwrap();
    assert_eq!(expected.len(), 1 + 3 + 1 + 3);
    for chunk in 1..golden().len() {
        assert_eq!(parsed(&golden(), chunk).unwrap(), expected);
    }
}

#[test]
fn a_stream_that_breaks_off_anywhere_never_looks_complete() {
    let whole = golden();
    for len in 0..whole.len() {
        assert!(parsed(&whole[..len], 100).is_err(), "cut at {len} of {}", whole.len());
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(parsed(&longer, 100).is_err(), "more after the end");
}

#[test]
fn a_flipped_bit_in_a_document_is_refused() {
    let whole = golden();
    let at = whole.windows(5).position(|w| w == b"\x10_id\0").unwrap();
    for bit in 0..9 * 8 {
        let mut damaged = whole.clone();
        damaged[at + bit / 8] ^= 1 << (bit % 8);
        assert!(
            matches!(parsed(&damaged, 100), Err(ArchiveFault::Checksum { .. })),
            "bit {bit}"
        );
    }
}

#[test]
fn hostile_archives_are_refused_without_taking_memory() {
    let document = |d: Document| bson::serialize_to_vec(&d).unwrap();
    let magic = [0x6d, 0xe2, 0x99, 0x81];
    let about =
        document(doc! { "concurrent_collections": 1, "version": "0.1", "server_version": "", "tool_version": "" });
    let entry = document(doc! { "db": "d", "collection": "c", "metadata": "", "size": 0, "type": "" });
    let head = |name: &str, end: bool| document(doc! { "db": "d", "collection": name, "EOF": end, "CRC": 0_i64 });
    let stop = [0xff; 4];
    for (what, bytes) in [
        ("another magic", vec![1, 2, 3, 4]),
        ("a huge length", [&magic[..], &[0xff, 0xff, 0xff, 0x7f]].concat()),
        ("a tiny length", [&magic[..], &[4, 0, 0, 0]].concat()),
        (
            "a header with other fields",
            [&magic[..], &document(doc! { "a": 1 })].concat(),
        ),
        ("the same name twice", [&magic[..], &about, &entry, &entry].concat()),
        (
            "an unannounced name",
            [&magic[..], &about, &entry, &stop, &head("x", false)].concat(),
        ),
        (
            "an end twice",
            [
                &magic[..],
                &about,
                &entry,
                &stop,
                &head("c", true),
                &stop,
                &head("c", true),
            ]
            .concat(),
        ),
        (
            "an end that is not terminated",
            [&magic[..], &about, &entry, &stop, &head("c", true), &[1; 4]].concat(),
        ),
    ] {
        let fault = parsed(&bytes, 3).unwrap_err();
        assert!(!matches!(fault, ArchiveFault::CutOff { .. }), "{what}: {fault}");
    }
}

#[test]
fn a_document_no_archive_takes_ends_the_stream_with_an_error() {
    let big = raw(doc! { "_id": 1, "x": "x".repeat(16 << 20) });
    let held = Held::default().with(collection("d.c", doc! {}), vec![big]);
    let chosen = choose_all(&held, vec![]);
    assert!(matches!(written(held, chosen), Err(DumpFault::DocumentTooLarge { .. })));
}

#[test]
fn of_the_version_documents_only_the_schema_of_users_is_given() {
    let versions = vec![
        raw(doc! { "_id": "featureCompatibilityVersion", "version": "6.0" }),
        raw(doc! { "_id": "authSchema", "currentVersion": 5 }),
    ];
    let held = Held::default().with(collection("admin.system.version", doc! {}), versions.clone());
    let chosen = choose_all(&held, vec![]);
    let events = parsed(&written(held, chosen).unwrap(), 100).unwrap();
    let documents: Vec<_> = events
        .into_iter()
        .filter(|e| matches!(e, Event::Document(..)))
        .collect();
    assert_eq!(documents, [Event::Document(0, versions[1].clone())]);
}

#[test]
fn an_archive_becomes_a_dump_directory() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("dump");
    let held = Held::default()
        .with(
            collection("d.a/b", doc! {}),
            vec![raw(doc! { "_id": 1 }), raw(doc! { "_id": 2 })],
        )
        .with(
            collection("d.system.buckets.ts", doc! { "timeseries": { "timeField": "t" } }),
            vec![raw(doc! { "_id": 3 })],
        )
        .with(collection("e.empty", doc! {}), vec![]);
    let views = vec![ViewAtT::read(&doc! { "_id": "d.v", "viewOn": "c", "pipeline": [] }).unwrap()];
    let chosen = choose_all(&held, views);
    let bytes = written(held, chosen).unwrap();
    let extract = async |bytes: &[u8]| {
        let mut extraction = ArchiveToDirectory::create(&root).await?;
        for chunk in bytes.chunks(50) {
            extraction.write(chunk).await?;
        }
        extraction.finish().await
    };

    let cut = run(extract(&bytes[..bytes.len() - 1])).unwrap_err();
    assert!(
        matches!(cut, ExtractFault::Archive(ArchiveFault::CutOff { .. })),
        "{cut}"
    );
    assert!(!root.exists(), "what broke off must not look complete");
    std::fs::remove_dir_all(folder.path().join("dump.partial")).unwrap();

    let done = run(extract(&bytes)).unwrap();
    assert_eq!((done.namespaces, done.documents), (4, 3));
    let size = |name: &str| std::fs::metadata(root.join(name)).map(|m| m.len()).ok();
    assert_eq!(size("d/a%2Fb.bson"), Some(28));
    assert_eq!(size("d/system.buckets.ts.bson"), Some(14));
    assert_eq!(size("e/empty.bson"), Some(0));
    assert_eq!(size("d/v.bson"), None);
    for name in [
        "prelude.json",
        "d/a%2Fb.metadata.json",
        "d/ts.metadata.json",
        "d/v.metadata.json",
    ] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
    assert!(matches!(
        run(extract(&bytes)),
        Err(ExtractFault::Directory(DirectoryFault::Exists(_)))
    ));
}

#[test]
fn a_directory_that_no_new_one_can_replace_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::write(at("file"), "").unwrap();
    std::os::unix::fs::symlink(at("empty"), at("link")).unwrap();
    for free in [at("empty"), at("new"), at("new/deeper")] {
        check_root(&free).unwrap();
    }
    for taken in [folder.path().to_owned(), at("file"), at("link")] {
        assert!(
            matches!(check_root(&taken), Err(DirectoryFault::Exists(_))),
            "{taken:?}"
        );
    }
    for fixed in [".", "..", "/", "new/.."] {
        let refused = check_root(fixed.as_ref()).unwrap_err();
        assert!(
            refused.to_string().contains("name a new directory inside it"),
            "{refused}"
        );
    }
}

#[test]
fn a_database_name_that_leads_out_of_the_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for db in ["..", ".", "", "a/b", "/etc"] {
        let refused = run(async {
            let mut writer = DirectoryWriter::create(&folder.path().join("dump")).await?;
            writer.documents(&Namespace::new(db, "c"), &[]).await
        });
        assert!(matches!(refused, Err(DirectoryFault::Database(_))), "{db:?}");
        std::fs::remove_dir_all(folder.path().join("dump.partial")).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_document_comes_out_once_and_in_order(sizes in prop::collection::vec(prop::collection::vec(0_usize..200_000, 0..30), 0..7)) {
        let mut held = Held::default();
        for (n, sizes) in sizes.iter().enumerate() {
            let documents = sizes.iter().enumerate().map(|(i, s)| raw(doc! { "_id": i as i64, "x": "x".repeat(*s) }));
            held = held.with(collection(&format!("d.c{n}"), doc! {}), documents.collect());
        }
        let chosen = choose_all(&held, vec![]);
        let events = parsed(&written(held, chosen).unwrap(), 64 << 10).unwrap();
        for (n, sizes) in sizes.iter().enumerate() {
            let of_it: Vec<_> = events.iter().filter_map(|e| match e {
                Event::Document(m, doc) if *m == n => Some(doc.len()),
                _ => None,
            }).collect();
            let expected: Vec<_> = sizes.iter().map(|s| raw(doc! { "_id": 0_i64, "x": "x".repeat(*s) }).len()).collect();
            prop_assert_eq!(of_it, expected);
        }
        let ends = events.iter().filter(|e| matches!(e, Event::End(_))).count();
        prop_assert_eq!(ends, sizes.len());
    }
}
