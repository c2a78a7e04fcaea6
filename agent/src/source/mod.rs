//! The replica set, through a [`Connect`]: the official driver in [`driver`], or a model. `mongodb` types are named there and
//! in [`error`] only.
//!
//! Every read goes to a [`Node`]: one server, chosen once. That matters, because what one server has shown, another may not
//! have yet; whoever changes servers must bring the new one level first ([`Node::reach`]).

pub mod batch;
pub mod connect;
pub mod driver;
pub mod error;
pub mod hello;
pub mod node;
pub mod oplog;
pub mod privileges;
pub mod redact;

use std::sync::Arc;
use std::time::Duration;

use bson::Binary;
use bson::spec::BinarySubtype;
use headwater_model::{CollectionUuid, Ts};

pub use batch::{Batch, Batches};
pub use connect::{Connect, Replies, Servers, To};
pub use error::SourceError;
pub use hello::Hello;
pub use node::Node;
use oplog::Sight;
pub use redact::Redactor;

/// A connected deployment.
pub struct Source {
    servers: Arc<dyn Servers>,
    timeout: Duration,
}

impl Source {
    /// Reads the connection string; connections are made when first needed. `timeout` limits one command.
    pub async fn connect(connect: &dyn Connect, uri: &str, timeout: Duration) -> Result<Source, SourceError> {
        let servers = connect.connect(uri).await?;
        Ok(Source { servers, timeout })
    }

    /// A server to read from: a secondary if there is one.
    pub async fn reader(&self) -> Result<(Node, Hello), SourceError> {
        self.choose(To::Secondary).await
    }

    /// The primary. A direct connection has no choice and gives its only server.
    pub async fn primary(&self) -> Result<(Node, Hello), SourceError> {
        self.choose(To::Primary).await
    }

    /// The member with this address.
    pub fn member(&self, address: &str) -> Node {
        let to = if self.is_direct() {
            To::Only
        } else {
            To::Member(address.to_lowercase())
        };
        self.node(to, address)
    }

    /// A server to read from that already shows everything any server has shown as majority-committed, at least up to
    /// `floor`; with the position it was brought level with.
    pub async fn level(&self, floor: Ts) -> Result<(Node, Ts), SourceError> {
        let (primary, _) = self.primary().await?;
        // Nothing is majority-committed that the primary does not have; an outdated primary is caught by the floor.
        let mark = primary.newest(Sight::Local).await?.ts.max(floor);
        let (node, _) = self.reader().await?;
        node.reach(mark).await?;
        Ok((node, mark))
    }

    /// Whether the connection string asks for this one server only.
    pub fn is_direct(&self) -> bool {
        self.servers.is_direct()
    }

    async fn choose(&self, preference: To) -> Result<(Node, Hello), SourceError> {
        let to = if self.is_direct() { To::Only } else { preference };
        let hello = self.node(to, "any member").hello().await?;
        let node = match &hello.me {
            Some(me) => self.member(me),
            None => self.node(To::Only, "the server"),
        };
        Ok((node, hello))
    }

    fn node(&self, to: To, address: &str) -> Node {
        Node::new(self.servers.clone(), to, address, self.timeout)
    }
}

/// A collection's identity as commands take it in place of a name.
pub fn uuid(collection: CollectionUuid) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: collection.0.to_vec(),
    }
}
