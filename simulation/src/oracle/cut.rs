//! What is restored of all members at one cluster time is one cut: every account once, under its owner, and all the money.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use headwater_model::Ts;

use super::restored::Restored;
use crate::mongo::Mongo;
use crate::mongo::cluster::ClusterDraw;
use crate::mongo::history::Fate;
use crate::trace;

/// Members that do not fit each other.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Torn {
    /// An account is not where its owner is.
    #[error("a checkpoint is one cut: at {at} account {account} is on none of its owners")]
    Missing {
        /// The instant.
        at: Ts,
        /// Which.
        account: i64,
    },
    /// Money was made or lost.
    #[error("a checkpoint is one cut: at {at} all accounts hold {found}, not {wanted}")]
    Sum {
        /// The instant.
        at: Ts,
        /// What they hold.
        found: i64,
        /// What was paid in.
        wanted: i64,
    },
    /// It shows an instant at which nobody knew yet what belongs to it.
    #[error(
        "a checkpoint is one cut: at {at} {set} was shown while {transactions} transactions were prepared and not decided"
    )]
    Undecided {
        /// The instant.
        at: Ts,
        /// The member.
        set: String,
        /// How many.
        transactions: usize,
    },
}

/// Whether all transactions are decided that a member had prepared by then. Notes what makes the instant worth a look.
pub fn decided(set: &Mongo, at: Ts) -> Result<(), Torn> {
    let mut fates: BTreeMap<Fate, usize> = BTreeMap::new();
    for (_, fate) in set.history.prepared(at) {
        *fates.entry(fate).or_default() += 1;
    }
    for fate in fates.keys() {
        match fate {
            Fate::Committed => trace::mark("cut: transaction committed past it"),
            Fate::CommittedLater => trace::mark("cut: transaction prepared by then, committed later"),
            Fate::Aborted => trace::mark("cut: transaction prepared by then, aborted"),
            Fate::Undecided => {}
        }
    }
    match fates.get(&Fate::Undecided) {
        None => Ok(()),
        Some(transactions) => Err(Torn::Undecided {
            at,
            set: set.name.clone(),
            transactions: *transactions,
        }),
    }
}

/// Judges what was restored of the shards, by their names, with what the config servers have at that time.
pub fn check(at: Ts, draw: &ClusterDraw, config: &Mongo, shards: &BTreeMap<String, Restored>) -> Result<(), Torn> {
    let owners = owners(config, at);
    let (mut sum, mut strays) = (0, 0);
    for account in 0..draw.accounts {
        let owner = owners.iter().find(|(range, _)| range.contains(&account));
        let owner = owner.map_or("", |(_, owner)| owner.as_str());
        let held = shards
            .iter()
            .filter_map(|(name, shard)| Some((name, shard.balance(account)?)));
        let held: Vec<_> = held.collect();
        strays += held.len().saturating_sub(1);
        let own = held.iter().find(|(name, _)| *name == owner);
        sum += own.ok_or(Torn::Missing { at, account })?.1;
    }
    if strays > 0 {
        trace::mark("cut: in the middle of a migration");
    }
    if sum != draw.sum() {
        return Err(Torn::Sum {
            at,
            found: sum,
            wanted: draw.sum(),
        });
    }
    Ok(())
}

/// Which shard owns which accounts.
fn owners(config: &Mongo, at: Ts) -> Vec<(std::ops::Range<i64>, String)> {
    let count = config.history.count_at(at);
    let chunks = config.history.named("config", "chunks", count);
    let bound = |row: &Document, name: &str| match row.get_document(name).ok()?.get("k")? {
        Bson::MinKey => Some(i64::MIN),
        Bson::MaxKey => Some(i64::MAX),
        bound => bound.as_i64(),
    };
    let rows = chunks
        .into_iter()
        .flat_map(|uuid| config.history.documents_at(uuid, at));
    let owner = |(_, row): (i64, &Document)| {
        let range = bound(row, "min")?..bound(row, "max")?;
        Some((range, row.get_str("shard").ok()?.to_owned()))
    };
    rows.filter_map(owner).collect()
}
