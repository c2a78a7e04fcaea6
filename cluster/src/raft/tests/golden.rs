//! The bytes of Raft's records at rest. A difference means that a new version cannot read the disks of an old one.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec;
use crate::command::Command;
use crate::raft::image::ImageHeader;
use crate::raft::records::{EntryRecord, LogIdRecord, MembershipRecord, MetaRecord, PayloadRecord, VoteRecord};
use crate::raft::{Entry, SnapshotMeta, Vote};

fn id(index: u64) -> LogIdRecord {
    LogIdRecord {
        term: 5,
        node: 2,
        index,
    }
}

fn membership() -> MembershipRecord {
    let addresses = [(1, "a:1"), (2, "b:1"), (300, "c:1")].map(|(id, address)| (id, address.to_owned()));
    MembershipRecord {
        voters: vec![BTreeSet::from([1, 2, 300])],
        addresses: BTreeMap::from(addresses),
    }
}

fn meta() -> MetaRecord {
    MetaRecord {
        last: Some(id(1000)),
        membership_at: Some(id(0)),
        membership: membership(),
        name: "m".to_owned(),
    }
}

fn entries() -> [EntryRecord; 3] {
    let commands = vec![
        Command::RemoveKey { id: "ab".to_owned() },
        Command::RemoveKey { id: "cd".to_owned() },
    ];
    let payloads = [
        PayloadRecord::Blank,
        PayloadRecord::Commands(commands),
        PayloadRecord::Membership(membership()),
    ];
    payloads.map(|payload| EntryRecord { id: id(1000), payload })
}

#[test]
fn records_are_encoded_as_ever() {
    let hex = |bytes: Vec<u8>| {
        bytes
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    };
    let [blank, commands, members] = entries().map(|entry| hex(codec::encode("log entry", &entry).unwrap()));
    assert_eq!(blank, "0502fbe80300");
    assert_eq!(commands, "0502fbe80301021302616213026364");
    assert_eq!(
        members,
        "0502fbe80302010301 02fb2c0103 01 03613a31 02 03623a31 fb2c01 03633a31".replace(' ', "")
    );
    let vote = VoteRecord {
        term: 5,
        node: 2,
        committed: true,
    };
    assert_eq!(hex(codec::encode("vote", &vote).unwrap()), "050201");
    let header = ImageHeader {
        meta: meta(),
        generation: 1,
        pieces: 2,
        bytes: 40_000,
        hash: [7; 32],
    };
    let expected =
        "01 0502fbe803 01 050200 010301 02fb2c0103 01 03613a31 02 03623a31 fb2c01 03633a31 01 6d 01 02 fb409c";
    let expected = expected.replace(' ', "") + &"07".repeat(32);
    assert_eq!(hex(codec::encode("control image", &header).unwrap()), expected);
}

#[test]
fn every_record_comes_back_from_what_openraft_makes_of_it() {
    for entry in entries() {
        assert_eq!(EntryRecord::from(&Entry::from(entry.clone())), entry);
    }
    for committed in [false, true] {
        let vote = VoteRecord {
            term: 5,
            node: 2,
            committed,
        };
        assert_eq!(VoteRecord::from(&Vote::from(vote)), vote);
    }
    assert_eq!(MetaRecord::from(&SnapshotMeta::from(meta())), meta());
}
