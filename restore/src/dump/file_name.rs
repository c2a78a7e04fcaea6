//! File names of collections in a dump directory. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest, Sha1};

/// Longer names are cut, so that the ending `.metadata.json` still fits the 255 bytes of a file name.
const NAME_MAX: usize = 238;
/// What is left of a cut name, before `%24` and the hash.
const NAME_CUT: usize = 208;

/// The stem of the files of `collection`, as mongodump names them. Readers find the real name of a cut one in the
/// metadata.
pub fn file_name(collection: &str) -> String {
    let escaped = escape(collection);
    if escaped.len() <= NAME_MAX {
        return escaped;
    }
    let hash = URL_SAFE_NO_PAD.encode(Sha1::digest(collection.as_bytes()));
    format!("{}%24{hash}", &escaped[..NAME_CUT])
}

/// Escapes as Go's `url.QueryEscape` does. The result is ASCII.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_mongodump_does() {
        for (name, file) in [
            ("orders", "orders"),
            ("we ird%/name", "we+ird%25%2Fname"),
            ("a.b-c_d~e", "a.b-c_d~e"),
            ("ü*+", "%C3%BC%2A%2B"),
            ("$admin.system.users", "%24admin.system.users"),
            ("..", ".."),
        ] {
            assert_eq!(file_name(name), file);
        }
    }

    #[test]
    fn long_names_are_cut_and_told_apart_by_their_hash() {
        let longest = "a".repeat(238);
        assert_eq!(file_name(&longest), longest);
        let (one, other) = (file_name(&"a".repeat(239)), file_name(&"a".repeat(240)));
        assert_eq!(one.len(), 208 + 3 + 27);
        assert!(one.starts_with(&format!("{}%24", "a".repeat(208))));
        assert_ne!(one, other);
    }
}
