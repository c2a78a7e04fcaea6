//! A replica set that is a backing store must not be protected by what stores in it: every byte written would be an oplog
//! entry to be stored in turn, and one loss would take source and backup at once. Decides, never acts.

use headwater_model::redact;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_store::backend::mongodb::BackingSet;

const DEFAULT_PORT: &str = "27017";

fn refusal(set: &BackingSet) -> Refusal {
    let message = format!(
        "replica set {} holds the store of this cluster: what is stored in it would be backed up into itself. Protect it \
         from a cluster that stores elsewhere",
        set.name
    );
    Refusal::new(RefusalKind::Invalid, message)
}

/// Lower case, with a port.
fn normal(host: &str) -> String {
    let host = host.trim().to_lowercase();
    match host.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => format!("{host}:{DEFAULT_PORT}"),
    }
}

fn meets(set: &BackingSet, mut hosts: impl Iterator<Item = String>) -> bool {
    let own: Vec<String> = set.hosts.iter().map(|host| normal(host)).collect();
    hosts.any(|host| own.contains(&host))
}

/// Refuses a connection string that names a member of a backing store.
pub fn check_uri(uri: &str, sets: &[BackingSet]) -> Result<(), Refusal> {
    let hosts = redact::hosts(uri);
    let named = || hosts.split(',').filter(|host| !host.is_empty()).map(normal);
    sets.iter()
        .find(|set| meets(set, named()))
        .map_or(Ok(()), |set| Err(refusal(set)))
}

/// Refuses a source that turns out to be a backing store, by whatever names it was reached.
pub fn check_source(name: &str, hosts: &[String], sets: &[BackingSet]) -> Result<(), Refusal> {
    let is_it = |set: &&BackingSet| set.name == name && meets(set, hosts.iter().map(|host| normal(host)));
    sets.iter().find(is_it).map_or(Ok(()), |set| Err(refusal(set)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backing_store_is_known_by_its_members() {
        let sets = [BackingSet {
            name: "store".into(),
            hosts: vec!["A.example".into(), "b:1".into()],
        }];
        for (uri, refused) in [
            ("mongodb://a.example/", true),
            ("mongodb://u:p@x,A.EXAMPLE:27017/?replicaSet=store", true),
            ("mongodb://b:1", true),
            ("mongodb://b:2,c", false),
            ("mongodb+srv://cluster.example", false),
        ] {
            assert_eq!(check_uri(uri, &sets).is_err(), refused, "{uri}");
        }
        for (name, host, refused) in [("store", "b:1", true), ("store", "d:1", false), ("rs0", "b:1", false)] {
            assert_eq!(
                check_source(name, &[host.to_owned()], &sets).is_err(),
                refused,
                "{name} {host}"
            );
        }
    }
}
