//! "Did you mean": the known name nearest to a mistyped one.

/// The nearest of `known`, if it is near enough to be meant: a third of its letters may differ.
pub(crate) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (distance(&typed.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(far, name)| *far <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// Letters to insert, delete or replace to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_name_and_nonsense_does_not() {
        let known = ["listen", "interval", "memtableBudget"];
        assert_eq!(nearest("lisen", known.into_iter()), Some("listen"));
        assert_eq!(nearest("memtablebudget", known.into_iter()), Some("memtableBudget"));
        assert_eq!(nearest("compression", known.into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
