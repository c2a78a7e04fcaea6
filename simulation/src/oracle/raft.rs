//! The members of a cluster hold one log.

use headwater_host::memory::MemoryDisk;

/// Logs that are not one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Apart {
    /// Two members hold different entries under one index.
    #[error("one log: d{one} and d{other} hold different entries under index {index}")]
    Entries {
        /// A member.
        one: usize,
        /// Another.
        other: usize,
        /// Where.
        index: u64,
    },
}

/// Where entries lie on a member's disk, by index; see `cluster/src/raft/disk.rs`.
const LOG: &[u8] = b"raft/log/";

/// Holds the logs of all members against each other. For a cluster at rest: while it works, entries that no majority took
/// may differ.
pub fn check(disks: &[MemoryDisk]) -> Result<(), Apart> {
    let logs: Vec<_> = disks.iter().map(MemoryDisk::durable).collect();
    for (one, log) in logs.iter().enumerate() {
        for (other, other_log) in logs.iter().enumerate().skip(one + 1) {
            for (key, entry) in log.iter().filter(|(key, _)| key.starts_with(LOG)) {
                if other_log.get(key).is_some_and(|found| found != entry) {
                    let index = key[LOG.len()..].try_into().map_or(0, u64::from_be_bytes);
                    return Err(Apart::Entries {
                        one: one + 1,
                        other: other + 1,
                        index,
                    });
                }
            }
        }
    }
    Ok(())
}
