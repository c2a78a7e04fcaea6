//! What can go wrong at the source, in classes the rest of the agent can act upon.

use headwater_protocol::agent::StreamFault;
use mongodb::error::{Error, ErrorKind};

use super::redact::Redactor;

/// A command or a cursor at the source failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The server answered with an error.
    #[error("the source answered {name} ({code}): {words}")]
    Server {
        /// The server's error code.
        code: i32,
        /// Its name.
        name: String,
        /// Its words, redacted.
        words: String,
    },
    /// Name and password were not accepted.
    #[error("the source does not accept the login: {0}")]
    Login(String),
    /// The connection string cannot be used.
    #[error("the connection string cannot be used: {0}")]
    Uri(String),
    /// No answer, or no connection.
    #[error("{0}")]
    Lost(String),
    /// An answer that is not understood.
    #[error("the source's answer is not understood: {0}")]
    Answer(String),
}

const FAILED_TO_PARSE: i32 = 9;
const UNKNOWN_FIELD: i32 = 40415;
const UNAUTHORIZED: i32 = 13;
const NAMESPACE_NOT_FOUND: i32 = 26;
const MAX_TIME_EXPIRED: i32 = 50;
const CAPPED_POSITION_LOST: i32 = 136;
const QUERY_PLAN_KILLED: i32 = 175;
const KEY_NOT_FOUND: i32 = 211;
/// A newer server was given a resume token of another one.
const FOREIGN_TOKEN: i32 = 8_132_701;

impl SourceError {
    pub(super) fn of_driver(error: &Error, redactor: &Redactor) -> Self {
        let words = redactor.clean(&error.kind.to_string());
        match error.kind.as_ref() {
            ErrorKind::Command(command) => SourceError::Server {
                code: command.code,
                name: command.code_name.clone(),
                words: redactor.clean(&command.message),
            },
            ErrorKind::Authentication { .. } => SourceError::Login(words),
            ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => SourceError::Uri(words),
            ErrorKind::InvalidResponse { .. } | ErrorKind::Bson(_) => SourceError::Answer(words),
            _ => SourceError::Lost(words),
        }
    }

    pub(crate) fn answer(error: impl std::fmt::Display) -> Self {
        SourceError::Answer(error.to_string())
    }

    fn is(&self, wanted: i32) -> bool {
        matches!(self, SourceError::Server { code, .. } if *code == wanted)
    }

    /// The login may not do this.
    pub fn is_unauthorized(&self) -> bool {
        self.is(UNAUTHORIZED)
    }

    /// The collection is gone.
    pub fn is_dropped(&self) -> bool {
        self.is(NAMESPACE_NOT_FOUND)
    }

    /// The server is too old for an option of the command.
    pub fn is_unknown_option(&self) -> bool {
        self.is(UNKNOWN_FIELD) || self.is(FAILED_TO_PARSE)
    }

    /// The command hit its own time limit.
    pub fn is_time_limit(&self) -> bool {
        self.is(MAX_TIME_EXPIRED)
    }

    /// The collection was renamed or dropped under a cursor.
    pub fn is_plan_killed(&self) -> bool {
        self.is(QUERY_PLAN_KILLED)
    }

    /// The place where a scan should go on is gone: it must start over.
    pub fn is_place_lost(&self) -> bool {
        self.is(KEY_NOT_FOUND) || self.is(CAPPED_POSITION_LOST) || self.is(FOREIGN_TOKEN)
    }

    /// The fault to report when trying again did not help.
    pub fn fault(&self) -> StreamFault {
        match self {
            SourceError::Login(_) => StreamFault::Refused {
                detail: self.to_string(),
                cure: "check user, password and authSource in the deployment's connection string".to_owned(),
            },
            SourceError::Uri(_) => StreamFault::Refused {
                detail: self.to_string(),
                cure: "correct the deployment's connection string".to_owned(),
            },
            _ => StreamFault::Unreachable {
                detail: self.to_string(),
            },
        }
    }
}
