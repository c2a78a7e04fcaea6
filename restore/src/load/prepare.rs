//! Before anything is written: is the target fit, and are the names free?

use std::collections::{BTreeMap, BTreeSet};

use bson::RawDocument;
use headwater_model::Namespace;

use super::target::About;
use super::{Load, LoadFault, Settings, Stage};
use crate::naming::{Item, Kind};
use crate::source::{Source, SourceFault};

impl Load<'_> {
    pub(super) async fn prepare(&self) -> Result<About, LoadFault> {
        let about = self.target.about().await?;
        let fcv = source_fcv(self.source).await?;
        let needed = fcv.as_deref().unwrap_or(&self.settings.source_version);
        if let Some(why) = unfit(&about, needed, self.settings) {
            return Err(LoadFault::Unfit {
                target: self.target.shown().to_owned(),
                why,
            });
        }
        self.claim().await?;
        Ok(about)
    }

    /// Claims all names at once: they were free then, or may be dropped.
    async fn claim(&self) -> Result<(), LoadFault> {
        let mut there: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut taken = Vec::new();
        for (item, _) in self.items.iter().filter(|(item, _)| needs_a_name(item)) {
            if self.ledger.stage(&item.to).is_some() {
                continue;
            }
            let db = item.to.db.as_str();
            if !there.contains_key(db) {
                there.insert(db, self.target.names(db).await?);
            }
            if there[db].contains(&item.to.coll) || there[db].contains(&item.to_data().coll) {
                taken.push(item.to.clone());
            }
        }
        if !taken.is_empty() && !self.settings.drop {
            return Err(LoadFault::Exists { names: taken });
        }
        for (item, _) in self.items.iter().filter(|(item, _)| needs_a_name(item)) {
            if self.ledger.stage(&item.to).is_none() {
                self.ledger.note_stage(&item.to, Stage::Claimed);
            }
        }
        self.ledger.keep().await
    }
}

fn needs_a_name(item: &Item) -> bool {
    matches!(item.kind, Kind::Collection | Kind::TimeSeries | Kind::View(_))
}

/// Why a target cannot take a backup whose source had the feature compatibility version `needed`.
fn unfit(about: &About, needed: &str, settings: &Settings) -> Option<String> {
    if about.sharded {
        return Some(format!("it is a mongos; {THROUGH_A_MONGOS}"));
    }
    // With UUIDs kept it is to become a member, and after an interruption it may be one.
    let member = cluster_member(about).filter(|_| !settings.keep_uuids);
    if let Some(member) = member {
        return Some(format!(
            "it is {member}, where nothing may be written past the routers; name a replica set of its own, make a new \
             cluster with --to-cluster, or {THROUGH_A_MONGOS}"
        ));
    }
    if !about.writable {
        return Some("it is no writable primary; name all members of the replica set, or the primary".to_owned());
    }
    if let Some(host) = settings.source_hosts.iter().find(|host| about.hosts.contains(*host)) {
        return Some(format!(
            "{host} belongs to the source of this backup; choose another target"
        ));
    }
    let (version, fcv, needed_version) = (release(&about.version), release(&about.fcv), release(needed)?);
    if version.is_some_and(|v| v < needed_version) {
        let (major, minor) = needed_version;
        return Some(format!(
            "it runs MongoDB {}; the backup needs {major}.{minor} or newer",
            about.version
        ));
    }
    if fcv.is_some_and(|v| v < needed_version) {
        let (major, minor) = needed_version;
        return Some(format!(
            "its feature compatibility version is {}, the backup's {major}.{minor}; run on it: \
             db.adminCommand({{setFeatureCompatibilityVersion: \"{major}.{minor}\"}})",
            about.fcv
        ));
    }
    None
}

/// How a cluster that is there gets data.
const THROUGH_A_MONGOS: &str =
    "restore through a mongos: headwater restore … --to-archive - | mongorestore --archive --uri MONGOS";

fn cluster_member(about: &About) -> Option<String> {
    match &about.shard {
        _ if about.config_server => Some("a config server of a sharded cluster".to_owned()),
        Some(name) if name.is_empty() => Some("a shard of a cluster".to_owned()),
        Some(name) => Some(format!(
            "shard {name} of a cluster (shardIdentity in its admin.system.version)"
        )),
        None => None,
    }
}

pub(crate) fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The feature compatibility version of the source at the instant restored.
pub(crate) async fn source_fcv(source: &dyn Source) -> Result<Option<String>, SourceFault> {
    let name = Namespace::new("admin", "system.version");
    let Some(collection) = source.collections().into_iter().find(|c| c.namespace == name) else {
        return Ok(None);
    };
    let mut rows = source.rows(collection.uuid, None).await?;
    loop {
        let batch = rows.next_batch().await?;
        if batch.is_empty() {
            return Ok(None);
        }
        for row in batch {
            let Ok(document) = RawDocument::from_bytes(&row.doc) else {
                continue;
            };
            if document
                .get_str("_id")
                .is_ok_and(|id| id == "featureCompatibilityVersion")
            {
                return Ok(document.get_str("version").ok().map(str::to_owned));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            version: "6.0.5".into(),
            fcv: "6.0".into(),
            hosts: ["a:1".to_owned()].into(),
            writable: true,
            sharded: false,
            in_a_set: true,
            config_server: false,
            shard: None,
        }
    }

    #[test]
    fn what_belongs_to_a_cluster_takes_no_restore_unless_it_is_made_anew() {
        let shard = |name: &str| About {
            shard: Some(name.to_owned()),
            ..about()
        };
        let config = About {
            config_server: true,
            ..about()
        };
        let mut settings = Settings::new("6.0.5");
        for (about, words) in [
            (shard("sh0"), "it is shard sh0 of a cluster"),
            (shard(""), "it is a shard of a cluster"),
            (config, "it is a config server"),
        ] {
            settings.keep_uuids = false;
            let why = unfit(&about, "6.0", &settings).unwrap();
            assert!(
                why.contains(words) && why.contains("--to-archive - | mongorestore"),
                "{why}"
            );
            settings.keep_uuids = true;
            assert_eq!(unfit(&about, "6.0", &settings), None);
        }
    }

    #[test]
    fn a_target_is_fit_when_it_is_writable_new_enough_and_not_the_source() {
        let other = ["b:1".to_owned()];
        for (about, needed, hosts, words) in [
            (about(), "6.0", &other[..], None),
            (about(), "5.0", &[], None),
            (about(), "4.4.2", &[], None),
            (about(), "unknown", &[], None),
            (about(), "7.0", &[], Some("needs 7.0 or newer")),
            (
                About {
                    fcv: "5.0".into(),
                    ..about()
                },
                "6.0",
                &[],
                Some("setFeatureCompatibilityVersion: \"6.0\""),
            ),
            (
                About {
                    writable: false,
                    ..about()
                },
                "6.0",
                &[],
                Some("no writable primary"),
            ),
            (
                About {
                    sharded: true,
                    ..about()
                },
                "6.0",
                &[],
                Some("it is a mongos; restore through a mongos: headwater restore … --to-archive - | mongorestore"),
            ),
            (about(), "6.0", &["a:1".to_owned()][..], Some("belongs to the source")),
        ] {
            let settings = Settings {
                source_hosts: hosts.to_vec(),
                ..Settings::new("6.0.5")
            };
            let why = unfit(&about, needed, &settings);
            match words {
                None => assert_eq!(why, None),
                Some(words) => assert!(why.as_ref().is_some_and(|w| w.contains(words)), "{why:?}"),
            }
        }
    }
}
