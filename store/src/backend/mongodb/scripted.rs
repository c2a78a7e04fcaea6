//! A server that answers by a script, for what a real one does only in the instant between two of our steps.

use std::sync::{Arc, Mutex};

use bson::{Document, doc};
use headwater_host::Host;
use mongodb::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Apart, MongodbObjects};

type Answer = Arc<dyn Fn(&str, &Document) -> Option<Document> + Send + Sync>;

/// Commands as the server got them: `update pending`, and the command whole.
#[derive(Clone, Default)]
struct Commands(Arc<Mutex<Vec<(String, Document)>>>);

impl Commands {
    fn names(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let data = all.iter().filter(|(name, _)| name.contains(' '));
        data.map(|(name, _)| name.clone()).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.names().iter().any(|command| command == name)
    }
}

/// A store on a server that answers what `answer` says, else that all is well.
async fn scripted(
    commands: &Commands,
    answer: impl Fn(&str, &Document) -> Option<Document> + Send + Sync + 'static,
) -> MongodbObjects {
    let host = Host::real().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (own, commands, answer): (_, _, Answer) = (address.clone(), commands.clone(), Arc::new(answer));
    let spawn = host.clone();
    drop(host.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(spawn.spawn(converse(stream, own.clone(), commands.clone(), answer.clone())));
        }
    }));
    let client = Client::with_uri_str(format!("mongodb://{address}/?replicaSet=s"))
        .await
        .unwrap();
    let database = client.database("d");
    MongodbObjects {
        objects: database.collection("objects"),
        chunks: database.collection("chunks"),
        pending: database.collection("pending"),
        client,
        database,
        host,
    }
}

async fn converse(mut stream: TcpStream, own: String, commands: Commands, answer: Answer) {
    const OP_REPLY: i32 = 1;
    const OP_MSG: i32 = 2013;
    loop {
        let mut head = [0; 16];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let number = |at: usize| i32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let mut body = vec![0; number(0) as usize - 16];
        stream.read_exact(&mut body).await.unwrap();
        let is_message = number(12) == OP_MSG;
        let command = if is_message { message(&body[4..]) } else { query(&body) };
        let (verb, what) = command.iter().next().unwrap();
        let name = [Some(verb.as_str()), what.as_str()].into_iter().flatten();
        let name = name.collect::<Vec<_>>().join(" ");
        let said = answer(&name, &command);
        commands.0.lock().unwrap().push((name.clone(), command));
        let said = said.unwrap_or_else(|| match name.to_lowercase().as_str() {
            "hello" | "ismaster" => hello(&own),
            name if name.starts_with("find") => found(Vec::new()),
            _ => doc! { "ok": 1, "n": 1, "nModified": 1 },
        });
        let kind = if is_message { OP_MSG } else { OP_REPLY };
        // Flags and the kind of the section; or flags, cursor, and how many documents from where on.
        let mut before = if is_message { vec![0; 5] } else { vec![0; 20] };
        if !is_message {
            before[16] = 1;
        }
        let body = [before, bson::serialize_to_vec(&said).unwrap()].concat();
        let mut reply = Vec::new();
        for number in [16 + body.len() as i32, 1, number(4), kind] {
            reply.extend(number.to_le_bytes());
        }
        reply.extend(body);
        stream.write_all(&reply).await.unwrap();
    }
}

/// The command in the old form of a first greeting.
fn query(body: &[u8]) -> Document {
    let end = 4 + body[4..].iter().position(|byte| *byte == 0).unwrap();
    bson::deserialize_from_slice(&body[end + 9..]).unwrap()
}

fn message(mut sections: &[u8]) -> Document {
    let mut command = Document::new();
    while let [kind, rest @ ..] = sections {
        let length = i32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        if *kind == 0 {
            let read: Document = bson::deserialize_from_slice(&rest[..length]).unwrap();
            command = read.into_iter().chain(command).collect();
        } else {
            let end = 4 + rest[4..].iter().position(|byte| *byte == 0).unwrap();
            let name = String::from_utf8(rest[4..end].to_vec()).unwrap();
            let (mut documents, mut at) = (Vec::new(), end + 1);
            while at < length {
                let one = i32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
                let document: Document = bson::deserialize_from_slice(&rest[at..at + one]).unwrap();
                documents.push(bson::Bson::Document(document));
                at += one;
            }
            command.insert(name, documents);
        }
        sections = &rest[length..];
    }
    command
}

fn hello(own: &str) -> Document {
    doc! {
        "ok": 1, "ismaster": true, "isWritablePrimary": true, "helloOk": true, "readOnly": false,
        "setName": "s", "setVersion": 1, "hosts": [own], "me": own, "primary": own,
        "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
        "localTime": bson::DateTime::MIN, "logicalSessionTimeoutMinutes": 30, "connectionId": 1,
        "minWireVersion": 0, "maxWireVersion": 17,
    }
}

fn found(documents: Vec<Document>) -> Document {
    doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "d.objects", "firstBatch": documents } }
}

/// The sweep found the entry of a write that was then committed: the entry is gone, and the bytes are an object's.
#[tokio::test]
async fn bytes_without_an_entry_are_left_alone() {
    let commands = Commands::default();
    let store = scripted(&commands, |name, _| {
        (name == "update pending").then(|| doc! { "ok": 1, "n": 0, "nModified": 0 })
    })
    .await;
    store.drop_chunks("k", Apart([7; 16])).await.unwrap();
    assert_eq!(commands.names(), ["update pending"]);
}

#[tokio::test]
async fn bytes_with_an_entry_go_before_their_entry() {
    let commands = Commands::default();
    let store = scripted(&commands, |_, _| None).await;
    store.drop_chunks("k", Apart([7; 16])).await.unwrap();
    assert_eq!(commands.names(), ["update pending", "delete chunks", "delete pending"]);
}

/// A server on which the first try of a transaction was committed, though nobody was told: its key is taken, by itself.
async fn committed_unheard(commands: &Commands) -> MongodbObjects {
    let (seen, tries) = (commands.clone(), Mutex::new(0));
    scripted(commands, move |name, command| match name {
        "insert objects" => {
            *tries.lock().unwrap() += 1;
            let taken = doc! { "index": 0, "code": 11000, "errmsg": "E11000 duplicate key error" };
            Some(doc! { "ok": 1, "n": 0, "writeErrors": [taken] })
        }
        "find objects" if *tries.lock().unwrap() > 0 || command.get("projection").is_none() => {
            let all = seen.0.lock().unwrap();
            let entry = all.iter().find(|(name, _)| name == "insert pending");
            let (_, entry) = entry?;
            let id = entry.get_array("documents").unwrap()[0]
                .as_document()
                .unwrap()
                .get("_id");
            Some(found(vec![
                doc! { "_id": "k", "size": 300_000_i64, "chunks": id.cloned() },
            ]))
        }
        // Its entry is gone.
        "update pending" => Some(doc! { "ok": 1, "n": 0, "nModified": 0 }),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_writer_that_finds_its_key_taken_by_itself_has_written_it_and_drops_nothing() {
    let commands = Commands::default();
    let store = committed_unheard(&commands).await;
    let bytes = bytes::Bytes::from(vec![1; 300_000]);
    let put = store.write_new("k", &bytes).await.unwrap();
    assert_eq!(put, crate::objects::Put::Created);
    assert!(!commands.has("delete chunks"), "{:?}", commands.names());
}

#[tokio::test]
async fn a_writer_that_finds_its_own_bytes_in_the_place_of_the_old_ones_has_replaced_them() {
    let commands = Commands::default();
    let store = committed_unheard(&commands).await;
    let bytes = bytes::Bytes::from(vec![1; 300_000]);
    store.replace("k", &bytes).await.unwrap();
    assert!(!commands.has("delete chunks"), "{:?}", commands.names());
    assert!(!commands.has("delete pending"), "{:?}", commands.names());
}
