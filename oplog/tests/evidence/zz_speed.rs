use bytes::Bytes;
use headwater_oplog::*;
use std::collections::BTreeMap;
#[test]
fn speed() { for _ in 0..6 { speed1() } }
fn speed1() {
    let uuid = serde_json::json!({"$binary": {"base64": "rxIZCCncSeKWEinS+3ljXg==", "subType": "04"}});
    let oid = |n: u32| serde_json::json!({"$oid": format!("{:024x}", n as u128 * 2654435761 % 16777213)});
    let mk = |n: u32, op: serde_json::Value| {
        let mut e = serde_json::json!({"lsid": {"id": uuid, "uid": uuid}, "txnNumber": {"$numberLong": "1"}, "ns":"shop.orders","ui":uuid,"stmtId":1,"ts":{"$timestamp":{"t":1,"i":n}},"t":{"$numberLong":"1"},"v":{"$numberLong":"2"},"wall":{"$date":{"$numberLong":"1795343068797"}}});
        for (k, v) in op.as_object().unwrap() {
            e[k] = v.clone();
        }
        crate::vectors::extended(&e)
    };
    let inserts: Vec<Bytes> = (0..100000).map(|n| mk(n, serde_json::json!({"op":"i","o":{"_id":oid(n),"name":"abcdefgh","qty":1,"price":2.5,"tags":["a","b"]},"o2":{"_id":oid(n)}}))).collect();
    let updates: Vec<Bytes> = (0..100000)
        .map(|n| {
            mk(
                n,
                serde_json::json!({"op":"u","o":{"$v":2,"diff":{"u":{"qty":n}}},"o2":{"_id":oid(n%50000)}}),
            )
        })
        .collect();
    let mut effects = Vec::new();
    for (name, all) in [("insert", &inserts), ("update", &updates)] {
        let t = std::time::Instant::now();
        let mut i = Interpreter::new("6.0.5".parse().unwrap());
        for e in all {
            effects.clear();
            i.interpret(e, &mut effects).unwrap();
        }
        println!("{name} interpret {:?} ns", t.elapsed().as_nanos() / all.len() as u128);
    }
    let t = std::time::Instant::now();
    let mut i = Interpreter::new("6.0.5".parse().unwrap());
    let mut table: BTreeMap<DocumentKey, Record> = BTreeMap::new();
    for e in inserts.iter().chain(&updates) {
        effects.clear();
        i.interpret(e, &mut effects).unwrap();
        for x in effects.drain(..) {
            let (k, r) = match x {
                Effect::Put { key, doc, .. } => (
                    key,
                    Record::Document {
                        doc,
                        place: Place::None,
                    },
                ),
                Effect::Change { key, change, .. } => (key, Record::Changes(vec![change])),
                _ => panic!(),
            };
            match table.entry(k) {
                std::collections::btree_map::Entry::Vacant(v) => {
                    v.insert(r);
                }
                std::collections::btree_map::Entry::Occupied(mut o) => {
                    let old = std::mem::replace(o.get_mut(), Record::Deleted);
                    o.insert(Record::compose(old, r).unwrap());
                }
            }
        }
    }
    println!("with memtable {:?} ns", t.elapsed().as_nanos() / 200000);
}
