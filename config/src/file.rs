//! A settings file, cut into values that know their line. What the values mean is [`crate::settings`]' business.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

use crate::keys::{KEYS, Key};
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

/// Reads a file into values by path. `name` is used in errors only.
pub fn parse(name: &str, text: &str) -> Result<BTreeMap<&'static str, FileValue>, SettingsError> {
    if is_empty(text) {
        return Ok(BTreeMap::new());
    }
    let found: Found = serde_saphyr::from_str(text).map_err(|e| SettingsError::Syntax {
        file: name.to_owned(),
        fault: e.to_string(),
    })?;
    let mut values = BTreeMap::new();
    for (path, value) in found.0 {
        let last = path.rsplit('.').next().unwrap_or(&path);
        let line = value
            .as_ref()
            .map_or_else(|| line_of(text, last), |v| v.referenced.line());
        let Some(key) = KEYS.iter().find(|key| key.path == path) else {
            let meant = match path.contains('.') {
                true => nearest(&path, KEYS.iter().map(|key| key.path)),
                false => nearest(&path, KEYS.iter().map(Key::section)),
            };
            return Err(unknown(format!("{name}:{line}"), &path, meant));
        };
        if let Some(value) = value {
            let text = value.value;
            values.insert(key.path, FileValue { text, line });
        }
    }
    Ok(values)
}

/// Values by their paths, as they follow one another; a path that is not known has none.
struct Found(Vec<(String, Option<Spanned<String>>)>);

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut found = Vec::new();
        let whole = Section {
            path: String::new(),
            found: &mut found,
        };
        whole.deserialize(deserializer)?;
        Ok(Found(found))
    }
}

/// What stands below one path. What is a section and what a value, the table of keys says: only so is every value text as it
/// was written.
struct Section<'a> {
    path: String,
    found: &'a mut Vec<(String, Option<Spanned<String>>)>,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, each with a name")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key::<String>()? {
            let path = match self.path.is_empty() {
                true => name,
                false => format!("{}.{name}", self.path),
            };
            let below = format!("{path}.");
            if KEYS.iter().any(|key| key.path.starts_with(&below)) {
                let found = &mut *self.found;
                entries.next_value_seed(Section { path, found })?;
            } else if KEYS.iter().any(|key| key.path == path) {
                let value = entries.next_value()?;
                self.found.push((path, value));
            } else {
                entries.next_value::<IgnoredAny>()?;
                self.found.push((path, None));
            }
        }
        Ok(())
    }
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
        let nested = parse("f", "net:\n  tls:\n    certFile: a.pem\n  listen: 127.0.0.1:1\n").unwrap();
        assert_eq!(nested["net.tls.certFile"].line, 3);
        assert_eq!(nested["net.listen"].line, 4);
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
        for text in [
            "",
            "---\n",
            "# only a comment\n",
            "net:\n",
            "net:\n  listen:\n",
            "net:\n  tls:\n",
        ] {
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
                "net:\n  tls:\n    certfile: x\n",
                "f:3: unknown setting net.tls.certfile; did you mean net.tls.certFile?",
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
    fn what_is_not_laid_out_as_the_example_is_refused() {
        for text in [
            "net: 7\n",
            "- a\n",
            "net:\n  listen: [1, 2]\n",
            "net:\n  tls: x\n",
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
