//! Real mongods on free ports in folders of their own; they end with the test.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const VERSION: &str = "6.0.5";

fn binary() -> PathBuf {
    let cache = std::env::var_os("HEADWATER_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("HOME or HEADWATER_CACHE")).join(".cache/headwater")
    });
    let path = cache.join("mongod").join(VERSION).join("bin/mongod");
    assert!(path.exists(), "there is no mongod {VERSION}; install it with: cargo xtask mongod install");
    path
}

/// One server.
pub struct Mongod {
    pub port: u16,
    process: Child,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Mongod {
    /// Starts one and waits until it answers.
    pub async fn start(arguments: &[&str]) -> Mongod {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = TempDir::new().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = spawn(port, &folder, &arguments);
        let server = Mongod { port, process, folder, arguments };
        server.answers().await;
        server
    }

    /// Kills it without warning and starts it again.
    pub async fn crash(&mut self) {
        self.process.kill().await.unwrap();
        self.process = spawn(self.port, &self.folder, &self.arguments);
        self.answers().await;
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client of this server only.
    pub async fn direct(&self) -> Client {
        client(&format!("mongodb://{}/?directConnection=true", self.address())).await
    }

    async fn answers(&self) {
        let client = self.direct().await;
        until("mongod answers", || async {
            client.database("admin").run_command(doc! { "hello": 1 }).await.is_ok()
        })
        .await;
    }
}

fn spawn(port: u16, folder: &TempDir, arguments: &[String]) -> Child {
    let log = folder.path().join("mongod.log");
    Command::new(binary())
        .args(["--port", &port.to_string(), "--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.25"])
        .arg("--dbpath")
        .arg(folder.path())
        .arg("--logpath")
        .arg(log)
        .arg("--logappend")
        .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

pub async fn client(uri: &str) -> Client {
    Client::with_uri_str(uri).await.unwrap()
}

/// Waits until something is so; gives up after two minutes.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut so: F) {
    for _ in 0..1200 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited in vain: {what}");
}

/// A replica set.
pub struct ReplicaSet {
    pub members: Vec<Mongod>,
}

impl ReplicaSet {
    /// Starts so many members and waits for a primary.
    pub async fn start(members: usize, arguments: &[&str]) -> ReplicaSet {
        let arguments = [&["--replSet", "rs0"], arguments].concat();
        let mut started = Vec::new();
        for _ in 0..members {
            started.push(Mongod::start(&arguments).await);
        }
        let set = ReplicaSet { members: started };
        let list: Vec<Document> = set.members.iter().enumerate()
            .map(|(id, member)| doc! { "_id": id as i32, "host": member.address() })
            .collect();
        let config = doc! { "_id": "rs0", "members": list, "settings": { "electionTimeoutMillis": 2000 } };
        let first = set.members[0].direct().await;
        first.database("admin").run_command(doc! { "replSetInitiate": config }).await.unwrap();
        until("a primary", || async {
            let hello = first.database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
            hello.get_bool("isWritablePrimary").unwrap()
        })
        .await;
        set
    }

    /// Starts one member that asks for logins, with a user `root` whose password is `root`.
    pub async fn start_guarded(key_file: &str) -> ReplicaSet {
        // Until the first user exists, a client on the same machine may do everything (the localhost exception).
        let member = Mongod::start(&["--replSet", "rs0", "--auth", "--keyFile", key_file]).await;
        let admin = member.direct().await.database("admin");
        let config = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": member.address() }] };
        admin.run_command(doc! { "replSetInitiate": config }).await.unwrap();
        let root = doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
        until("the first user is made", || async { admin.run_command(root.clone()).await.is_ok() }).await;
        ReplicaSet { members: vec![member] }
    }

    pub fn uri(&self) -> String {
        let hosts: Vec<String> = self.members.iter().map(Mongod::address).collect();
        format!("mongodb://{}/?replicaSet=rs0", hosts.join(","))
    }

    pub async fn client(&self) -> Client {
        client(&self.uri()).await
    }
}
