//! What a tree promises: the same records give the same blocks by every route, a change writes few blocks, and no
//! bytes can make it misbehave.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_model::limits;
use headwater_store::blocks::Blocks;
use headwater_store::memory_blocks::MemoryBlocks;
use proptest::prelude::*;

use super::*;
use crate::error::HeadError;
use crate::merge::{Merge, Run, Step, Value};
use crate::test_support::block_on;

type Records = BTreeMap<Bytes, Bytes>;

async fn bulk(blocks: &Arc<MemoryBlocks>, records: &Records) -> Option<Root> {
    let mut writer = TreeWriter::new(blocks.clone());
    for (key, value) in records {
        writer.add(key.clone(), value).await.unwrap();
    }
    writer.finish().await.unwrap()
}

async fn contents(blocks: &Arc<MemoryBlocks>, root: Option<&Root>, from: Option<Bytes>) -> Vec<(Bytes, Bytes)> {
    let mut cursor = Cursor::new(blocks.clone(), root, from);
    let mut out = Vec::new();
    loop {
        cursor.descend().await.unwrap();
        let Some(record) = cursor.record() else { return out };
        out.push(record);
        cursor.skip();
    }
}

/// Puts changes (`None`: gone) over a tree, taking over what they do not reach.
async fn changed(
    blocks: &Arc<MemoryBlocks>,
    base: Option<&Root>,
    changes: &BTreeMap<Bytes, Option<Bytes>>,
) -> Option<Root> {
    let mut writer = TreeWriter::new(blocks.clone());
    let changes = changes.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut merge = Merge::new(vec![
        Run::Tree(Cursor::new(blocks.clone(), base, None)),
        Run::<Option<Bytes>>::memory(changes),
    ]);
    while let Some(step) = merge
        .next(|run, level, entry| run == 0 && writer.could_reuse(level, entry))
        .await
        .unwrap()
    {
        match step {
            Step::Subtree { level, entry, .. } => assert!(writer.reuse(level, &entry).await.unwrap()),
            Step::Record { key, oldest, newer } => match newer.into_iter().next_back().unwrap_or(oldest).1 {
                Value::Stored(value) | Value::Memory(Some(value)) => writer.add(key, &value).await.unwrap(),
                Value::Memory(None) => {}
            },
        }
    }
    writer.finish().await.unwrap()
}

fn key(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

fn value(seed: u64, len: usize) -> Bytes {
    (0..len)
        .map(|i| (seed.wrapping_mul(0x9e37_79b9).wrapping_add(i as u64) >> (i % 7)) as u8)
        .collect::<Vec<_>>()
        .into()
}

/// Enough records for three levels, of mixed sizes, some of them larger than a leaf may be.
fn sample(records: u64, step: u64) -> Records {
    (0..records)
        .map(|n| {
            let len = match n % 97 {
                0 => limits::LEAF_MAX_BYTES + 1000,
                1..20 => 3000,
                _ => 200,
            };
            (key(n * step), value(n, len))
        })
        .collect()
}

#[test]
fn an_empty_tree_has_no_root() {
    let blocks = Arc::new(MemoryBlocks::new());
    assert_eq!(block_on(bulk(&blocks, &Records::new())), None);
    assert!(blocks.is_empty());
}

#[test]
fn a_tree_gives_back_its_records_from_any_key_on() {
    let blocks = Arc::new(MemoryBlocks::new());
    let records = sample(3000, 10);
    let root = block_on(bulk(&blocks, &records)).unwrap();
    assert_eq!(root.records, 3000);
    assert_eq!(root.bytes, records.values().map(|v| v.len() as u64).sum::<u64>());
    assert_eq!(root.last, key(29_990));
    assert!(root.level >= 1);
    for from in [
        None,
        Some(0),
        Some(1),
        Some(15_000),
        Some(15_001),
        Some(29_990),
        Some(29_991),
        Some(u64::MAX),
    ] {
        let expected: Vec<_> = records
            .iter()
            .filter(|(k, _)| from.is_none_or(|f| **k >= key(f)))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        assert!(
            block_on(contents(&blocks, Some(&root), from.map(key))) == expected,
            "from {from:?}"
        );
    }
    assert_eq!(
        block_on(find(blocks.clone(), Some(&root), &key(70))).unwrap(),
        Some(records[&key(70)].clone())
    );
    assert_eq!(block_on(find(blocks.clone(), Some(&root), &key(71))).unwrap(), None);
}

#[test]
fn records_out_of_order_are_refused() {
    let blocks = Arc::new(MemoryBlocks::new());
    block_on(async {
        let mut writer = TreeWriter::new(blocks);
        writer.add(key(2), b"x").await.unwrap();
        assert!(matches!(writer.add(key(2), b"y").await, Err(HeadError::Order)));
        assert!(matches!(writer.add(key(1), b"y").await, Err(HeadError::Order)));
    });
}

#[test]
fn changes_write_only_the_leaves_they_reach_and_the_nodes_above_them() {
    let blocks = Arc::new(MemoryBlocks::new());
    let records: Records = (0..100_000).map(|n| (key(n), value(n, 300))).collect();
    let root = block_on(bulk(&blocks, &records)).unwrap();
    let whole = blocks.traffic();

    let run: BTreeMap<_, _> = (50_000..51_000).map(|n| (key(n), Some(value(n + 1, 300)))).collect();
    let after = block_on(changed(&blocks, Some(&root), &run)).unwrap();
    let spent = blocks.traffic();
    assert!(
        spent.new_bytes - whole.new_bytes < 3 * 1000 * 300,
        "{}",
        spent.new_bytes - whole.new_bytes
    );
    assert!(spent.reads < 30, "{}", spent.reads);
    let mut expected = records.clone();
    expected.extend(run.iter().map(|(k, v)| (k.clone(), v.clone().unwrap())));
    assert_eq!(block_on(bulk(&blocks, &expected)).unwrap(), after);

    let leaves = whole.new_blocks;
    let scattered: BTreeMap<_, _> = (0..10).map(|n| (key(n * 9973), Some(value(n + 1, 300)))).collect();
    let before = blocks.traffic().new_blocks;
    let after = block_on(changed(&blocks, Some(&root), &scattered)).unwrap();
    assert_eq!(after.level, 2);
    let mut expected = records.clone();
    expected.extend(scattered.iter().map(|(k, v)| (k.clone(), v.clone().unwrap())));
    let written = blocks.traffic().new_blocks - before;
    assert!(written <= 10 * 3 + 8 && written < leaves / 5, "{written} of {leaves}");
    assert_eq!(block_on(bulk(&blocks, &expected)).unwrap(), after);
}

#[test]
fn appending_reads_and_writes_only_the_right_edge() {
    let blocks = Arc::new(MemoryBlocks::new());
    let records: Records = (0..60_000).map(|n| (key(n), value(n, 400))).collect();
    let root = block_on(bulk(&blocks, &records)).unwrap();
    let before = blocks.traffic();
    let more: BTreeMap<_, _> = (60_000..60_100).map(|n| (key(n), Some(value(n, 400)))).collect();
    let after = block_on(changed(&blocks, Some(&root), &more)).unwrap();
    let spent = blocks.traffic();
    assert!(
        spent.reads - before.reads <= 2 + u64::from(root.level),
        "{}",
        spent.reads - before.reads
    );
    assert!(spent.new_blocks - before.new_blocks <= 6);
    assert_eq!(after.records, 60_100);
}

#[test]
fn the_layout_at_rest_does_not_change() {
    let blocks = Arc::new(MemoryBlocks::new());
    let records: Records = [(&b"k1"[..], &b"one"[..]), (b"k2", b"")]
        .map(|(k, v)| (Bytes::from_static(k), Bytes::from_static(v)))
        .into();
    let root = block_on(bulk(&blocks, &records)).unwrap();
    let leaf = block_on(blocks.get(root.id)).unwrap();
    assert_eq!(&leaf[..], b"HWN\x01\x00\x02\0\0\0\x02\x03k1one\x02\x00k2");

    let root = block_on(bulk(&blocks, &sample(3000, 10))).unwrap();
    assert_eq!((root.level, root.id.to_string().as_str()), (1, GOLDEN_ROOT));
    let Node::Interior(top) = Node::decode(block_on(blocks.get(root.id)).unwrap(), root.level).unwrap() else {
        panic!("the root is a leaf")
    };
    let raw = block_on(blocks.get(root.id)).unwrap();
    assert_eq!(
        &raw[..9],
        [b"HWN\x01".as_slice(), &[root.level, top.children.len() as u8, 0, 0, 0]].concat()
    );
    assert_eq!(&raw[9..18], [&[8], &top.children[0].last[..]].concat());
    assert_eq!(raw[18..50], top.children[0].id.0);
}

const GOLDEN_ROOT: &str = "f1e93885226af0920e730163382d919d41165bf5b3aeae322d305953c8a23ec4";

#[test]
fn a_lost_or_foreign_block_is_an_error_and_no_panic() {
    let blocks = Arc::new(MemoryBlocks::new());
    let root = block_on(bulk(&blocks, &sample(300, 1))).unwrap();
    let foreign = Root {
        id: block_on(blocks.put(Bytes::from_static(b"no node"))).unwrap(),
        ..root.clone()
    };
    let read = |root: Root| block_on(async { Cursor::new(blocks.clone(), Some(&root), None).descend().await });
    assert!(matches!(
        read(foreign),
        Err(HeadError::Node {
            fault: NodeFault::Format,
            ..
        })
    ));
    assert!(matches!(
        read(Root {
            level: 7,
            ..root.clone()
        }),
        Err(HeadError::Node {
            fault: NodeFault::Level { .. },
            ..
        })
    ));
    blocks.lose(root.id);
    assert!(matches!(read(root), Err(HeadError::Store(_))));
}

#[test]
fn nodes_with_lying_counts_lengths_and_orders_are_refused() {
    let node = |level: u8, count: u32, items: &[u8]| {
        let raw = [b"HWN\x01".as_slice(), &[level], &count.to_le_bytes(), items].concat();
        Node::decode(raw.into(), level).map(drop)
    };
    assert_eq!(node(0, 0, b""), Err(NodeFault::Empty));
    assert_eq!(node(0, 1, b"\x01\x01kv"), Ok(()));
    assert_eq!(node(0, u32::MAX, b"\x01\x01kv"), Err(NodeFault::Length(13)));
    assert_eq!(node(0, 1, b"\x01\x01kvx"), Err(NodeFault::Length(13)));
    assert_eq!(node(0, 2, b"\x01\0b\x01\0a"), Err(NodeFault::Order(1)));
    assert_eq!(node(0, 2, b"\x01\0a\x01\0a"), Err(NodeFault::Order(1)));
    assert_eq!(
        node(0, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0"),
        Err(NodeFault::Length(20))
    );
    assert_eq!(
        node(0, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\0"),
        Err(NodeFault::Length(9))
    );
    assert_eq!(
        node(0, 1, b"\x81\x00\x01kv"),
        Err(NodeFault::Length(9)),
        "not the shortest form"
    );
    let child = [&b"\x01k"[..], &[7; 32], b"\x01\x01\x02"].concat();
    assert_eq!(node(1, 1, &child), Err(NodeFault::Format), "an unknown flag");
    assert_eq!(node(60, 1, &child), Err(NodeFault::TooDeep));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_decoding_panic(raw in proptest::collection::vec(any::<u8>(), 0..200), level in 0u8..3, count in 0u32..9) {
        let framed = [b"HWN\x01".as_slice(), &[level], &count.to_le_bytes(), &raw].concat();
        let _ = Node::decode(framed.into(), level);
        let _ = Node::decode(raw.into(), level);
    }
}

/// How long values are: small, near a leaf's limits, beyond them.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0usize..2000, 4 => 5_000usize..60_000, 1 => 200_000usize..300_000]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn changing_a_tree_gives_the_same_blocks_as_writing_the_result_anew(
        base in proptest::collection::btree_map(0u64..4000, lengths(), 0..1500),
        batches in proptest::collection::vec(
            proptest::collection::btree_map(0u64..4400, proptest::option::weighted(0.7, lengths()), 0..60),
            1..4,
        ),
    ) {
        let blocks = Arc::new(MemoryBlocks::new());
        let mut records: Records = base.iter().map(|(k, len)| (key(*k), value(*k, *len))).collect();
        block_on(async {
            let mut root = bulk(&blocks, &records).await;
            for batch in batches {
                let changes: BTreeMap<_, _> =
                    batch.iter().map(|(k, len)| (key(*k), len.map(|len| value(k + 1, len)))).collect();
                root = changed(&blocks, root.as_ref(), &changes).await;
                for (key, value) in changes {
                    match value {
                        Some(value) => records.insert(key, value),
                        None => records.remove(&key),
                    };
                }
                let anew = bulk(&Arc::new(MemoryBlocks::new()), &records).await;
                prop_assert_eq!(&root, &anew);
            }
            Ok(())
        })?;
    }

    #[test]
    fn merging_trees_gives_the_same_blocks_as_writing_the_result_anew(
        parts in proptest::collection::vec((0u64..3000, 1u64..4, lengths(), 0u64..400), 1..6),
    ) {
        let blocks = Arc::new(MemoryBlocks::new());
        block_on(async {
            let mut records = Records::new();
            let mut runs = Vec::new();
            for (start, step, len, count) in parts {
                let part: Records = (0..count).map(|n| (key(start + n * step), value(n + start, len % 3000))).collect();
                let root = bulk(&blocks, &part).await;
                runs.push(Run::<()>::Tree(Cursor::new(blocks.clone(), root.as_ref(), None)));
                records.extend(part);
            }
            let mut writer = TreeWriter::new(blocks.clone());
            let mut merge = Merge::new(runs);
            while let Some(step) = merge.next(|_, level, entry| writer.could_reuse(level, entry)).await.unwrap() {
                match step {
                    Step::Subtree { level, entry, .. } => assert!(writer.reuse(level, &entry).await.unwrap()),
                    Step::Record { key, oldest, newer } => {
                        if let (_, Value::Stored(value)) = newer.into_iter().next_back().unwrap_or(oldest) {
                            writer.add(key, &value).await.unwrap();
                        }
                    }
                }
            }
            let merged = writer.finish().await.unwrap();
            let anew = bulk(&Arc::new(MemoryBlocks::new()), &records).await;
            prop_assert_eq!(merged, anew);
            Ok(())
        })?;
    }
}
