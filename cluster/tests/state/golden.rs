//! The bytes of every kind of command and of a state, as they rest on the disks of clusters that exist.
//!
//! A difference here means that a new version cannot read the logs of an old one. Only new kinds may be added:
//! `HEADWATER_GOLDEN=write` writes the file anew, and the change to it is to be read line by line.

use std::fmt::Write;
use std::path::Path;

use headwater_cluster::{Command, State, codec};

use crate::every_kind::every_kind;
use crate::samples::full;

#[test]
fn commands_and_states_are_encoded_as_ever() {
    let mut text = String::new();
    for (name, command) in every_kind() {
        let bytes = codec::encode("command", &command).unwrap();
        assert_eq!(codec::decode::<Command>("command", &bytes).unwrap(), command);
        writeln!(text, "{name} {}", hex(&bytes)).unwrap();
    }
    let bytes = codec::encode("control state", &full()).unwrap();
    assert_eq!(codec::decode::<State>("control state", &bytes).unwrap(), full());
    writeln!(text, "State {}", hex(&bytes)).unwrap();
    writeln!(text, "Frame {}", hex(&codec::frame(b"key", b"payload"))).unwrap();
    compare("commands", &text);
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/state/golden/{name}.txt"));
    if std::env::var_os("HEADWATER_GOLDEN").is_some_and(|mode| mode == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (line, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn hostile_bytes_are_refused_and_never_believed() {
    let command = codec::encode("command", &every_kind()[0].1).unwrap();
    for cut in 0..command.len() {
        assert!(
            codec::decode::<Command>("command", &command[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    assert!(
        codec::decode::<Command>("command", &[&command[..], &[0]].concat()).is_err(),
        "something left over"
    );
    // A list that claims to have 2^62 elements must not make us allocate them.
    let bomb = [&[253][..], &(1u64 << 62).to_le_bytes()].concat();
    assert!(codec::decode::<Vec<Command>>("commands", &bomb).is_err());
    assert!(codec::decode::<State>("control state", &bomb).is_err());
    // A name that could climb out of a folder is no name, wherever it comes from.
    let evil = codec::encode("name", &"../../etc").unwrap();
    assert!(codec::decode::<headwater_model::DeploymentName>("name", &evil).is_err());
}

#[test]
fn a_frame_notices_every_flipped_bit_a_wrong_key_and_a_newer_version() {
    let framed = codec::frame(b"key", b"payload");
    assert_eq!(codec::unframe("record", b"key", &framed).unwrap(), b"payload");
    assert!(codec::unframe("record", b"kex", &framed).is_err());
    for bit in 0..framed.len() * 8 {
        let mut damaged = framed.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = codec::unframe("record", b"key", &damaged).unwrap_err();
        assert!(
            matches!(error, codec::CodecError::Checksum { .. }),
            "bit {bit}: {error}"
        );
    }
    for cut in 0..framed.len() {
        assert!(
            codec::unframe("record", b"key", &framed[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    let version = codec::VERSION + 1;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[version]).update(&3u64.to_le_bytes());
    hasher.update(b"key").update(b"payload");
    let newer = [&[version], &hasher.finalize().as_bytes()[..8], b"payload"].concat();
    assert!(
        codec::unframe("record", b"key", &newer)
            .unwrap_err()
            .to_string()
            .contains("upgrade")
    );
}
