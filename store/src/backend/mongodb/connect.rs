//! From a URI to a database that can be relied on.

use std::time::Duration;

use bson::{Document, doc};
use headwater_host::Host;
use headwater_model::redact;
use headwater_model::store_uri::MongodbStore;
use mongodb::action::Action;
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, SelectionCriteria, WriteConcern};
use mongodb::options::{IndexOptions, ReadPreference};
use mongodb::{Client, IndexModel};

use super::{MongodbObjects, failure};
use crate::objects::StoreError;

/// How long a write waits for its majority. It may be committed all the same afterwards.
const MAJORITY_DEADLINE: Duration = Duration::from_secs(20);
const SELECTION_DEADLINE: Duration = Duration::from_secs(25);
/// The index that listings are answered from, without a look at any object.
const LISTING: &str = "listing";

/// The replica set that is a backing store, to be told from sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingSet {
    /// Its name.
    pub name: String,
    /// Its members, `host:port`, as its own configuration and our connection string name them.
    pub hosts: Vec<String>,
}

fn refused(shown: &str, detail: impl ToString) -> StoreError {
    StoreError::refused(shown, detail)
}

/// Opens the database and makes its index; answers also which replica set it is.
pub async fn connect(place: &MongodbStore, host: &Host) -> Result<(MongodbObjects, BackingSet), StoreError> {
    let shown = redact::uri(&place.connection);
    let options = options(place, host, &shown).await?;
    let seeds: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
    let client = Client::with_options(options).map_err(|e| refused(&shown, e))?;
    let database = client.database(&place.database);
    let hello = database.run_command(doc! { "hello": 1 }).await;
    let mut set =
        backing_set(&hello.map_err(|e| failure::of(&shown, &e))?).map_err(|detail| refused(&shown, detail))?;
    // Under the names by which we reach them, too.
    set.hosts.extend(seeds);
    let opened = MongodbObjects {
        objects: database.collection("objects"),
        chunks: database.collection("chunks"),
        pending: database.collection("pending"),
        client,
        database,
        host: host.clone(),
    };
    let listing = IndexModel::builder()
        .keys(doc! { "_id": 1, "size": 1 })
        .options(IndexOptions::builder().name(LISTING.to_owned()).build())
        .build();
    opened
        .objects
        .create_index(listing)
        .await
        .map_err(|e| failure::of(&shown, &e))?;
    // Made now, since older servers make no collection within a transaction. What is in chunks is compressed already.
    let plain = doc! { "wiredTiger": { "configString": "block_compressor=none" } };
    for (name, engine) in [("chunks", Some(plain)), ("pending", None)] {
        match opened
            .database
            .create_collection(name)
            .optional(engine, |create, engine| create.storage_engine(engine))
            .await
        {
            Err(error) if !failure::exists_already(&error) => return Err(failure::of(&shown, &error)),
            _ => {}
        }
    }
    let sweeping = opened.clone();
    drop(host.spawn(async move {
        if let Err(error) = sweeping.remove_leftovers().await {
            tracing::warn!(%error, "what unfinished writes left in the store stays until the next start");
        }
    }));
    Ok((opened, set))
}

async fn options(place: &MongodbStore, host: &Host, shown: &str) -> Result<ClientOptions, StoreError> {
    let parsed = ClientOptions::parse(&place.connection).await;
    let mut options = parsed.map_err(|e| refused(shown, e))?;
    if let Some(file) = place.password_file.clone() {
        let read = host.blocking(move || (std::fs::read_to_string(&file), file)).await;
        let text = read
            .0
            .map_err(|e| refused(shown, format!("passwordFile {}: {e}", read.1.display())))?;
        let credential = options.credential.as_mut();
        let credential = credential.ok_or_else(|| refused(shown, "passwordFile needs a user name before the @"))?;
        credential.password = Some(text.lines().next().unwrap_or_default().to_owned());
    }
    options.app_name = Some("headwater store".to_owned());
    options.write_concern = Some(
        WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .journal(true)
            .w_timeout(MAJORITY_DEADLINE)
            .build(),
    );
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.server_selection_timeout = Some(SELECTION_DEADLINE);
    options.connect_timeout = options.connect_timeout.or(Some(Duration::from_secs(5)));
    Ok(options)
}

fn backing_set(hello: &Document) -> Result<BackingSet, String> {
    let name = hello
        .get_str("setName")
        .map_err(|_| "it is no replica set: start it with --replSet, with three members for real use".to_owned())?;
    let hosts = hello.get_array("hosts").into_iter().flatten();
    Ok(BackingSet {
        name: name.to_owned(),
        hosts: hosts.filter_map(|host| host.as_str().map(str::to_owned)).collect(),
    })
}
