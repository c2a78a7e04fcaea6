//! Whether servers can become members of a new cluster.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};

use crate::load::prepare::release;
use crate::load::{LoadFault, Target};

/// What a target says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Member {
    pub set: String,
    pub hosts: BTreeSet<String>,
    pub writable: bool,
    pub mongos: bool,
    /// `configsvr`, `shardsvr`, or nothing.
    pub role: String,
    pub fcv: String,
    pub version: String,
    /// The shard it is already.
    pub shard: Option<String>,
    /// The shards it knows already.
    pub shards: BTreeSet<String>,
}

impl Member {
    /// Asks.
    pub async fn of(target: &Target) -> Result<Member, LoadFault> {
        let hello = target.run("admin", &doc! { "hello": 1 }).await?;
        let about = target.about().await?;
        if about.sharded {
            return Ok(Member {
                mongos: true,
                ..Member::default()
            });
        }
        let options = target.run("admin", &doc! { "getCmdLineOpts": 1 }).await?;
        let parsed = options
            .get_document("parsed")
            .and_then(|parsed| parsed.get_document("sharding"));
        let role = parsed
            .and_then(|sharding| sharding.get_str("clusterRole"))
            .unwrap_or_default();
        let identity = doc! { "find": "system.version", "filter": { "_id": "shardIdentity" }, "limit": 1 };
        let identity = target.run("admin", &identity).await?;
        let shard = first(&identity).and_then(|identity| identity.get_str("shardName").map(str::to_owned).ok());
        let shards = target
            .run("config", &doc! { "find": "shards", "batchSize": 1000 })
            .await?;
        let shards = batch(&shards)
            .iter()
            .filter_map(|shard| shard.get_str("_id").map(str::to_owned).ok())
            .collect();
        Ok(Member {
            set: hello.get_str("setName").unwrap_or_default().to_owned(),
            hosts: about.hosts,
            writable: about.writable,
            mongos: false,
            role: role.to_owned(),
            fcv: about.fcv,
            version: about.version,
            shard,
            shards,
        })
    }

    /// As members of a cluster are written: `set/host:port,host:port`.
    pub fn connection_string(&self) -> String {
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        format!("{}/{}", self.set, hosts.join(","))
    }
}

fn unfit(member: &Member, role: &str, option: &str) -> Option<String> {
    if member.mongos {
        return Some("it is a mongos; name the replica sets that shall become the cluster's members".to_owned());
    }
    if member.set.is_empty() {
        return Some("it is no replica set: start it with --replSet and run rs.initiate()".to_owned());
    }
    if !member.writable {
        return Some("it is no writable primary; name all members of the replica set, or the primary".to_owned());
    }
    (member.role != role).then(|| format!("it was not started with {option}"))
}

/// Why a target cannot become the config servers.
pub(super) fn unfit_for_config<'a>(
    member: &Member,
    mut wanted: impl Iterator<Item = &'a String>,
    resumed: bool,
) -> Option<String> {
    let fault = unfit(member, "configsvr", "--configsvr");
    if fault.is_some() {
        return fault;
    }
    let stranger = match resumed {
        false => member.shards.first(),
        true => {
            let wanted: BTreeSet<&String> = wanted.by_ref().collect();
            member.shards.iter().find(|known| !wanted.contains(known))
        }
    };
    stranger.map(|shard| format!("it has a cluster already, with shard {shard}; name fresh config servers"))
}

/// Why a target cannot become a shard.
pub(super) fn unfit_for_shard(member: &Member, name: &str, resumed: bool) -> Option<String> {
    let fault = unfit(member, "shardsvr", "--shardsvr");
    let taken = member.shard.as_ref().filter(|is| !resumed || *is != name);
    fault.or_else(|| taken.map(|shard| format!("it is shard {shard} of a cluster already; name a fresh replica set")))
}

/// Raises a target to the feature compatibility version of the source: a fresh shard begins with the one before its own.
pub(super) async fn raise(target: &Target, member: &Member, needed: &str) -> Result<(), LoadFault> {
    let (Some(is), Some((major, minor))) = (release(&member.fcv), release(needed)) else {
        return Ok(());
    };
    if is >= (major, minor) {
        return Ok(());
    }
    let mut command = doc! { "setFeatureCompatibilityVersion": format!("{major}.{minor}") };
    if release(&member.version) >= Some((7, 0)) {
        command.insert("confirm", true);
    }
    target.run("admin", &command).await.map(drop)
}

/// The documents of a cursor's first batch.
pub(super) fn batch(reply: &Document) -> Vec<&Document> {
    let cursor = reply.get_document("cursor");
    let batch = cursor.and_then(|cursor| cursor.get_array("firstBatch"));
    batch.into_iter().flatten().filter_map(Bson::as_document).collect()
}

/// The first of them.
pub(super) fn first(reply: &Document) -> Option<&Document> {
    batch(reply).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(role: &str) -> Member {
        Member {
            set: "rs".to_owned(),
            hosts: ["b:1".to_owned(), "a:1".to_owned()].into(),
            writable: true,
            role: role.to_owned(),
            ..Member::default()
        }
    }

    fn told(fault: Option<String>, words: Option<&str>) {
        match words {
            None => assert_eq!(fault, None),
            Some(words) => assert!(fault.as_ref().is_some_and(|fault| fault.contains(words)), "{fault:?}"),
        }
    }

    #[test]
    fn only_a_fresh_replica_set_of_the_right_role_becomes_a_shard() {
        let shard = |name: &str| Member {
            shard: Some(name.to_owned()),
            ..member("shardsvr")
        };
        for (member, resumed, words) in [
            (member("shardsvr"), false, None),
            (member("shardsvr"), true, None),
            (member("configsvr"), false, Some("--shardsvr")),
            (member(""), false, Some("--shardsvr")),
            (shard("sh0"), false, Some("shard sh0 of a cluster")),
            (shard("sh0"), true, None),
            (shard("sh1"), true, Some("shard sh1 of a cluster")),
            (
                Member {
                    writable: false,
                    ..member("shardsvr")
                },
                false,
                Some("no writable primary"),
            ),
            (
                Member {
                    set: String::new(),
                    ..member("shardsvr")
                },
                false,
                Some("--replSet"),
            ),
            (
                Member {
                    mongos: true,
                    ..Member::default()
                },
                false,
                Some("mongos"),
            ),
        ] {
            told(unfit_for_shard(&member, "sh0", resumed), words);
        }
    }

    #[test]
    fn only_fresh_config_servers_take_a_cluster() {
        let wanted = ["sh0".to_owned(), "sh1".to_owned()];
        let knows = |name: &str| Member {
            shards: [name.to_owned()].into(),
            ..member("configsvr")
        };
        for (member, resumed, words) in [
            (member("configsvr"), false, None),
            (member("shardsvr"), false, Some("--configsvr")),
            (knows("sh0"), false, Some("has a cluster already")),
            (knows("sh0"), true, None),
            (knows("other"), true, Some("shard other")),
        ] {
            told(unfit_for_config(&member, wanted.iter(), resumed), words);
        }
    }

    #[test]
    fn a_connection_string_has_the_set_and_its_hosts_in_order() {
        assert_eq!(member("shardsvr").connection_string(), "rs/a:1,b:1");
    }
}
