//! The replica set, through the official driver. `mongodb` types are named in this folder only.
//!
//! Every read goes to a [`Node`]: one server, chosen once. That matters, because what one server has shown, another may not
//! have yet; whoever changes servers must bring the new one level first ([`Node::reach`]).

pub mod batch;
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
use mongodb::Client;
use mongodb::options::{ClientOptions, ReadPreference, SelectionCriteria};

pub use batch::{Batch, Batches};
pub use error::SourceError;
pub use hello::Hello;
pub use node::Node;
use oplog::Sight;
pub use redact::Redactor;

/// A connected deployment.
pub struct Source {
    client: Client,
    direct: bool,
    redactor: Arc<Redactor>,
    timeout: Duration,
}

const SELECT_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const CONNECTIONS: u32 = 64;

impl Source {
    /// Reads the connection string; connections are made when first needed. `timeout` limits one command.
    pub async fn connect(uri: &str, timeout: Duration) -> Result<Source, SourceError> {
        let redactor = Arc::new(Redactor::of_uri(uri));
        let told = |e: mongodb::error::Error| SourceError::of_driver(&e, &redactor);
        let mut options = ClientOptions::parse(uri).await.map_err(told)?;
        options.app_name = Some("headwater-agent".to_owned());
        options.server_selection_timeout = Some(SELECT_WITHIN);
        options.connect_timeout = Some(CONNECT_WITHIN);
        options.max_pool_size = Some(CONNECTIONS);
        let direct = options.direct_connection == Some(true);
        let client = Client::with_options(options).map_err(told)?;
        Ok(Source { client, direct, redactor, timeout })
    }

    /// A server to read from: a secondary if there is one.
    pub async fn reader(&self) -> Result<(Node, Hello), SourceError> {
        self.choose(ReadPreference::SecondaryPreferred { options: None }).await
    }

    /// The primary. A direct connection has no choice and gives its only server.
    pub async fn primary(&self) -> Result<(Node, Hello), SourceError> {
        self.choose(ReadPreference::Primary).await
    }

    /// The member with this address.
    pub fn member(&self, address: &str) -> Node {
        let wanted = address.to_lowercase();
        let criteria = SelectionCriteria::Predicate(Arc::new(move |server| {
            server.address().to_string().to_lowercase() == wanted
        }));
        self.node((!self.direct).then_some(criteria), address)
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
        self.direct
    }

    async fn choose(&self, preference: ReadPreference) -> Result<(Node, Hello), SourceError> {
        let criteria = (!self.direct).then_some(SelectionCriteria::ReadPreference(preference));
        let hello = self.node(criteria, "any member").hello().await?;
        let node = match &hello.me {
            Some(me) => self.member(me),
            None => self.node(None, "the server"),
        };
        Ok((node, hello))
    }

    fn node(&self, criteria: Option<SelectionCriteria>, address: &str) -> Node {
        Node::new(self.client.clone(), criteria, address, self.redactor.clone(), self.timeout)
    }
}

/// A collection's identity as commands take it in place of a name.
pub fn uuid(collection: CollectionUuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: collection.0.to_vec() }
}
