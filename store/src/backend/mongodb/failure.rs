//! What the driver's errors mean to us.

use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure};

use crate::objects::StoreError;

const DUPLICATE_KEY: i32 = 11000;
/// `OutOfDiskSpace`, and the code of a quota that is used up.
const FULL: [i32; 2] = [14031, 12501];
/// So much of the server's words is passed on.
const WORDS: usize = 400;

fn codes(error: &Error) -> Vec<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => vec![command.code],
        ErrorKind::Write(WriteFailure::WriteError(write)) => vec![write.code],
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => vec![concern.code],
        ErrorKind::InsertMany(many) => {
            let writes = many.write_errors.iter().flatten().map(|write| write.code);
            writes.chain(many.write_concern_error.iter().map(|c| c.code)).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether the key is taken.
pub fn is_taken(error: &Error) -> bool {
    codes(error).contains(&DUPLICATE_KEY)
}

/// Whether the same may succeed in a moment: another primary is being elected, or a transaction met another.
pub fn is_passing(error: &Error) -> bool {
    // Host unreachable or not found, network timeout, shutdown, not primary in several forms, stepped down, interrupted,
    // the majority's point not known yet.
    const ELECTING: [i32; 14] = [
        6, 7, 89, 91, 133, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436,
    ];
    let kind = error.kind.as_ref();
    error.contains_label(TRANSIENT_TRANSACTION_ERROR)
        || matches!(kind, ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
        || codes(error).iter().any(|code| ELECTING.contains(code))
}

/// As our callers understand it.
pub fn of(key: &str, error: &Error) -> StoreError {
    if codes(error).iter().any(|code| FULL.contains(code)) {
        return StoreError::Full(key.to_owned());
    }
    let words: String = error
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS)
        .collect();
    StoreError::unavailable(key, words)
}

/// Whether a collection that shall be made is there.
pub fn exists_already(error: &Error) -> bool {
    const NAMESPACE_EXISTS: i32 = 48;
    codes(error).contains(&NAMESPACE_EXISTS)
}
