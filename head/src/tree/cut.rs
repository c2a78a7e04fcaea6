//! Where a node ends: pure functions of what is in it.

use headwater_model::limits;

/// Whether a record of this encoded length gets a leaf of its own.
pub(super) fn stands_alone(len: usize) -> bool {
    len > limits::LEAF_MAX_BYTES
}

/// Whether a leaf that now holds `size` bytes ends after its newest record, which has this key and encoded length.
///
/// The chance of a cut grows with the record's length, so leaves of large and of small records come out alike. It is
/// taken from the length rounded up to a power of two, so that a document that grows a little moves no boundary.
pub(super) fn leaf_ends(size: usize, key: &[u8], len: usize) -> bool {
    if size < limits::LEAF_MIN_BYTES {
        return false;
    }
    let share = len.next_power_of_two().min(limits::LEAF_TARGET_BYTES);
    let bound = (u64::MAX / limits::LEAF_TARGET_BYTES as u64) * share as u64;
    size >= limits::LEAF_MAX_BYTES || hash(0, key) < bound
}

/// Whether an interior node of this level ends after its newest child, whose last key is given.
///
/// Large keys end a node by its size, but never before its second child: levels must become fewer.
pub(super) fn node_ends(level: u8, children: usize, size: usize, key: &[u8]) -> bool {
    children >= 2
        && (children >= limits::NODE_MAX_CHILDREN
            || size >= limits::LEAF_MAX_BYTES
            || (children >= limits::NODE_MIN_CHILDREN
                && hash(level, key) < u64::MAX / limits::NODE_TARGET_CHILDREN as u64))
}

/// Spreads keys evenly over 64 bits; differently at each level, or the ends of leaves would all be ends of nodes.
///
/// Eight bytes at a time are mixed in by a multiplication of 64 by 64 bits whose halves are folded together. The
/// function is part of the format: another one gives other blocks.
fn hash(level: u8, key: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |a: u64, b: u64| {
        let wide = u128::from(a) * u128::from(b);
        wide as u64 ^ (wide >> 64) as u64
    };
    let mut state = fold(u64::from(level) + 1, ODD) ^ (key.len() as u64);
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word), ODD).wrapping_add(ODD);
    }
    fold(state, ODD ^ 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_part_of_the_format() {
        assert_eq!(
            [hash(0, b""), hash(0, b"a"), hash(1, b"a"), hash(0, b"a longer key")],
            [
                13835203002710412123,
                760203884371664086,
                6964400002872382381,
                7038279653142736796
            ]
        );
    }

    #[test]
    fn counting_keys_spread_evenly() {
        for level in 0..3 {
            let low = (0u64..100_000)
                .filter(|n| hash(level, &n.to_be_bytes()) < u64::MAX / 256)
                .count();
            assert!((300..500).contains(&low), "level {level}: {low}");
        }
    }
}
