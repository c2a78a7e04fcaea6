//! The file of master keys: one to a line, `NAME KEY`, KEY in 64 hexadecimal digits. The first wraps new data keys; the
//! others open what was wrapped by them. Empty lines and lines that begin with `#` say nothing.

use headwater_host::Entropy;
use headwater_model::MasterKeyId;

use super::secret::{MasterKey, Secret};

/// Reads the text of a file. What is wrong is said without repeating the line, which may hold a key.
pub fn parse(text: &str) -> Result<Vec<MasterKey>, String> {
    let mut keys: Vec<MasterKey> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (id, secret) = (
            words.next().unwrap_or_default(),
            words.next().and_then(Secret::from_hex),
        );
        let (Ok(id), Some(secret), None) = (MasterKeyId::new(id), secret, words.next()) else {
            return Err(format!(
                "line {number} is not a name and 64 hexadecimal digits; `headwater key new` prints such a line"
            ));
        };
        if keys.iter().any(|known| known.id == id) {
            return Err(format!("line {number} names {id} a second time"));
        }
        keys.push(MasterKey::new(id, secret));
    }
    match keys.is_empty() {
        true => Err("it holds no key; `headwater key new` prints one".to_owned()),
        false => Ok(keys),
    }
}

/// A line with a new key.
pub fn new_line(id: &MasterKeyId, entropy: &dyn Entropy) -> String {
    format!("{id} {}", hex::encode(Secret::random(entropy).bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_is_read_in_order_and_what_is_wrong_is_said_without_the_key() {
        let (a, b) = ("0a".repeat(32), "0b".repeat(32));
        let keys = parse(&format!("# ours\n\n  new {a}\nold\t{b}\n")).unwrap();
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["new", "old"]);
        for (text, due) in [
            (String::new(), "no key"),
            (format!("{a}\n"), "line 1"),
            (format!("k {a}\nk {b}\n"), "a second time"),
            (format!("k {}\n", &a[1..]), "line 1"),
            (format!("k {a} x\n"), "line 1"),
            (format!("../k {a}\n"), "line 1"),
        ] {
            let fault = parse(&text).err().unwrap_or_default();
            assert!(fault.contains(due) && !fault.contains(&a[2..]), "{fault}");
        }
    }
}
