//! Who may do what: which right a place asks for, and which rights a role has. Both are data; docs/ACCESS.md shows them to
//! people, and a test keeps it true.

use actix_web::http::Method;
use headwater_model::KeyRole;

/// What somebody may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To see how things stand. Never the data.
    View,
    /// To change what is protected and how.
    Operate,
    /// To give data back, and to get it.
    Restore,
    /// To change keys and the nodes of the cluster.
    Administer,
    /// To ship slices.
    Ship,
}

impl Right {
    /// What one does by it, after "the right to".
    pub(crate) fn text(self) -> &'static str {
        match self {
            Right::View => "view",
            Right::Operate => "change backups",
            Right::Restore => "restore",
            Right::Administer => "administer keys and nodes",
            Right::Ship => "ship as an agent",
        }
    }

    /// Whether `role` has it.
    pub(crate) fn is_of(self, role: KeyRole) -> bool {
        let rights: &[Right] = match role {
            KeyRole::Agent => &[Right::Ship],
            KeyRole::Viewer => &[Right::View],
            KeyRole::Operator => &[Right::View, Right::Operate],
            KeyRole::Restorer => &[Right::View, Right::Restore],
            KeyRole::Admin => &[Right::View, Right::Operate, Right::Restore, Right::Administer],
        };
        rights.contains(&self)
    }
}

/// One kind of request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    method: &'static str,
    pattern: &'static str,
    /// What its caller must be allowed.
    pub(crate) right: Right,
    /// What is done, for the log of who did what.
    pub(crate) what: &'static str,
}

impl Place {
    /// Whether the log of who did what tells of it: every change, and everything by which data leaves. A plan of a restore
    /// changes nothing and gives nothing.
    pub(crate) fn is_audited(&self) -> bool {
        match self.right {
            Right::View | Right::Ship => false,
            Right::Operate | Right::Administer => self.method != "GET",
            Right::Restore => self.what != "restore plan",
        }
    }
}

const fn at(method: &'static str, pattern: &'static str, right: Right, what: &'static str) -> Place {
    Place {
        method,
        pattern,
        right,
        what,
    }
}

/// The right for a request; `None` for one that nobody may make.
pub(crate) fn place(method: &Method, pattern: &str) -> Option<&'static Place> {
    PLACES
        .iter()
        .find(|place| place.pattern == pattern && place.method == method.as_str())
}

use Right::{Administer, Operate, Restore, Ship, View};

/// Every place that asks for a key but that of other daemons, which have one of their own.
#[rustfmt::skip]
const PLACES: &[Place] = &[
    at("GET", "/api/v1/deployments", View, "deployment list"),
    at("POST", "/api/v1/deployments", Operate, "deployment add"),
    at("GET", "/api/v1/deployments/{name}", View, "deployment show"),
    at("DELETE", "/api/v1/deployments/{name}", Operate, "deployment remove"),
    at("POST", "/api/v1/deployments/{name}/stop", Operate, "deployment stop"),
    at("POST", "/api/v1/deployments/{name}/restart", Operate, "deployment restart"),
    at("POST", "/api/v1/deployments/{name}/resync", Operate, "deployment resync"),
    at("POST", "/api/v1/deployments/{name}/rewrap", Operate, "key rotate"),
    at("GET", "/api/v1/deployments/{name}/timeline", View, "timeline"),
    at("GET", "/api/v1/deployments/{name}/snapshots", View, "snapshot list"),
    at("POST", "/api/v1/deployments/{name}/snapshots", Operate, "snapshot take"),
    at("GET", "/api/v1/deployments/{name}/snapshots/{id}", View, "snapshot show"),
    at("POST", "/api/v1/deployments/{name}/snapshots/{id}", Operate, "snapshot change"),
    at("DELETE", "/api/v1/deployments/{name}/snapshots/{id}", Operate, "snapshot delete"),
    at("GET", "/api/v1/deployments/{name}/schedule", View, "schedule show"),
    at("POST", "/api/v1/deployments/{name}/schedule", Operate, "schedule set"),
    at("GET", "/api/v1/deployments/{name}/groom", View, "groom status"),
    at("POST", "/api/v1/deployments/{name}/groom", Operate, "groom run"),
    at("GET", "/api/v1/deployments/{name}/check", View, "check status"),
    at("POST", "/api/v1/deployments/{name}/check", Operate, "check start"),
    at("GET", "/api/v1/deployments/{name}/check/{number}", View, "check show"),
    at("POST", "/api/v1/deployments/{name}/proof", Operate, "proof run"),
    at("POST", "/api/v1/deployments/{name}/restores/plan", Restore, "restore plan"),
    at("POST", "/api/v1/deployments/{name}/restores", Restore, "restore start"),
    at("GET", "/api/v1/restores", View, "restores list"),
    at("GET", "/api/v1/restores/{id}", View, "restores show"),
    at("POST", "/api/v1/restores/{id}/cancel", Restore, "restore cancel"),
    at("GET", "/api/v1/restores/{id}/archive", Restore, "restore archive"),
    at("GET", "/api/v1/alerts", View, "alerts list"),
    at("POST", "/api/v1/alerts/ack", Operate, "alerts ack"),
    at("GET", "/api/v1/status", View, "status"),
    at("GET", "/api/v1/cluster", View, "cluster status"),
    at("DELETE", "/api/v1/cluster/nodes/{id}", Administer, "cluster remove"),
    at("POST", "/api/v1/cluster/nodes/{id}/drain", Administer, "cluster drain"),
    at("POST", "/api/v1/cluster/nodes/{id}/add", Administer, "cluster add"),
    at("GET", "/api/v1/access/keys", Administer, "access list"),
    at("POST", "/api/v1/access/keys", Administer, "access create"),
    at("DELETE", "/api/v1/access/keys/{key}", Administer, "access revoke"),
    at("GET", "/api/v1/access/log", Administer, "access log"),
    at("POST", "/agent/v1/orders", Ship, "orders"),
    at("POST", "/agent/v1/{deployment}/{set}/open", Ship, "open"),
    at("POST", "/agent/v1/{deployment}/{set}/sync/begin", Ship, "sync begin"),
    at("POST", "/agent/v1/{deployment}/{set}/sync/slice", Ship, "sync slice"),
    at("POST", "/agent/v1/{deployment}/{set}/sync/end", Ship, "sync end"),
    at("POST", "/agent/v1/{deployment}/{set}/oplog", Ship, "oplog"),
    at("POST", "/agent/v1/{deployment}/{set}/documents", Ship, "documents"),
    at("POST", "/agent/v1/{deployment}/{set}/poll", Ship, "poll"),
];

#[cfg(test)]
mod tests {
    use actix_web::App;
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service};

    use super::*;

    const GUIDE: &str = include_str!("../../docs/ACCESS.md");

    /// The table of the guide: every place with every role.
    fn table() -> String {
        let roles = KeyRole::ALL.map(|role| role.text()).join(" | ");
        let mut out = format!("| request | {roles} |\n|---|---|---|---|---|---|\n");
        for place in PLACES {
            let cell = |role: &KeyRole| if place.right.is_of(*role) { "yes" } else { "-" };
            let cells = KeyRole::ALL.iter().map(cell).collect::<Vec<_>>().join(" | ");
            out += &format!("| `{} {}` | {cells} |\n", place.method, place.pattern);
        }
        out
    }

    #[test]
    fn the_guide_shows_every_place_with_every_role() {
        assert!(GUIDE.contains(&table()), "put this into docs/ACCESS.md:\n\n{}", table());
    }

    #[test]
    fn every_change_and_every_restore_is_told_and_nothing_else() {
        let told = |what: &str| PLACES.iter().find(|place| place.what == what).map(Place::is_audited);
        for what in [
            "restore start",
            "restore archive",
            "deployment add",
            "access create",
            "cluster drain",
        ] {
            assert_eq!(told(what), Some(true), "{what}");
        }
        for what in ["status", "restore plan", "access list", "access log", "oplog", "orders"] {
            assert_eq!(told(what), Some(false), "{what}");
        }
        for place in PLACES
            .iter()
            .filter(|place| place.method != "GET" && place.right != Ship)
        {
            assert!(place.is_audited() || place.what == "restore plan", "{place:?}");
        }
    }

    #[test]
    fn no_place_is_listed_twice() {
        for (n, one) in PLACES.iter().enumerate() {
            let again = PLACES[n + 1..]
                .iter()
                .any(|other| (other.method, other.pattern) == (one.method, one.pattern));
            assert!(!again, "{one:?}");
        }
    }

    async fn status_of(method: &str, pattern: &str) -> StatusCode {
        let app = init_service(App::new().configure(crate::configure)).await;
        let request = TestRequest::default()
            .method(method.parse().unwrap())
            .uri(&pattern.replace(['{', '}'], "x"))
            .to_request();
        call_service(&app, request).await.status()
    }

    /// A place of the table that asks for a key is there; one that is there and not in the table would let nobody in, and
    /// answer 403.
    #[actix_web::test]
    async fn the_table_and_the_routes_are_the_same() {
        for place in PLACES {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let listed = super::place(&method.parse().unwrap(), place.pattern).is_some();
                let wanted = if listed {
                    StatusCode::UNAUTHORIZED
                } else {
                    StatusCode::METHOD_NOT_ALLOWED
                };
                assert_eq!(
                    status_of(method, place.pattern).await,
                    wanted,
                    "{method} {}",
                    place.pattern
                );
            }
        }
    }
}
