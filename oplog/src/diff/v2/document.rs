//! The edits of one level of a document.

use std::cell::Cell;

use super::{DiffFault, Sub, deeper};
use crate::key::DocumentKey;
use crate::raw::{self, Element, Writer, kind};

/// What happens to one field.
#[derive(Clone, Copy)]
pub enum Action<'a> {
    Delete,
    Update(Element<'a>),
    Insert(Element<'a>),
    Binary(Binary<'a>),
    Sub(Sub<'a>),
}

/// One field's edit.
pub struct Edit<'a> {
    name: &'a [u8],
    pub action: Action<'a>,
    /// Set once an update found its field; the others are appended.
    found: Cell<bool>,
}

/// The edits of one level, in the order of the diff.
pub struct Edits<'a> {
    pub all: Vec<Edit<'a>>,
    /// Positions in `all` by name; empty while there are few enough to look through.
    by_name: Vec<u32>,
}

/// Up to this many edits a look through beats a search.
const FEW: usize = 12;

impl<'a> Edits<'a> {
    /// Reads one level; sub-diffs are only told apart.
    pub fn read(diff: &'a [u8]) -> Result<Self, DiffFault> {
        let mut edits = Edits {
            all: Vec::new(),
            by_name: Vec::new(),
        };
        let mut next_rank = 0;
        for section in raw::elements(diff) {
            let section = section?;
            let rank = match section.name {
                b"d" => 0,
                b"u" => 1,
                b"i" => 2,
                b"b" => 3,
                [b's', ..] => 4,
                _ => return Err(DiffFault::Grammar("an unknown section")),
            };
            if rank < next_rank {
                return Err(DiffFault::Grammar("sections out of order"));
            }
            if rank == 4 {
                next_rank = 4;
                edits.add(&section.name[1..], Action::Sub(Sub::read(&section)?));
                continue;
            }
            next_rank = rank + 1;
            for field in raw::elements(section.document().ok_or(DiffFault::Grammar("a section is no object"))?) {
                let field = field?;
                let action = match rank {
                    0 => Action::Delete,
                    1 => Action::Update(field),
                    2 => Action::Insert(field),
                    _ => Action::Binary(Binary::read(field)?),
                };
                edits.add(field.name, action);
            }
        }
        if next_rank == 0 {
            return Err(DiffFault::Grammar("no section"));
        }
        edits.indexed()
    }

    fn add(&mut self, name: &'a [u8], action: Action<'a>) {
        self.all.push(Edit {
            name,
            action,
            found: Cell::new(false),
        });
    }

    fn indexed(mut self) -> Result<Self, DiffFault> {
        let twice = if self.all.len() <= FEW {
            let names = |(at, edit): (usize, &Edit<'_>)| self.all[..at].iter().any(|other| other.name == edit.name);
            self.all.iter().enumerate().any(names)
        } else {
            self.by_name = (0..self.all.len() as u32).collect();
            self.by_name.sort_unstable_by_key(|&at| self.all[at as usize].name);
            self.by_name
                .windows(2)
                .any(|pair| self.all[pair[0] as usize].name == self.all[pair[1] as usize].name)
        };
        if twice {
            Err(DiffFault::Grammar("one name twice"))
        } else {
            Ok(self)
        }
    }

    fn find(&self, name: &[u8]) -> Option<&Edit<'a>> {
        if self.by_name.is_empty() {
            return self.all.iter().find(|edit| edit.name == name);
        }
        let at = self
            .by_name
            .binary_search_by_key(&name, |&at| self.all[at as usize].name)
            .ok()?;
        Some(&self.all[self.by_name[at] as usize])
    }

    /// Writes the changed document.
    pub fn apply(&self, out: &mut Vec<u8>, document: &[u8], depth: usize) -> Result<(), DiffFault> {
        let inner = deeper(depth)?;
        let writer = Writer::begin(out);
        for field in raw::elements(document) {
            let field = field?;
            match self.find(field.name) {
                None => raw::element(out, field),
                Some(edit) => edit.apply(out, field, inner)?,
            }
        }
        for edit in &self.all {
            match edit.action {
                Action::Update(field) if !edit.found.get() => raw::element(out, field),
                Action::Insert(field) => raw::element(out, field),
                _ => {}
            }
        }
        Ok(writer.end(out)?)
    }
}

impl Edit<'_> {
    fn apply(&self, out: &mut Vec<u8>, old: Element<'_>, depth: usize) -> Result<(), DiffFault> {
        // The server takes back a lost _id and refuses a changed one; depth 1 is the document itself.
        let is_id = depth == 1 && old.name == b"_id";
        match self.action {
            Action::Delete if is_id => raw::element(out, old),
            Action::Delete | Action::Insert(_) => {}
            Action::Update(field) => {
                if is_id && DocumentKey::of_id(field.kind, field.value)? != DocumentKey::of_id(old.kind, old.value)? {
                    return Err(DiffFault::Id);
                }
                raw::element(out, field);
                self.found.set(true);
            }
            Action::Binary(binary) => binary.apply(out, old),
            Action::Sub(sub) => sub.apply(out, old.name, Some(old), depth)?,
        }
        Ok(())
    }
}

/// `{o: offset, d: BinData}`: the first `o` bytes stay, `d` follows.
#[derive(Clone, Copy)]
pub struct Binary<'a> {
    offset: usize,
    data: &'a [u8],
}

impl<'a> Binary<'a> {
    fn read(field: Element<'a>) -> Result<Self, DiffFault> {
        const SHAPE: DiffFault = DiffFault::Grammar("a binary diff without offset or data");
        let diff = field.document().ok_or(SHAPE)?;
        let offset = raw::find(diff, "o")?.and_then(|offset| offset.number());
        let offset = offset.and_then(|offset| usize::try_from(offset).ok()).ok_or(SHAPE)?;
        let data = raw::find(diff, "d")?.filter(|data| data.kind == kind::BINARY);
        let data = data.and_then(|data| data.value.get(5..)).ok_or(SHAPE)?;
        Ok(Binary { offset, data })
    }

    /// What does not fit becomes null, as with sub-diffs.
    fn apply(self, out: &mut Vec<u8>, old: Element<'_>) {
        let kept = match old.value.split_first_chunk::<5>() {
            Some((head, bytes)) if old.kind == kind::BINARY => bytes.get(..self.offset).map(|kept| (head[4], kept)),
            _ => None,
        };
        let Some((subtype, kept)) = kept else {
            raw::name(out, kind::NULL, old.name);
            return;
        };
        raw::name(out, kind::BINARY, old.name);
        out.extend_from_slice(&((kept.len() + self.data.len()) as u32).to_le_bytes());
        out.push(subtype);
        out.extend_from_slice(kept);
        out.extend_from_slice(self.data);
    }
}
