//! Finds the place where the tail goes on, and knows when it is gone for good: `reference/oplog.md` §5.1.

use headwater_model::Optime;

use crate::source::oplog::Sight;
use crate::source::{Node, Source, SourceError};

/// What one server has at the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Exactly the entry remembered.
    Here,
    /// Its majority-committed view ends before the place: normal after a restart, and on a lagging member.
    Behind,
    /// The place is truncated, or another history stands there.
    Gone(String),
}

/// Judges the first entry a server gave for `ts >= after.ts`; `newest` is the last entry of its view.
///
/// An oplog does not prove by a gap in the ordinals that something is missing, and a read from a truncated position silently
/// starts later: only the exact entry proves that nothing is lost.
pub fn judge(after: Optime, first: Option<Optime>, newest: Option<Optime>) -> Finding {
    match first {
        Some(first) if first == after => Finding::Here,
        Some(first) if first.ts == after.ts => Finding::Gone(format!(
            "the entry {} was written in term {} where the backup has term {}: another history",
            first.ts, first.term, after.term
        )),
        Some(first) => Finding::Gone(format!(
            "expected the entry {after}, but the next one there is is {first}: truncated or rolled back; a larger oplog helps"
        )),
        None => match newest {
            // `newest` was read later: a view that ends behind the place may have jumped over it in between.
            Some(newest) if newest.ts < after.ts && newest.term > after.term => Finding::Gone(format!(
                "the backup ends at {after}, the source at {newest}: an earlier position in a later term, so another history"
            )),
            _ => Finding::Behind,
        },
    }
}

/// Where to tail.
pub enum Place {
    /// At this server.
    At(Node),
    /// Nowhere right now, for this reason.
    Wait(String),
    /// Nowhere ever again: the primary and every server that answers have lost it.
    Lost(String),
}

async fn look(node: &Node, after: Optime) -> Result<Finding, SourceError> {
    let first = node.entry_from(after.ts).await?;
    let newest = if first.is_none() {
        Some(node.newest(Sight::Majority).await?)
    } else {
        None
    };
    Ok(judge(after, first, newest))
}

/// Looks for the entry `after` at all members: first at a secondary (or at the primary if `primary_first`), then at the others.
pub async fn locate(source: &Source, after: Optime, primary_first: bool) -> Result<Place, SourceError> {
    let (preferred, hello) = if primary_first {
        source.primary().await?
    } else {
        source.reader().await?
    };
    let first_look = look(&preferred, after).await?;
    let detail = match first_look {
        Finding::Here => return Ok(Place::At(preferred)),
        Finding::Behind => format!("{} is not yet at {after}", preferred.address()),
        Finding::Gone(ref detail) => format!("at {}: {detail}", preferred.address()),
    };
    let mut primary_lost = hello.primary && matches!(first_look, Finding::Gone(_));
    for address in hello
        .members
        .iter()
        .filter(|address| address.to_lowercase() != preferred.address())
    {
        let node = source.member(address);
        match look(&node, after).await {
            Ok(Finding::Here) => return Ok(Place::At(node)),
            Ok(Finding::Behind) => {}
            Ok(Finding::Gone(_)) => {
                primary_lost |= node.hello().await.is_ok_and(|hello| hello.primary);
            }
            Err(error) => tracing::warn!(member = %address, "cannot be asked for the oplog position: {error}"),
        }
    }
    // A direct connection knows one server only; what that one has lost is lost.
    let lost = primary_lost || source.is_direct() && matches!(first_look, Finding::Gone(_));
    Ok(if lost { Place::Lost(detail) } else { Place::Wait(detail) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::Ts;

    fn at(seconds: u32, term: i64) -> Optime {
        Optime::new(Ts::new(seconds, 1), term)
    }

    #[test]
    fn only_the_exact_entry_proves_that_nothing_is_missing() {
        assert_eq!(judge(at(5, 2), Some(at(5, 2)), None), Finding::Here);
        assert!(
            matches!(judge(at(5, 2), Some(at(6, 2)), None), Finding::Gone(_)),
            "truncated"
        );
        assert!(
            matches!(judge(at(5, 2), Some(at(5, 3)), None), Finding::Gone(_)),
            "another term"
        );
    }

    #[test]
    fn an_empty_answer_means_behind_unless_the_terms_prove_another_history() {
        assert_eq!(judge(at(5, 2), None, Some(at(4, 2))), Finding::Behind);
        assert_eq!(judge(at(5, 2), None, Some(at(4, 1))), Finding::Behind);
        assert!(matches!(judge(at(5, 2), None, Some(at(4, 3))), Finding::Gone(_)));
        assert_eq!(
            judge(at(5, 2), None, Some(at(6, 3))),
            Finding::Behind,
            "it came meanwhile"
        );
    }
}
