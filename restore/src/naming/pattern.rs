//! Patterns over namespaces and renames by patterns.

use headwater_model::Namespace;
use headwater_protocol::admin::Rename;

use super::NamingFault;

/// Text with `*` in it: the literals around the stars.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    literals: Vec<String>,
}

impl Glob {
    fn new(text: &str) -> Self {
        Glob {
            literals: text.split('*').map(str::to_owned).collect(),
        }
    }

    fn stars(&self) -> usize {
        self.literals.len() - 1
    }

    /// What each star stands for in `text`, or `None` if it does not match. Earlier stars take as little as they can.
    fn captures<'t>(&self, text: &'t str) -> Option<Vec<&'t str>> {
        let [first, between @ .., last] = self.literals.as_slice() else {
            return (self.literals.first().is_some_and(|only| only == text)).then(Vec::new);
        };
        let mut rest = text.strip_prefix(first.as_str())?;
        let mut captures = Vec::with_capacity(self.stars());
        for literal in between {
            let (capture, after) = rest.split_once(literal.as_str())?;
            captures.push(capture);
            rest = after;
        }
        captures.push(rest.strip_suffix(last.as_str())?);
        Some(captures)
    }

    fn fill(&self, captures: &[&str]) -> String {
        let mut out = String::new();
        for (n, literal) in self.literals.iter().enumerate() {
            out.push_str(literal);
            out.push_str(captures.get(n).copied().unwrap_or_default());
        }
        out
    }
}

/// `db.coll` with stars. A star before the first dot stays within the database; a pattern without a dot, such as `*`,
/// is held against the whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    db: Option<Glob>,
    rest: Glob,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, NamingFault> {
        let malformed = || NamingFault::Malformed(text.to_owned());
        let (db, rest) = match text.split_once('.') {
            Some(("", _) | (_, "")) => return Err(malformed()),
            Some((db, rest)) => (Some(Glob::new(db)), rest),
            None if text.contains('*') => (None, text),
            None => return Err(malformed()),
        };
        Ok(Pattern {
            text: text.to_owned(),
            db,
            rest: Glob::new(rest),
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the namespace is meant.
    pub fn matches(&self, namespace: &Namespace) -> bool {
        self.with_captures(namespace, |_| ()).is_some()
    }

    fn with_captures<T>(&self, namespace: &Namespace, f: impl FnOnce(&[&str]) -> T) -> Option<T> {
        match &self.db {
            Some(db) => {
                let mut captures = db.captures(&namespace.db)?;
                captures.extend(self.rest.captures(&namespace.coll)?);
                Some(f(&captures))
            }
            None => Some(f(&self.rest.captures(&namespace.to_string())?)),
        }
    }

    fn stars(&self) -> usize {
        self.db.as_ref().map_or(0, Glob::stars) + self.rest.stars()
    }
}

/// One rename; a star stands for the same text on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renaming {
    from: Pattern,
    to: Glob,
}

impl Renaming {
    /// Reads a pair of patterns.
    pub fn new(rename: &Rename) -> Result<Self, NamingFault> {
        let from = Pattern::new(&rename.from)?;
        Pattern::new(&rename.to)?;
        let to = Glob::new(&rename.to);
        if from.stars() == to.stars() {
            Ok(Renaming { from, to })
        } else {
            Err(NamingFault::StarsDiffer {
                from: rename.from.clone(),
                to: rename.to.clone(),
            })
        }
    }

    /// The pattern of the names it changes.
    pub fn from(&self) -> &Pattern {
        &self.from
    }

    /// The new name; `None` if this rename is not about `namespace`.
    pub fn apply(&self, namespace: &Namespace) -> Option<Result<Namespace, NamingFault>> {
        let to = self.from.with_captures(namespace, |captures| self.to.fill(captures))?;
        let fault = || NamingFault::Target {
            to: to.clone(),
            why: "it is not of the form database.collection",
        };
        Some(Namespace::parse(&to).ok_or_else(fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> Namespace {
        Namespace::parse(text).unwrap()
    }

    #[test]
    fn patterns_match_databases_and_collections_apart() {
        for (pattern, name, matches) in [
            ("shop.orders", "shop.orders", true),
            ("shop.orders", "shop.orders.old", false),
            ("shop.*", "shop.orders", true),
            ("shop.*", "shop.orders.2024", true),
            ("shop.*", "shop2.orders", false),
            ("shop*.*", "shop2.orders", true),
            ("*", "shop.orders", true),
            ("*.orders", "shop.orders", true),
            ("*.orders", "shop.old.orders", false),
            ("shop.*.old", "shop.orders.old", true),
            ("shop.or*s", "shop.orders", true),
            ("shop.order*", "shop.order", true),
            ("shop.a*b*c", "shop.axxbyyc", true),
            ("shop.a*b*c", "shop.axxbyy", false),
            ("*orders", "shop.orders", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).unwrap().matches(&ns(name)),
                matches,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["", "shop", ".orders", "shop."] {
            assert!(matches!(Pattern::new(wrong), Err(NamingFault::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn a_star_stands_for_the_same_text_on_both_sides() {
        for (from, to, name, renamed) in [
            ("shop.*", "shop2.*", "shop.orders", Some("shop2.orders")),
            ("shop.*", "shop2.*", "crm.people", None),
            ("shop.orders", "shop.orders_old", "shop.orders", Some("shop.orders_old")),
            ("*.orders", "*.bills", "shop.orders", Some("shop.bills")),
            ("shop.*.*", "old.*_*", "shop.a.b", Some("old.a_b")),
            ("*", "copy_*", "shop.a.b", Some("copy_shop.a.b")),
        ] {
            let rename = Renaming::new(&Rename {
                from: from.into(),
                to: to.into(),
            })
            .unwrap();
            let got = rename.apply(&ns(name)).map(|r| r.unwrap().to_string());
            assert_eq!(got.as_deref(), renamed, "{from}={to} on {name}");
        }
    }

    #[test]
    fn a_rename_with_unequal_stars_is_refused() {
        let rename = Rename {
            from: "shop.*".into(),
            to: "shop2.orders".into(),
        };
        assert!(matches!(Renaming::new(&rename), Err(NamingFault::StarsDiffer { .. })));
    }
}
