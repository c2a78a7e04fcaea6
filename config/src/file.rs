//! A settings file, cut into values that know their line. What the values mean is [`crate::settings`]' business.

use std::collections::BTreeMap;

use serde_saphyr::Spanned;

use crate::keys::KEYS;
use crate::settings::SettingsError;
use crate::suggest::nearest;

/// One value as written, and its line in the file, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileValue {
    /// The text.
    pub text: String,
    /// Where.
    pub line: u64,
}

type Section = BTreeMap<String, Option<Spanned<String>>>;

/// Reads a file into values by path. `name` is used in errors only.
pub fn parse(name: &str, text: &str) -> Result<BTreeMap<&'static str, FileValue>, SettingsError> {
    if is_empty(text) {
        return Ok(BTreeMap::new());
    }
    let sections: BTreeMap<String, Option<Section>> =
        serde_saphyr::from_str(text).map_err(|e| SettingsError::Syntax {
            file: name.to_owned(),
            fault: e.to_string(),
        })?;
    let mut values = BTreeMap::new();
    for (section, entries) in sections {
        if !KEYS.iter().any(|key| key.section() == section) {
            let known = KEYS.iter().map(|key| key.section());
            return Err(unknown(
                format!("{name}:{}", line_of(text, &section)),
                &section,
                nearest(&section, known),
            ));
        }
        for (entry, value) in entries.into_iter().flatten() {
            let path = format!("{section}.{entry}");
            let line = value
                .as_ref()
                .map_or_else(|| line_of(text, &entry), |v| v.referenced.line());
            let Some(key) = KEYS.iter().find(|key| key.path == path) else {
                let known = KEYS.iter().map(|key| key.path);
                return Err(unknown(format!("{name}:{line}"), &path, nearest(&path, known)));
            };
            if let Some(value) = value {
                values.insert(
                    key.path,
                    FileValue {
                        text: value.value,
                        line,
                    },
                );
            }
        }
    }
    Ok(values)
}

fn is_empty(text: &str) -> bool {
    text.lines()
        .all(|line| matches!(line.trim_start().chars().next(), None | Some('#')) || line.trim() == "---")
}

/// The line on which a key stands, from 1.
fn line_of(text: &str, key: &str) -> u64 {
    let at = text
        .lines()
        .position(|line| line.trim_start().strip_prefix(key).is_some_and(|r| r.starts_with(':')));
    at.map_or(1, |n| n as u64 + 1)
}

fn unknown(origin: String, key: &str, meant: Option<&str>) -> SettingsError {
    SettingsError::UnknownKey {
        origin,
        key: key.to_owned(),
        meant: meant.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_line() {
        let values = parse(
            "f",
            "# hello\nnet:\n  listen: 127.0.0.1:7480\nhead:\n  memtableBudget: 64MiB\n",
        )
        .unwrap();
        assert_eq!(
            values["net.listen"],
            FileValue {
                text: "127.0.0.1:7480".into(),
                line: 3
            }
        );
        assert_eq!(values["head.memtableBudget"].line, 5);
    }

    #[test]
    fn numbers_are_taken_as_written() {
        assert_eq!(
            parse("f", "head:\n  blockCache: 1048576\n").unwrap()["head.blockCache"].text,
            "1048576"
        );
    }

    #[test]
    fn empty_files_and_empty_sections_say_nothing() {
        for text in ["", "---\n", "# only a comment\n", "net:\n", "net:\n  listen:\n"] {
            assert_eq!(parse("f", text), Ok(BTreeMap::new()), "{text:?}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_the_one_that_was_meant() {
        for (text, message) in [
            (
                "net:\n  lisen: x\n",
                "f:2: unknown setting net.lisen; did you mean net.listen?",
            ),
            ("\nnett:\n  listen: x\n", "f:2: unknown setting nett; did you mean net?"),
            (
                "net:\n  tls: x\n",
                "f:2: unknown setting net.tls; the example file shows every key",
            ),
            (
                "store:\n  bucket:\n",
                "f:2: unknown setting store.bucket; the example file shows every key",
            ),
        ] {
            assert_eq!(parse("f", text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn what_is_no_yaml_of_two_levels_is_refused() {
        for text in [
            "net: 7\n",
            "- a\n",
            "net:\n  listen: [1, 2]\n",
            "net:\n  listen: a\n  listen: b\n",
            "net: {",
        ] {
            assert!(
                matches!(parse("f", text), Err(SettingsError::Syntax { .. })),
                "{text:?}"
            );
        }
    }
}
