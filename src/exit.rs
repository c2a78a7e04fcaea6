//! How the program ends: the documented table of exit codes. Scripts rely on it, so a number never changes meaning.

use std::process::ExitCode;

/// An end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It could not be done.
    Failed = 1,
    /// The command makes no sense as typed.
    Usage = 2,
    /// No such deployment, snapshot or restore.
    NotFound = 4,
    /// Not in this state.
    Conflict = 5,
    /// No key, or a wrong one.
    Auth = 6,
    /// No service answers.
    Unreachable = 7,
    /// The instant asked for is not in the timeline.
    NotRestorable = 8,
    /// What was restored is not what was backed up.
    Verification = 9,
    /// A check found damage.
    Damaged = 10,
    /// Busy or full; the same command may succeed later.
    Retry = 75,
    /// Stopped by the user.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in order.
    pub const ALL: [Exit; 12] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::Conflict,
        Exit::Auth,
        Exit::Unreachable,
        Exit::NotRestorable,
        Exit::Verification,
        Exit::Damaged,
        Exit::Retry,
        Exit::Interrupted,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotFound => "not_found",
            Exit::Conflict => "conflict",
            Exit::Auth => "auth",
            Exit::Unreachable => "unreachable",
            Exit::NotRestorable => "not_restorable",
            Exit::Verification => "verification",
            Exit::Damaged => "damaged",
            Exit::Retry => "retry",
            Exit::Interrupted => "interrupted",
        }
    }

    /// What it means and what to do, for `headwater explain exit`.
    pub fn explanation(self) -> (&'static str, &'static str) {
        match self {
            Exit::Ok => ("Everything asked for was done.", "Nothing to do."),
            Exit::Failed => (
                "What was asked for could not be done; the message says why.",
                "Follow the help line of the message; look into the log of the daemon if there is none.",
            ),
            Exit::Usage => (
                "The command makes no sense as typed, or a confirmation was needed and could not be asked for.",
                "See `headwater COMMAND --help`; give --yes where a script must confirm.",
            ),
            Exit::NotFound => (
                "There is no deployment, snapshot or restore of that name.",
                "See `headwater deployment list`, `headwater snapshot list NAME` or `headwater restores list`.",
            ),
            Exit::Conflict => (
                "It cannot be done in the present state, for example because the thing exists already or is busy.",
                "See `headwater status`, then change the state or the command.",
            ),
            Exit::Auth => (
                "The service did not accept the key, or there was none.",
                "Give --key-file or HEADWATER_KEY_FILE; an administrator's key lies in admin.key in the daemon's folder.",
            ),
            Exit::Unreachable => (
                "No service answered at the addresses given.",
                "Start the daemon, or give its address with --service or HEADWATER_SERVICE.",
            ),
            Exit::NotRestorable => (
                "The instant asked for is in no restorable range.",
                "See `headwater timeline NAME` and choose an instant within a range.",
            ),
            Exit::Verification => (
                "The data was written, but it is not what the backup holds; do not use the target.",
                "Make sure that nothing else writes to the target, and restore again.",
            ),
            Exit::Damaged => (
                "A check or a proof found that something at rest is not what it should be.",
                "See `headwater check status NAME` for what is concerned; take a fresh snapshot, or resync if the head is.",
            ),
            Exit::Retry => (
                "The service is busy, starting or out of space; nothing was done.",
                "Run the same command again later.",
            ),
            Exit::Interrupted => (
                "You stopped the command. Work that the daemon does goes on.",
                "For a restore: `headwater restores show ID`.",
            ),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_documented() {
        let table: Vec<(u8, &str)> = Exit::ALL.iter().map(|exit| (exit.code(), exit.name())).collect();
        let documented = [
            (0, "ok"),
            (1, "failed"),
            (2, "usage"),
            (4, "not_found"),
            (5, "conflict"),
            (6, "auth"),
            (7, "unreachable"),
            (8, "not_restorable"),
            (9, "verification"),
            (10, "damaged"),
            (75, "retry"),
            (130, "interrupted"),
        ];
        assert_eq!(table, documented);
    }
}
