//! `$v: 1` modifiers: the update form of servers up to 4.4 (`reference/oplog.md` §1.6), `$set` and `$unset` with
//! dotted paths.
//!
//! All paths are merged into one tree whose children are visited in the order of their names; that order decides the
//! order of newly made fields, and it is the only thing in which the server versions differ.

use std::borrow::Cow;
use std::cmp::Ordering;

use headwater_model::limits;

use super::DiffFault;
use crate::key::DocumentKey;
use crate::raw::{self, BsonFault, Element, Writer, kind};

/// The order in which the server that wrote the update visits sibling names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOrder {
    /// By bytes: up to 4.4.
    Bytewise,
    /// As numbers where both are canonical digits, else by bytes: from 5.0 on.
    Numeric,
}

impl NameOrder {
    fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            NameOrder::Numeric if is_index(a) && is_index(b) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            _ => a.cmp(b),
        }
    }
}

/// Applies modifiers to a document and gives the new one.
pub fn apply(document: &[u8], modifiers: &[u8], order: NameOrder) -> Result<Vec<u8>, DiffFault> {
    let mut out = Vec::with_capacity(document.len() + modifiers.len());
    Branch::read(modifiers, order)?.apply_to_document(&mut out, document, 0)?;
    Ok(out)
}

/// Whether the modifiers can be replayed: then [`apply`] can fail only by size or on a damaged document.
pub fn check(modifiers: &[u8], order: NameOrder) -> Result<(), DiffFault> {
    Branch::read(modifiers, order).map(|_| ())
}

fn is_index(name: &[u8]) -> bool {
    matches!(name, [b'0'] | [b'1'..=b'9', ..]) && name.iter().all(u8::is_ascii_digit)
}

/// The number a canonical array index stands for; `None` when it is none. Saturates: too large is refused later.
fn array_index(name: &[u8]) -> Option<usize> {
    let digits = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
    is_index(name).then(|| name.iter().fold(0, digits))
}

#[derive(Clone, Copy)]
enum Kind {
    Set,
    Unset,
}

enum Node<'a> {
    Set(Element<'a>),
    Unset,
    Branch(Branch<'a>),
}

/// Children by name, in the order in which they are visited.
struct Branch<'a> {
    order: NameOrder,
    children: Vec<(&'a [u8], Node<'a>)>,
}

impl<'a> Branch<'a> {
    fn read(modifiers: &'a [u8], order: NameOrder) -> Result<Self, DiffFault> {
        let mut root = Branch {
            order,
            children: Vec::new(),
        };
        for operator in raw::elements(modifiers) {
            let operator = operator?;
            let kind = match operator.name {
                b"$v" => continue,
                b"$set" => Kind::Set,
                b"$unset" => Kind::Unset,
                _ => return Err(DiffFault::NotReplayable),
            };
            let paths = operator
                .document()
                .ok_or(DiffFault::Grammar("a modifier is no object"))?;
            for path in raw::elements(paths) {
                root.add(path?, kind)?;
            }
        }
        Ok(root)
    }

    fn add(&mut self, path: Element<'a>, kind: Kind) -> Result<(), DiffFault> {
        let mut parts = path.name.split(|&b| b == b'.').peekable();
        let mut branch = self;
        let mut depth = 0;
        while let Some(part) = parts.next() {
            let order = branch.order;
            let found = branch.position(part);
            let node = match (found, parts.peek().is_some()) {
                (Ok(at), true) => &mut branch.children[at].1,
                (Ok(_), false) => return Err(DiffFault::Grammar("two paths in conflict")),
                (Err(at), more) => {
                    let node = match kind {
                        _ if more => Node::Branch(Branch {
                            order,
                            children: Vec::new(),
                        }),
                        Kind::Set => Node::Set(path),
                        Kind::Unset => Node::Unset,
                    };
                    branch.children.insert(at, (part, node));
                    &mut branch.children[at].1
                }
            };
            branch = match node {
                Node::Branch(inner) => inner,
                _ if parts.peek().is_none() => return Ok(()),
                _ => return Err(DiffFault::Grammar("two paths in conflict")),
            };
            depth += 1;
            if depth >= limits::BSON_MAX_DEPTH {
                return Err(BsonFault::TooDeep.into());
            }
        }
        Ok(())
    }

    /// Where the child of that name is, or where it belongs.
    fn position(&self, name: &[u8]) -> Result<usize, usize> {
        // The numeric order is none (2 < 10 < 1a < 2), so a search could miss there what a look through finds.
        if self.order == NameOrder::Numeric
            && let Some(at) = self.children.iter().position(|(other, _)| *other == name)
        {
            return Ok(at);
        }
        self.children
            .binary_search_by(|(other, _)| self.order.compare(other, name))
    }

    fn apply_to_document(&self, out: &mut Vec<u8>, document: &[u8], depth: usize) -> Result<(), DiffFault> {
        let writer = Writer::begin(out);
        let mut found = vec![false; self.children.len()];
        for field in raw::elements(document) {
            let field = field?;
            match self.position(field.name) {
                // Of a name that occurs twice the first is meant.
                Ok(at) if !found[at] => {
                    found[at] = true;
                    self.children[at].1.apply_to_field(out, field, depth)?;
                }
                _ => raw::element(out, field),
            }
        }
        for ((name, node), _) in self.children.iter().zip(&found).filter(|(_, found)| !**found) {
            node.create(out, name)?;
        }
        Ok(writer.end(out)?)
    }

    fn apply_to_array(&self, out: &mut Vec<u8>, array: &[u8], depth: usize) -> Result<(), DiffFault> {
        let mut items = raw::elements(array)
            .map(|item| {
                item.map(|item| Item {
                    kind: item.kind,
                    name: item.name.into(),
                    value: item.value.into(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        // One after the other, since what an earlier one pads a later one finds.
        for (name, node) in &self.children {
            let Some(at) = array_index(name) else { continue };
            match items.get_mut(at) {
                Some(item) => node.apply_to_item(item, depth)?,
                None => {
                    let mut made = Vec::new();
                    if node.create(&mut made, name)? {
                        pad(&mut items, at)?;
                        items.push(Item {
                            kind: made[0],
                            name: (*name).into(),
                            value: made.split_off(name.len() + 2).into(),
                        });
                    }
                }
            }
        }
        let writer = Writer::begin(out);
        for item in &items {
            raw::element(
                out,
                Element {
                    kind: item.kind,
                    name: &item.name,
                    value: &item.value,
                },
            );
        }
        Ok(writer.end(out)?)
    }
}

/// The most elements the server makes up in front of a new one.
const PADDING_MAX: usize = 1_500_000;

fn pad(items: &mut Vec<Item<'_>>, to: usize) -> Result<(), DiffFault> {
    if to - items.len() > PADDING_MAX {
        return Err(DiffFault::Grammar("an array index too far beyond the end"));
    }
    for at in items.len()..to {
        let name = raw::decimal(at, &mut [0; 20]).to_vec();
        items.push(Item {
            kind: kind::NULL,
            name: name.into(),
            value: Cow::Borrowed(&[]),
        });
    }
    Ok(())
}

/// An element of an array while it is changed.
struct Item<'a> {
    kind: u8,
    name: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
}

impl Node<'_> {
    fn apply_to_field(&self, out: &mut Vec<u8>, old: Element<'_>, depth: usize) -> Result<(), DiffFault> {
        let is_id = depth == 0 && old.name == b"_id";
        match self {
            Node::Set(new) => {
                if is_id && DocumentKey::of_id(new.kind, new.value)? != DocumentKey::of_id(old.kind, old.value)? {
                    return Err(DiffFault::Id);
                }
                raw::element(out, Element { name: old.name, ..*new });
            }
            Node::Unset if is_id => raw::element(out, old),
            Node::Unset => {}
            Node::Branch(branch) => match old.kind {
                kind::DOCUMENT => {
                    raw::name(out, old.kind, old.name);
                    branch.apply_to_document(out, old.value, depth + 1)?;
                }
                kind::ARRAY => {
                    raw::name(out, old.kind, old.name);
                    branch.apply_to_array(out, old.value, depth + 1)?;
                }
                // A path through a scalar leads nowhere; the other paths still count.
                _ => raw::element(out, old),
            },
        }
        Ok(())
    }

    fn apply_to_item(&self, item: &mut Item<'_>, depth: usize) -> Result<(), DiffFault> {
        match self {
            Node::Set(new) => {
                item.kind = new.kind;
                item.value = new.value.to_vec().into();
            }
            Node::Unset => {
                item.kind = kind::NULL;
                item.value = Cow::Borrowed(&[]);
            }
            Node::Branch(branch) => {
                let mut out = Vec::new();
                match item.kind {
                    kind::DOCUMENT => branch.apply_to_document(&mut out, &item.value, depth + 1)?,
                    kind::ARRAY => branch.apply_to_array(&mut out, &item.value, depth + 1)?,
                    _ => return Ok(()),
                }
                item.value = out.into();
            }
        }
        Ok(())
    }

    /// Writes the field for a path that is missing; objects on the way, never arrays. Writes nothing, and says so, when
    /// the tree only unsets.
    fn create(&self, out: &mut Vec<u8>, name: &[u8]) -> Result<bool, DiffFault> {
        match self {
            Node::Set(new) => {
                raw::element(out, Element { name, ..*new });
                Ok(true)
            }
            Node::Unset => Ok(false),
            Node::Branch(branch) => {
                let start = out.len();
                raw::name(out, kind::DOCUMENT, name);
                let writer = Writer::begin(out);
                let mut any = false;
                for (name, node) in &branch.children {
                    any |= node.create(out, name)?;
                }
                writer.end(out)?;
                if !any {
                    out.truncate(start);
                }
                Ok(any)
            }
        }
    }
}
