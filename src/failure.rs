//! A command that did not succeed: what, why, and the cure, in the words a user sees.

use std::fmt;

use headwater_config::SettingsError;
use headwater_model::InvalidName;
use headwater_protocol::agent::{Refusal, RefusalKind};

use crate::exit::Exit;

/// Why a command ends without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One sentence: what, and why.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The answer was lost: what was asked for may have been done.
    pub is_unanswered: bool,
}

/// What a command gives.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Without a cure.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure {
            exit,
            message: message.into(),
            help: None,
            is_unanswered: false,
        }
    }

    /// With the cure.
    pub fn help(self, help: impl Into<String>) -> Self {
        Failure {
            help: Some(help.into()),
            ..self
        }
    }

    /// As one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "exit": self.exit.code(),
            "kind": self.exit.name(),
            "message": self.message,
            "help": self.help,
        } })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

/// The cause at the bottom of an error. Of those of an HTTP client it is the only one that says something, and it names
/// no address.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// The exit code for a refusal of the service.
pub fn exit_of(kind: RefusalKind) -> Exit {
    match kind {
        RefusalKind::Unauthorized | RefusalKind::Forbidden => Exit::Auth,
        RefusalKind::NotFound => Exit::NotFound,
        RefusalKind::Invalid => Exit::Usage,
        RefusalKind::Gap | RefusalKind::Stale | RefusalKind::Conflict => Exit::Conflict,
        RefusalKind::NotRestorable => Exit::NotRestorable,
        RefusalKind::Unavailable | RefusalKind::StoreFull => Exit::Retry,
        RefusalKind::Internal => Exit::Failed,
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let kind = refusal.kind;
        let failure = Failure::new(exit_of(kind), refusal.message);
        match failure.exit {
            Exit::Auth if kind == RefusalKind::Forbidden => {
                failure.help("use a key that has this right; `headwater access create` makes one")
            }
            Exit::Auth => failure.help("give the key with --key-file or HEADWATER_KEY_FILE"),
            Exit::NotRestorable => failure.help("`headwater timeline NAME` shows what can be restored"),
            Exit::Retry => failure.help("run the same command again later"),
            Exit::Failed => failure.help("the log of the daemon has the details"),
            _ => failure,
        }
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Self {
        Failure::new(Exit::Usage, error.to_string())
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Failure::new(Exit::Usage, error.to_string())
    }
}

/// A fault with a file, in words.
pub fn file_fault(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_refusal_has_its_exit_code() {
        for (kind, exit) in [
            (RefusalKind::Unauthorized, 6),
            (RefusalKind::Forbidden, 6),
            (RefusalKind::NotFound, 4),
            (RefusalKind::Invalid, 2),
            (RefusalKind::Gap, 5),
            (RefusalKind::Stale, 5),
            (RefusalKind::Conflict, 5),
            (RefusalKind::NotRestorable, 8),
            (RefusalKind::Unavailable, 75),
            (RefusalKind::StoreFull, 75),
            (RefusalKind::Internal, 1),
        ] {
            assert_eq!(Failure::from(Refusal::new(kind, "words")).exit.code(), exit, "{kind:?}");
        }
    }

    #[test]
    fn a_failure_says_what_and_how_to_go_on() {
        let failure = Failure::new(Exit::NotFound, "there is no deployment shop").help("see headwater deployment list");
        let text = "error: there is no deployment shop\nhelp: see headwater deployment list";
        assert_eq!(failure.to_string(), text);
        assert_eq!(failure.json()["error"]["exit"], 4);
        assert_eq!(failure.json()["error"]["kind"], "not_found");
    }
}
