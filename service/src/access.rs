//! Who calls, and whether they may: by their key, the table of [`crate::rights`], and the deployments of the key.

use std::ops::Deref;

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use headwater_actors::Backup;
use headwater_actors::access::Bearer;
use headwater_model::DeploymentName;

use crate::audit;
use crate::fault::Fault;
use crate::rights::{self, Place};

/// The longest key worth hashing.
const KEY_MAX_BYTES: usize = 512;

/// The engine, for somebody who may ask it for what the request says.
pub(crate) struct Entered {
    backup: web::Data<Backup>,
    /// Who it is.
    pub(crate) bearer: Bearer,
}

impl Deref for Entered {
    type Target = Backup;

    fn deref(&self) -> &Backup {
        &self.backup
    }
}

impl Entered {
    /// Whether the key is for this deployment: for what is named elsewhere than in the path.
    pub(crate) fn require(&self, deployment: &DeploymentName) -> Result<(), Fault> {
        match self.bearer.covers(deployment) {
            true => Ok(()),
            false => Err(Fault::other_scope(deployment.as_str())),
        }
    }
}

/// Lets a request in. The only way to the engine but for what needs no key.
pub(crate) fn enter(req: &HttpRequest) -> Result<Entered, Fault> {
    let pattern = req.match_pattern().unwrap_or_default();
    let place = rights::place(req.method(), &pattern).ok_or_else(|| Fault::no_right(req.path()))?;
    let given = req
        .headers()
        .get(header::AUTHORIZATION)
        .map(header::HeaderValue::as_bytes);
    let key = bearer(given)?;
    let backup = req.app_data::<web::Data<Backup>>().ok_or_else(Fault::not_wired)?;
    backup.ready()?;
    let bearer = backup.bearer(key).ok_or_else(Fault::unknown_key)?;
    let named = req.match_info().get("name").or(req.match_info().get("deployment"));
    if let Err(fault) = permit(&bearer, place, named) {
        audit::turned_away(&bearer, place.what, req.path(), &fault);
        return Err(fault);
    }
    Ok(Entered {
        backup: backup.clone(),
        bearer,
    })
}

/// The same before it is known which deployment is named, for who only wants to know who it is.
pub(crate) fn known(req: &HttpRequest) -> Option<(&'static Place, Entered)> {
    let place = rights::place(req.method(), &req.match_pattern()?)?;
    let given = req.headers().get(header::AUTHORIZATION)?;
    let backup = req.app_data::<web::Data<Backup>>()?;
    let bearer = backup.bearer(bearer(Some(given.as_bytes())).ok()?)?;
    permit(&bearer, place, None).ok()?;
    let backup = backup.clone();
    Some((place, Entered { backup, bearer }))
}

/// Whether a known bearer may make a request, which may name a deployment in its path.
fn permit(bearer: &Bearer, place: &Place, named: Option<&str>) -> Result<(), Fault> {
    if !place.right.is_of(bearer.role) {
        return Err(Fault::other_role(bearer.role, place.right.text()));
    }
    let covered = |named| bearer.scope.is_empty() || DeploymentName::new(named).is_ok_and(|name| bearer.covers(&name));
    match named {
        Some(named) if !covered(named) => Err(Fault::other_scope(named)),
        _ => Ok(()),
    }
}

/// The key in an `Authorization` header.
fn bearer(header: Option<&[u8]>) -> Result<&str, Fault> {
    let text = header
        .and_then(|h| std::str::from_utf8(h).ok())
        .ok_or_else(Fault::no_key)?;
    let (scheme, key) = text.split_once(' ').ok_or_else(Fault::no_key)?;
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Err(Fault::no_key());
    }
    if key.len() > KEY_MAX_BYTES {
        Err(Fault::unknown_key())
    } else {
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, ResponseError};
    use headwater_model::KeyRole;

    use super::*;

    fn status<T>(result: Result<T, Fault>) -> u16 {
        result.err().map_or(200, |fault| fault.status_code().as_u16())
    }

    fn holder(role: KeyRole, scope: &[&str]) -> Bearer {
        Bearer {
            name: "n".parse().unwrap(),
            id: "ab".to_owned(),
            role,
            scope: scope.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_key_is_read_from_a_bearer_header_only() {
        assert_eq!(bearer(Some(b"Bearer abc")).unwrap(), "abc");
        assert_eq!(bearer(Some(b"bearer  abc ")).unwrap(), "abc");
        let long = format!("Bearer {}", "x".repeat(KEY_MAX_BYTES + 1));
        for wrong in [
            None,
            Some(&b"abc"[..]),
            Some(b"Bearer"),
            Some(b"Bearer  "),
            Some(b"Basic abc"),
            Some(b"Bearer \xff"),
        ] {
            assert_eq!(status(bearer(wrong)), 401, "{wrong:?}");
        }
        assert_eq!(status(bearer(Some(long.as_bytes()))), 401);
    }

    /// The rights themselves, spelled out once more where they matter most.
    #[test]
    fn a_role_opens_what_is_its_and_says_what_it_lacks() {
        use KeyRole::{Admin, Agent, Operator, Restorer, Viewer};
        let one = "/api/v1/deployments/{name}";
        let rows: [(&Method, &str, &[KeyRole]); 8] = [
            (&Method::GET, one, &[Viewer, Operator, Restorer, Admin]),
            (&Method::DELETE, one, &[Operator, Admin]),
            (&Method::POST, "/api/v1/deployments/{name}/restores", &[Restorer, Admin]),
            (&Method::POST, "/api/v1/restores/{id}/cancel", &[Restorer, Admin]),
            (&Method::GET, "/api/v1/restores/{id}/archive", &[Restorer, Admin]),
            (&Method::POST, "/api/v1/cluster/nodes/{id}/drain", &[Admin]),
            (&Method::POST, "/api/v1/access/keys", &[Admin]),
            (&Method::POST, "/agent/v1/{deployment}/{set}/oplog", &[Agent]),
        ];
        for (method, pattern, roles) in rows {
            for role in KeyRole::ALL {
                let outcome = permit(&holder(role, &[]), rights::place(method, pattern).unwrap(), None);
                let wanted = if roles.contains(&role) { 200 } else { 403 };
                assert_eq!(status(outcome), wanted, "{role} {method} {pattern}");
            }
        }
        let restore = rights::place(&Method::POST, rows[2].1).unwrap();
        let refused = permit(&holder(Viewer, &[]), restore, Some("shop"));
        let message = refused.err().map(|fault| fault.to_string()).unwrap_or_default();
        assert_eq!(message, "this key lacks the right to restore: its role is viewer");
    }

    #[test]
    fn a_key_opens_its_own_deployments_only() {
        let slice = "/agent/v1/{deployment}/{set}/oplog";
        for (scope, named, wanted) in [
            (&["shop"][..], "shop", 200),
            (&["shop"], "blog", 403),
            (&["shop", "blog"], "blog", 200),
            (&["shop"], "", 403),
            (&[], "blog", 200),
        ] {
            let place = rights::place(&Method::POST, slice).unwrap();
            let outcome = permit(&holder(KeyRole::Agent, scope), place, Some(named));
            assert_eq!(status(outcome), wanted, "{scope:?} {named}");
        }
    }

    #[actix_web::test]
    async fn what_is_not_in_the_table_is_opened_by_no_key() {
        async fn secrets(req: HttpRequest) -> Result<String, Fault> {
            enter(&req).map(|_| "secrets".to_owned())
        }
        let app = App::new().route("/api/v1/secrets", web::get().to(secrets));
        let app = init_service(app).await;
        let request = TestRequest::get()
            .uri("/api/v1/secrets")
            .insert_header(("authorization", "Bearer hw_a_b"));
        let response = call_service(&app, request.to_request()).await;
        assert_eq!(response.status().as_u16(), 403);
    }
}
