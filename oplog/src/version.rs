//! The version of the source, on which a few readings depend.

use std::fmt;
use std::str::FromStr;

/// A server version, as `buildInfo.version` has it; what follows the three numbers is of no matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceVersion {
    /// 6 of 6.0.5
    pub major: u32,
    /// 0 of 6.0.5
    pub minor: u32,
    /// 5 of 6.0.5
    pub patch: u32,
}

/// The text is no server version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no server version; it is written as 6.0.5")]
pub struct InvalidVersion(pub String);

impl FromStr for SourceVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Ok(SourceVersion { major, minor, patch }),
            _ => Err(InvalidVersion(text.to_owned())),
        }
    }
}

impl fmt::Display for SourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl SourceVersion {
    /// Whether documents that fall out of a full capped collection are logged as deletes. Before 5.0 they go unlogged,
    /// and the copy has to trim by itself ([`crate::collection::Capped::overflow`]).
    pub fn logs_capped_overflow(self) -> bool {
        self.major >= 5
    }

    /// Whether a collMod that does not mention `recordPreImages` turns it off. Seen on 5.0.4 and 6.0.5, not on 4.4.2
    /// and 6.0.27; where between the last two it changed is not known.
    pub(crate) fn coll_mod_resets_pre_images(self) -> bool {
        self.major == 5 || (self.major, self.minor) == (6, 0) && self.patch < 27
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_a_suffix() {
        for text in ["6.0.5", "6.0.5-rc1", "6.0.5+ent"] {
            assert_eq!(
                text.parse(),
                Ok(SourceVersion {
                    major: 6,
                    minor: 0,
                    patch: 5
                }),
                "{text}"
            );
        }
        for wrong in ["", "6", "6.0", "6.x.5", "v6.0.5"] {
            assert!(wrong.parse::<SourceVersion>().is_err(), "{wrong}");
        }
    }
}
