//! Checks and proofs find nothing where nothing is damaged.

use headwater_protocol::integrity::{CheckKind, CheckState, CheckView};

/// A check or a proof that is not as the store is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a check says what is so: {kind} {number} of a whole store ended as {state}: {findings:?}")]
pub struct Misjudged {
    /// Its number.
    pub number: u64,
    /// What it looked at.
    pub kind: &'static str,
    /// How it ended.
    pub state: String,
    /// What it says of it.
    pub findings: Vec<String>,
}

/// Judges a check that ended, of a store in which nothing was damaged. A proof may say that it lacks a second image.
pub fn sound(check: &CheckView) -> Result<(), Misjudged> {
    if check.state == CheckState::Sound && check.faults == 0 && check.mended == 0 {
        return Ok(());
    }
    let no_two_ways = |error: &String| error.contains("no two ways");
    if check.kind == CheckKind::Proof && check.error.as_ref().is_some_and(no_two_ways) {
        return Ok(());
    }
    Err(Misjudged {
        number: check.number,
        kind: check.kind.text(),
        state: format!("{:?}", check.state),
        findings: check.findings.iter().chain(&check.error).cloned().collect(),
    })
}
