//! The one server all parts of a scan read from, replaced when it fails.

use std::sync::Arc;

use headwater_model::Ts;
use tokio::sync::Mutex;

use crate::source::{Node, SourceError};
use crate::stream::Conversation;

/// Holds the server. A new one is first brought level with everything the source had committed when it was chosen, so no
/// part ever reads a state older than the beginning of the sync, nor older than another part has read.
pub struct ScanNode {
    conversation: Arc<Conversation>,
    chosen: Mutex<Option<(Node, Ts)>>,
}

impl ScanNode {
    /// Chooses at the first [`ScanNode::get`].
    pub fn new(conversation: Arc<Conversation>) -> Self {
        ScanNode { conversation, chosen: Mutex::new(None) }
    }

    /// The server, level.
    pub async fn get(&self) -> Result<Node, SourceError> {
        let mut chosen = self.chosen.lock().await;
        if let Some((node, mark)) = chosen.as_ref() {
            // It may have been restarted unnoticed, and then shows an older state for a while.
            if node.reach(*mark).await.is_ok() {
                return Ok(node.clone());
            }
            *chosen = None;
        }
        let (node, mark) = self.conversation.source.level(self.conversation.status.floor()).await?;
        *chosen = Some((node.clone(), mark));
        Ok(node)
    }

    /// Says that a server failed.
    pub async fn failed(&self, node: &Node) {
        let mut chosen = self.chosen.lock().await;
        if chosen.as_ref().is_some_and(|(current, _)| current.address() == node.address()) {
            *chosen = None;
        }
    }
}
