//! What a server says about itself.

use bson::Document;
use headwater_model::{Optime, Ts};

/// The part of a reply to `hello` that matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello {
    /// The set's name; `None` for a standalone or a mongos.
    pub set: Option<String>,
    /// The server's address as the set's configuration has it.
    pub me: Option<String>,
    /// Every data-bearing member that is not hidden.
    pub members: Vec<String>,
    /// Whether it is the primary.
    pub primary: bool,
    /// Whether it is a secondary.
    pub secondary: bool,
    /// Whether it is a mongos.
    pub router: bool,
    /// Whether it is a config server of a sharded cluster.
    pub config_server: bool,
    /// The newest majority-committed position it knows of.
    pub majority: Option<Optime>,
    /// Names the server's process: another one after every restart.
    pub process: Option<String>,
}

impl Hello {
    /// Reads the reply.
    pub fn of(reply: &Document) -> Hello {
        let text = |name: &str| reply.get_str(name).ok().map(str::to_owned);
        let list = |name: &str| {
            let items = reply.get_array(name).map(Vec::as_slice).unwrap_or_default();
            items
                .iter()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let flag = |name: &str| reply.get_bool(name).unwrap_or(false);
        let majority = reply
            .get_document("lastWrite")
            .and_then(|write| write.get_document("majorityOpTime"));
        let process = reply.get_document("topologyVersion");
        let process = process.and_then(|version| version.get_object_id("processId")).ok();
        Hello {
            set: text("setName"),
            me: text("me").map(|me| me.to_lowercase()),
            members: [list("hosts"), list("passives")].concat(),
            primary: flag("isWritablePrimary") || flag("ismaster"),
            secondary: flag("secondary"),
            router: text("msg").as_deref() == Some("isdbgrid"),
            config_server: reply.contains_key("configsvr"),
            majority: majority.ok().and_then(optime),
            process: process.map(|id| id.to_hex()),
        }
    }
}

/// Reads `{ts, t}`.
pub fn optime(pair: &Document) -> Option<Optime> {
    let ts = pair.get_timestamp("ts").ok()?;
    Some(Optime::new(Ts::from(ts), pair.get_i64("t").unwrap_or(-1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::oid::ObjectId;
    use bson::{Timestamp, doc};

    #[test]
    fn a_secondary_a_router_and_a_standalone_are_told_apart() {
        let majority = doc! { "ts": Timestamp { time: 7, increment: 2 }, "t": 3_i64 };
        let secondary = Hello::of(&doc! {
            "setName": "rs0", "me": "A:1", "hosts": ["a:1"], "passives": ["b:1"], "secondary": true,
            "isWritablePrimary": false, "lastWrite": { "majorityOpTime": majority },
            "topologyVersion": { "processId": ObjectId::from_bytes([7; 12]), "counter": 3_i64 },
        });
        assert_eq!(secondary.process, Some("07".repeat(12)));
        assert_eq!(secondary.set.as_deref(), Some("rs0"));
        assert_eq!(secondary.me.as_deref(), Some("a:1"));
        assert_eq!(secondary.members, ["a:1", "b:1"]);
        assert_eq!(secondary.majority, Some(Optime::new(Ts::new(7, 2), 3)));
        assert!(Hello::of(&doc! { "msg": "isdbgrid" }).router);
        assert!(Hello::of(&doc! { "setName": "cfg", "configsvr": 2 }).config_server);
        assert_eq!(Hello::of(&doc! { "isWritablePrimary": true }).set, None);
    }
}
