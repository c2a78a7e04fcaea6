//! Reading a tree in order, opening only what is asked for.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::limits;
use headwater_store::blocks::Blocks;

use super::Root;
use super::node::{Entry, Interior, Leaf, Node, NodeFault};
use crate::error::HeadError;

/// Stands before a record or before an unopened subtree, and moves forward only.
///
/// Holds one node per level in memory.
pub struct Cursor {
    blocks: Arc<dyn Blocks>,
    from: Option<Bytes>,
    path: Vec<Open>,
}

/// What a cursor stands before.
#[derive(Clone, Copy, Debug)]
pub enum Position<'a> {
    /// A record with this key.
    Record(&'a [u8]),
    /// A subtree that was not opened yet.
    Subtree {
        /// Its level.
        level: u8,
        /// What its parent knows of it.
        entry: &'a Entry,
    },
    /// Nothing more.
    End,
}

enum Open {
    Leaf { leaf: Leaf, at: usize },
    Interior { node: Interior, at: usize },
}

impl Cursor {
    /// Before the first record whose key is not below `from`.
    pub fn new(blocks: Arc<dyn Blocks>, root: Option<&Root>, from: Option<Bytes>) -> Self {
        let wanted = root.filter(|root| from.as_ref().is_none_or(|from| root.last >= *from));
        let path = wanted
            .map(|root| Open::Interior {
                node: Interior {
                    level: root.level.saturating_add(1),
                    children: vec![root.entry()],
                },
                at: 0,
            })
            .into_iter()
            .collect();
        Cursor { blocks, from, path }
    }

    /// Where it stands.
    pub fn position(&self) -> Position<'_> {
        match self.path.last() {
            None => Position::End,
            Some(Open::Leaf { leaf, at }) => Position::Record(leaf.key_bytes(*at)),
            Some(Open::Interior { node, at }) => Position::Subtree {
                level: node.level - 1,
                entry: &node.children[*at],
            },
        }
    }

    /// The key of the record, or the last key of the subtree, that it stands before.
    pub fn bound(&self) -> Option<Bytes> {
        match self.path.last()? {
            Open::Leaf { leaf, at } => Some(leaf.key(*at)),
            Open::Interior { node, at } => Some(node.children[*at].last.clone()),
        }
    }

    /// Key and value of the record it stands before.
    pub fn record(&self) -> Option<(Bytes, Bytes)> {
        match self.path.last() {
            Some(Open::Leaf { leaf, at }) => Some((leaf.key(*at), leaf.value(*at))),
            _ => None,
        }
    }

    /// Passes over the record or the subtree it stands before.
    pub fn skip(&mut self) {
        if let Some(Open::Leaf { at, .. } | Open::Interior { at, .. }) = self.path.last_mut() {
            *at += 1;
        }
        self.leave_ended();
    }

    /// Opens the subtree it stands before; nothing happens before a record or at the end.
    pub async fn open(&mut self) -> Result<(), HeadError> {
        let Some(Open::Interior { node, at }) = self.path.last_mut() else {
            return Ok(());
        };
        let (level, id) = (node.level - 1, node.children[*at].id);
        let fault = |fault| HeadError::Node { id, fault };
        if self.path.len() > limits::TREE_MAX_LEVELS {
            return Err(fault(NodeFault::TooDeep));
        }
        let decoded = Node::decode(self.blocks.get(id).await?, level).map_err(fault)?;
        if let Some(Open::Interior { at, .. }) = self.path.last_mut() {
            *at += 1;
        }
        let from = self.from.as_deref();
        self.path.push(match decoded {
            Node::Leaf(leaf) => Open::Leaf {
                at: from.map_or(0, |from| leaf.seek(from)),
                leaf,
            },
            Node::Interior(node) => Open::Interior {
                at: from.map_or(0, |from| node.children.partition_point(|child| child.last < *from)),
                node,
            },
        });
        self.leave_ended();
        Ok(())
    }

    /// Opens subtrees until it stands before a record or at the end.
    pub async fn descend(&mut self) -> Result<(), HeadError> {
        while let Some(Open::Interior { .. }) = self.path.last() {
            self.open().await?;
        }
        Ok(())
    }

    fn leave_ended(&mut self) {
        while self.path.last().is_some_and(|open| match open {
            Open::Leaf { leaf, at } => *at >= leaf.len(),
            Open::Interior { node, at } => *at >= node.children.len(),
        }) {
            self.path.pop();
        }
    }
}

/// The value stored under exactly this key.
pub async fn find(blocks: Arc<dyn Blocks>, root: Option<&Root>, key: &Bytes) -> Result<Option<Bytes>, HeadError> {
    let mut cursor = Cursor::new(blocks, root, Some(key.clone()));
    cursor.descend().await?;
    Ok(cursor
        .record()
        .filter(|(found, _)| found == key)
        .map(|(_, value)| value))
}
