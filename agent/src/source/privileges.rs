//! Finds out before anything starts whether the login may do what a backup needs, and says how to allow it.

use bson::{Document, doc};
use headwater_protocol::agent::StreamFault;

use super::error::SourceError;
use super::node::Node;

/// Tries every kind of read a stream will make. A missing privilege becomes a fault with the command that grants it.
pub async fn check(node: &Node) -> Result<Option<StreamFault>, SourceError> {
    let one = |name: &str| doc! { "find": name, "limit": 1, "singleBatch": true, "projection": { "_id": 1 } };
    let trials: [(&str, &str, Document); 6] = [
        ("read the oplog", "local", one("oplog.rs")),
        ("list databases", "admin", doc! { "listDatabases": 1, "nameOnly": true }),
        ("list collections", "admin", doc! { "listCollections": 1, "nameOnly": true }),
        ("read config.transactions", "config", one("transactions")),
        ("read admin.system.version", "admin", one("system.version")),
        ("read users and roles", "admin", one("system.users")),
    ];
    for (what, db, command) in trials {
        match node.command(db, command).await {
            Ok(_) => {}
            Err(error) if error.is_unauthorized() => return Ok(Some(missing(what, node).await)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The fault for something the login may not do.
pub async fn missing(what: &str, node: &Node) -> StreamFault {
    let status = node.command("admin", doc! { "connectionStatus": 1 }).await.unwrap_or_default();
    let users = status.get_document("authInfo").and_then(|info| info.get_array("authenticatedUsers"));
    let user = users.ok().and_then(|users| users.first()?.as_document());
    let user = user.and_then(|user| Some((user.get_str("user").ok()?, user.get_str("db").ok()?)));
    let detail = match user {
        Some((name, db)) => format!("user {name:?} of database {db:?} may not {what}"),
        None => format!("without a login the agent may not {what}"),
    };
    StreamFault::Refused { detail, cure: cure(user) }
}

/// The command to paste into mongosh.
fn cure(user: Option<(&str, &str)>) -> String {
    let roles = r#"[{ role: "backup", db: "admin" }, { role: "clusterMonitor", db: "admin" }]"#;
    match user {
        Some((name, db)) => format!("db.getSiblingDB({db:?}).grantRolesToUser({name:?}, {roles})"),
        None => format!(
            "db.getSiblingDB(\"admin\").createUser({{ user: \"headwater\", pwd: passwordPrompt(), roles: {roles} }}) \
             and put the user into the deployment's connection string"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_is_a_line_to_paste() {
        assert_eq!(
            cure(Some(("ann", "admin"))),
            r#"db.getSiblingDB("admin").grantRolesToUser("ann", [{ role: "backup", db: "admin" }, { role: "clusterMonitor", db: "admin" }])"#
        );
        assert!(cure(None).contains("createUser"));
    }
}
