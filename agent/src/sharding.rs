//! Sharded clusters: which replica sets they are made of, and how each is reached.

use std::time::Duration;

use bson::{Bson, Document, doc};
use headwater_model::DeploymentName;
use headwater_protocol::agent::{ClusterReport, MemberReport, StreamFault};

use crate::source::{Hello, Node, Source, SourceError};
use crate::stream::End;

/// Time between two looks at a cluster.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads how the cluster is made up, from a mongos or a config server.
pub async fn look(source: &Source, deployment: &DeploymentName) -> Result<ClusterReport, End> {
    let (node, hello) = source.primary().await?;
    let version = rows(&node, "config", "version").await?;
    let cluster = version.first().and_then(|row| row.get_object_id("clusterId").ok());
    let Some(cluster) = cluster else {
        return Err(refused(
            "the config servers belong to no cluster yet: config.version has no clusterId",
            "add the first shard with sh.addShard(), then look at `headwater status` again",
        ));
    };
    let shards = rows(&node, "config", "shards").await?;
    let mut members = vec![config_servers(&node, &hello).await?];
    for shard in &shards {
        members.push(shard_of(shard).ok_or_else(|| {
            let detail = format!(
                "config.shards has an entry without a replica set: {:?}",
                shard.get("_id")
            );
            refused(&detail, "a shard must be a replica set")
        })?);
    }
    for (at, member) in members.iter().enumerate() {
        if members[..at].iter().any(|other| other.set == member.set) {
            let detail = format!("two members of the cluster are called {}", member.set);
            return Err(refused(&detail, "replica sets of one cluster need different names"));
        }
    }
    Ok(ClusterReport {
        deployment: deployment.clone(),
        cluster: cluster.to_hex(),
        members,
    })
}

fn refused(detail: &str, cure: &str) -> End {
    End::Fault(StreamFault::Refused {
        detail: detail.to_owned(),
        cure: cure.to_owned(),
    })
}

/// All rows of a small collection, as a majority has them.
async fn rows(node: &Node, db: &str, collection: &str) -> Result<Vec<Document>, SourceError> {
    let find = doc! {
        "find": collection, "sort": { "_id": 1 }, "batchSize": 2000, "singleBatch": true,
        "readConcern": { "level": "majority" },
    };
    let reply = node.command(db, find).await?;
    let batch = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"))
        .map_err(SourceError::answer)?;
    Ok(batch.iter().filter_map(Bson::as_document).cloned().collect())
}

/// The config servers say it themselves; a mongos knows where it looks things up.
async fn config_servers(node: &Node, hello: &Hello) -> Result<MemberReport, End> {
    if let Some(set) = &hello.set {
        return Ok(MemberReport {
            set: set.clone(),
            shard: None,
            hosts: hello.members.clone(),
        });
    }
    let map = node.command("admin", doc! { "getShardMap": 1 }).await?;
    let connection = map.get_document("map").and_then(|map| map.get_str("config"));
    let config = connection.ok().and_then(in_two);
    let (set, hosts) =
        config.ok_or_else(|| refused("the mongos does not name its config servers", "ask another mongos"))?;
    Ok(MemberReport {
        set,
        shard: None,
        hosts,
    })
}

/// A row of `config.shards`.
fn shard_of(row: &Document) -> Option<MemberReport> {
    let (set, hosts) = in_two(row.get_str("host").ok()?)?;
    Some(MemberReport {
        set,
        shard: Some(row.get_str("_id").ok()?.to_owned()),
        hosts,
    })
}

/// `set/host:port,host:port` in two.
fn in_two(connection: &str) -> Option<(String, Vec<String>)> {
    let (set, hosts) = connection.split_once('/')?;
    let hosts: Vec<String> = hosts
        .split(',')
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    (!set.is_empty() && !hosts.is_empty()).then(|| (set.to_owned(), hosts))
}

/// The shard that a server says it belongs to; `None` for a plain replica set.
pub async fn identity(node: &Node) -> Result<Option<String>, SourceError> {
    let find = doc! {
        "find": "system.version", "filter": { "_id": "shardIdentity" }, "limit": 1, "singleBatch": true,
    };
    let reply = node.command("admin", find).await?;
    let batch = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"));
    let row = batch.ok().and_then(|rows| rows.first()).and_then(Bson::as_document);
    let shard = row.and_then(|row| row.get_str("shardName").ok());
    Ok(shard.filter(|shard| *shard != "config").map(str::to_owned))
}

/// Options of a cluster's connection string that do not fit its members.
const OF_THE_CLUSTER: [&str; 6] = [
    "replicaset",
    "directconnection",
    "loadbalanced",
    "srvmaxhosts",
    "srvservicename",
    "readpreferencetags",
];

/// The connection string of a cluster's member: login and options of the cluster's, other hosts. Members of a cluster that is
/// found by a DNS record are reached by TLS, as that record asks for.
pub fn member_uri(uri: &str, set: &str, hosts: &[String]) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("mongodb", uri));
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
    let login = authority
        .rsplit_once('@')
        .map_or(String::new(), |(login, _)| format!("{login}@"));
    let name_of = |option: &str| option.split('=').next().unwrap_or_default().to_lowercase();
    let mut kept: Vec<String> = options
        .split('&')
        .filter(|option| !option.is_empty() && !OF_THE_CLUSTER.contains(&name_of(option).as_str()))
        .map(str::to_owned)
        .collect();
    let has_tls = kept
        .iter()
        .any(|option| matches!(name_of(option).as_str(), "tls" | "ssl"));
    if scheme.ends_with("+srv") && !has_tls {
        kept.push("tls=true".to_owned());
    }
    kept.push(format!("replicaSet={set}"));
    format!("mongodb://{login}{}/{db}?{}", hosts.join(","), kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_reached_with_the_login_and_options_of_the_cluster() {
        let hosts = ["a:1".to_owned(), "b:2".to_owned()];
        for (uri, want) in [
            ("mongodb://m", "mongodb://a:1,b:2/?replicaSet=sh0"),
            ("mongodb://c:9/?replicaSet=cfg", "mongodb://a:1,b:2/?replicaSet=sh0"),
            (
                "mongodb://u:p%40@c:9,d:9/admin?directConnection=true&tls=true&authSource=x",
                "mongodb://u:p%40@a:1,b:2/admin?tls=true&authSource=x&replicaSet=sh0",
            ),
            (
                "mongodb+srv://u:p@c.example/?retryWrites=true",
                "mongodb://u:p@a:1,b:2/?retryWrites=true&tls=true&replicaSet=sh0",
            ),
        ] {
            assert_eq!(member_uri(uri, "sh0", &hosts), want, "{uri}");
        }
    }

    #[test]
    fn a_shard_is_told_by_its_row() {
        let row = doc! { "_id": "shard0", "host": "rs0/a:1,b:1", "state": 1 };
        let member = shard_of(&row).unwrap();
        assert_eq!((member.set.as_str(), member.shard.as_deref()), ("rs0", Some("shard0")));
        assert_eq!(member.hosts, ["a:1", "b:1"]);
        assert!(shard_of(&doc! { "_id": "old", "host": "a:1" }).is_none());
    }
}
