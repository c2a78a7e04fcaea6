//! A replica set of one or three members.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Document, Timestamp, doc};
use headwater_model::Ts;
use mongodb::Client;

use crate::bed::Bed;
use crate::mongod::{Mongod, MongodSpec};
use crate::until;

/// How a replica set is to be started.
#[derive(Clone, Debug)]
pub struct ReplicaSetSpec {
    /// Its name.
    pub name: String,
    /// How many members.
    pub members: usize,
    /// How each is started; the name of the set is filled in.
    pub mongod: MongodSpec,
    /// Whether a copy of the empty set is kept, so that [`crate::replay`] can go back to any later instant. Costs about
    /// three seconds.
    pub replayable: bool,
}

impl ReplicaSetSpec {
    /// One member: the usual source. Transactions of more than three operations are split over several oplog entries.
    pub fn single(version: &str) -> Self {
        let mongod = MongodSpec::new(version).parameter("maxNumberOfTransactionOperationsInSingleOplogEntry", 3);
        ReplicaSetSpec {
            name: "rs0".to_owned(),
            members: 1,
            mongod,
            replayable: true,
        }
    }

    /// Three members, all of which may become primary.
    pub fn three(version: &str) -> Self {
        ReplicaSetSpec {
            members: 3,
            ..ReplicaSetSpec::single(version)
        }
    }

    /// Without the copy of the empty set: starts faster, cannot be replayed. For targets.
    pub fn not_replayable(mut self) -> Self {
        self.replayable = false;
        self
    }

    /// With an oplog of this size, for tests that outrun it.
    pub fn oplog_mib(mut self, size: u64) -> Self {
        self.mongod.oplog_mib = size;
        self
    }

    /// With so much memory for data, as a server has that is measured.
    pub fn cache_mib(mut self, size: u32) -> Self {
        self.mongod.cache_mib = size;
        self
    }

    /// With one more `--setParameter`.
    pub fn parameter(mut self, name: &str, value: impl ToString) -> Self {
        self.mongod = self.mongod.parameter(name, value);
        self
    }
}

/// A running replica set. Dropping it kills its members.
#[derive(Debug)]
pub struct ReplicaSet {
    spec: ReplicaSetSpec,
    members: Vec<Mongod>,
    baseline: Option<PathBuf>,
    client: Client,
}

impl ReplicaSet {
    /// Starts the members and waits until there is a primary and every other member is a secondary.
    pub async fn start(bed: &Bed, mut spec: ReplicaSetSpec) -> Result<ReplicaSet> {
        ensure!(spec.members >= 1, "a replica set has at least one member");
        spec.mongod.replica_set = Some(spec.name.clone());
        let mut first = Mongod::start(spec.mongod.clone(), bed.new_folder("member-0")?).await?;
        let members = vec![doc! { "_id": 0, "host": first.address() }];
        let mut config = doc! { "_id": &spec.name, "members": members };
        if spec.mongod.arguments.iter().any(|argument| argument == "--configsvr") {
            config.insert("configsvr", true);
        }
        admin(&first, doc! { "replSetInitiate": config }).await?;
        wait_for_role(&first, Role::Primary).await?;
        let mut baseline = None;
        if spec.replayable {
            first.stop().await?;
            let folder = bed.new_folder("baseline")?;
            copy_data(&first.data(), &folder)?;
            baseline = Some(folder);
            first.start_again().await?;
            wait_for_role(&first, Role::Primary).await?;
        }
        let mut members = vec![first];
        for number in 1..spec.members {
            let member = Mongod::start(spec.mongod.clone(), bed.new_folder(&format!("member-{number}"))?).await?;
            add_member(&members[0], &member, number).await?;
            wait_for_role(&member, Role::Secondary).await?;
            members.push(member);
            wait_for_votes(&members[0], members.len()).await?;
        }
        let client = Client::with_uri_str(set_uri(&members, &spec.name)).await?;
        Ok(ReplicaSet {
            spec,
            members,
            baseline,
            client,
        })
    }

    /// Connection string of the set.
    pub fn uri(&self) -> String {
        set_uri(&self.members, &self.spec.name)
    }

    /// The set as a backing store, in this database.
    pub fn store_uri(&self, database: &str) -> String {
        let uri = self.uri();
        let (hosts, options) = uri.split_once("/?").unwrap_or((&uri, ""));
        format!("{hosts}/{database}?{}", options.replace("directConnection=true", ""))
    }

    /// A client of the set, which follows the primary.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The name of the set.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The servers' version.
    pub fn version(&self) -> &str {
        &self.spec.mongod.version
    }

    /// How it was started.
    pub fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }

    /// Data of the set as it was when new, if it was kept.
    pub fn baseline(&self) -> Option<&Path> {
        self.baseline.as_deref()
    }

    /// A member.
    pub fn member(&self, number: usize) -> &Mongod {
        &self.members[number]
    }

    /// A member, to stop, kill or start it.
    pub fn member_mut(&mut self, number: usize) -> &mut Mongod {
        &mut self.members[number]
    }

    /// The number of the member that is primary; waits for one.
    pub async fn primary(&self) -> Result<usize> {
        until("a primary", || async {
            for (number, member) in self.members.iter().enumerate() {
                // A member that was killed does not answer; the driver would look for it for a minute.
                let answer = tokio::time::timeout(MEMBER_ANSWERS_IN, role(member)).await;
                if answer == Ok(Some(Role::Primary)) {
                    return Ok(Some(number));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Makes the primary step down and waits for a primary, which is another member unless there is only one.
    pub async fn step_down(&self) -> Result<usize> {
        let old = self.primary().await?;
        let seconds = if self.members.len() == 1 { 1 } else { 20 };
        // The server may close the connection instead of answering.
        let _ = admin(&self.members[old], doc! { "replSetStepDown": seconds, "force": true }).await;
        self.primary().await
    }

    /// Stops a member in good order and starts it again.
    pub async fn restart_member(&mut self, number: usize) -> Result<()> {
        self.members[number].stop().await?;
        self.members[number].start_again().await
    }

    /// Writes a no-op note to the oplog, majority-committed, and answers its position: everything a finished call
    /// wrote before lies at or before it.
    pub async fn mark(&self, text: &str) -> Result<Ts> {
        let command = doc! { "appendOplogNote": 1, "data": { "mark": text }, "writeConcern": { "w": "majority" } };
        let mut tries = 0;
        let reply = loop {
            match self.client.database("admin").run_command(command.clone()).await {
                // The server does not wait for its global lock here.
                Err(error) if is_lock_failed(&error) && tries < 200 => tries += 1,
                reply => break reply?,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let time = reply
            .get_timestamp("operationTime")
            .context("the server answered without its time")?;
        Ok(Ts::from(time))
    }

    /// The newest entry of the primary's oplog.
    pub async fn newest(&self) -> Result<Ts> {
        let oplog = self.client.database("local").collection::<Document>("oplog.rs");
        let entry = oplog
            .find_one(doc! {})
            .sort(doc! { "$natural": -1 })
            .await?
            .context("the oplog is empty")?;
        let time: Timestamp = entry.get_timestamp("ts")?;
        Ok(Ts::from(time))
    }
}

fn is_lock_failed(error: &mongodb::error::Error) -> bool {
    const LOCK_FAILED: i32 = 107;
    matches!(&*error.kind, mongodb::error::ErrorKind::Command(failed) if failed.code == LOCK_FAILED)
}

fn set_uri(members: &[Mongod], name: &str) -> String {
    let addresses: Vec<_> = members.iter().map(Mongod::address).collect();
    format!(
        "mongodb://{}/?replicaSet={name}&serverSelectionTimeoutMS=60000",
        addresses.join(",")
    )
}

/// How long a member that lives may take to say what it is.
const MEMBER_ANSWERS_IN: Duration = Duration::from_secs(2);

async fn admin(member: &Mongod, command: Document) -> Result<Document> {
    Ok(member.client().database("admin").run_command(command).await?)
}

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Secondary,
}

async fn role(member: &Mongod) -> Option<Role> {
    let hello = admin(member, doc! { "isMaster": 1 }).await.ok()?;
    let is = |field| hello.get_bool(field).unwrap_or(false);
    if is("ismaster") {
        Some(Role::Primary)
    } else {
        is("secondary").then_some(Role::Secondary)
    }
}

pub(crate) async fn wait_for_role(member: &Mongod, wanted: Role) -> Result<()> {
    until(&format!("{} to be {wanted:?}", member.address()), || async {
        Ok((role(member).await == Some(wanted)).then_some(()))
    })
    .await
}

/// A new member has no vote until the primary has changed the configuration once more by itself: a set that loses another
/// member before that may have no majority left.
async fn wait_for_votes(primary: &Mongod, members: usize) -> Result<()> {
    until("every member to have a vote", || async {
        let status = admin(primary, doc! { "replSetGetStatus": 1 }).await?;
        Ok((status.get_i32("votingMembersCount").ok() == i32::try_from(members).ok()).then_some(()))
    })
    .await
}

async fn add_member(primary: &Mongod, member: &Mongod, number: usize) -> Result<()> {
    until("the set to take another member", || async {
        let mut config = admin(primary, doc! { "replSetGetConfig": 1 })
            .await?
            .get_document("config")?
            .clone();
        let version = config.get_i32("version")? + 1;
        config.insert("version", version);
        config
            .get_array_mut("members")?
            .push(doc! { "_id": number as i32, "host": member.address() }.into());
        // Refused for a moment while the last change of the configuration is not yet committed.
        Ok(admin(primary, doc! { "replSetReconfig": config }).await.ok())
    })
    .await
    .map(drop)
}

/// Copies the data of a mongod that does not run, without its lock and the log files it only made in advance.
pub(crate) fn copy_data(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            copy_data(&entry.path(), &to.join(&name))?;
        } else if name != "mongod.lock" && !name.to_string_lossy().starts_with("WiredTigerPreplog") {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}
