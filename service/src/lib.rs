//! The Backup HTTP Service: the agent's ingest, the user's API, a read-only console page, probes and metrics.
//!
//! It holds no state and decides nothing: it checks the key, bounds and reads the body, calls [`Backup`], and turns
//! the answer into HTTP. `protocol::agent` and `protocol::admin` are the tables of routes.
//!
//! * `access`: who calls, and whether they may; `rights`: who may do what, as a table.
//! * `keys`: the keys themselves; `audit`: who did what.
//! * `body`: bodies with a limit and a deadline.
//! * `fault`: every answer other than 2xx is a `Refusal` in JSON, whatever went wrong.
//! * `ingest`, `admin`, `cluster`, `probes`, `console`: the routes.
//! * `internal`: where other daemons call; `callers`: how much memory the unproven ones among them take.
//! * `archive`: a stream that breaks rather than lies.
//! * `server`: the listening process; `welcome`: the first bytes of a connection.

mod access;
mod admin;
mod archive;
mod audit;
mod body;
mod callers;
mod cluster;
mod console;
mod fault;
mod guard;
mod ingest;
mod internal;
mod keys;
mod probes;
mod rights;
mod server;
mod welcome;

use actix_web::http::Method;
use actix_web::{HttpRequest, Resource, middleware, web};
use headwater_actors::Backup;

pub use internal::Door;
pub use server::{Listen, serve};

use fault::Fault;

/// Adds every route. The application must carry a [`Backup`] as its data (`app_data(web::Data<Backup>)`); [`serve`]
/// does so.
pub fn configure(cfg: &mut web::ServiceConfig) {
    let whole = web::scope("")
        .wrap(middleware::from_fn(audit::deeds))
        .wrap(middleware::from_fn(guard::refuse_panics))
        .configure(ingest::routes)
        .configure(admin::routes)
        .configure(cluster::routes)
        .configure(keys::routes)
        .configure(internal::routes)
        .configure(probes::routes)
        .configure(console::routes)
        .default_service(web::to(no_such_place));
    cfg.service(whole);
}

/// A place that takes the given methods and refuses every other one properly.
fn place(path: &str, methods: &'static [Method]) -> Resource {
    web::resource(path).default_service(web::to(move |req: HttpRequest| async move {
        Err::<String, Fault>(Fault::method(req.method(), methods))
    }))
}

async fn no_such_place(req: HttpRequest) -> Result<String, Fault> {
    Err(Fault::no_such_place(req.path()))
}

/// The engine behind this request.
fn backup(req: &HttpRequest) -> Result<&Backup, Fault> {
    req.app_data::<web::Data<Backup>>()
        .map(|data| data.get_ref())
        .ok_or_else(Fault::not_wired)
}

#[cfg(test)]
mod tests {
    use actix_web::http::{StatusCode, header};
    use actix_web::{App, test};
    use headwater_protocol::agent::{Refusal, RefusalKind};

    use super::*;

    async fn ask(method: Method, path: &str) -> (StatusCode, Option<String>, Refusal) {
        let app = test::init_service(App::new().configure(configure)).await;
        let request = test::TestRequest::default().method(method).uri(path).to_request();
        let response = test::call_service(&app, request).await;
        let status = response.status();
        let header_of = |name| {
            response
                .headers()
                .get(name)
                .map(|v: &header::HeaderValue| v.to_str().unwrap().to_owned())
        };
        let allow = header_of(header::ALLOW);
        assert_eq!(header_of(header::CONTENT_TYPE).as_deref(), Some("application/json"));
        (status, allow, test::read_body_json(response).await)
    }

    #[actix_web::test]
    async fn a_place_that_does_not_exist_is_refused_in_json() {
        for path in [
            "/nowhere",
            "/api/v1",
            "/api/v1/deployments/a/b/c",
            "/agent/v1/a/b/c",
            "/api/v2/status",
        ] {
            let (status, _, refusal) = ask(Method::GET, path).await;
            assert_eq!(
                (status, refusal.kind),
                (StatusCode::NOT_FOUND, RefusalKind::NotFound),
                "{path}"
            );
            assert!(refusal.message.contains(path), "{}", refusal.message);
        }
    }

    #[actix_web::test]
    async fn a_method_a_place_does_not_take_is_refused_with_those_it_takes() {
        for (method, path, takes) in [
            (Method::PUT, "/api/v1/deployments", "GET, POST"),
            (Method::POST, "/api/v1/deployments/a", "GET, DELETE"),
            (Method::GET, "/agent/v1/orders", "POST"),
            (Method::GET, "/agent/v1/a/b/oplog", "POST"),
            (Method::POST, "/livez", "GET"),
            (Method::DELETE, "/", "GET"),
        ] {
            let (status, allow, refusal) = ask(method, path).await;
            assert_eq!(
                (status, refusal.kind),
                (StatusCode::METHOD_NOT_ALLOWED, RefusalKind::Invalid),
                "{path}"
            );
            assert_eq!(allow.as_deref(), Some(takes), "{path}");
        }
    }

    #[actix_web::test]
    async fn no_place_of_either_api_answers_without_a_key() {
        let api = [
            "/api/v1/status",
            "/api/v1/restores",
            "/api/v1/restores/1/archive",
            "/api/v1/deployments/a/timeline",
        ];
        let agent = [
            "/agent/v1/orders",
            "/agent/v1/a/b/open",
            "/agent/v1/a/b/sync/slice",
            "/agent/v1/a/b/poll",
        ];
        let all = api
            .map(|p| (Method::GET, p))
            .into_iter()
            .chain(agent.map(|p| (Method::POST, p)));
        for (method, path) in all {
            let (status, _, refusal) = ask(method, path).await;
            assert_eq!(
                (status, refusal.kind),
                (StatusCode::UNAUTHORIZED, RefusalKind::Unauthorized),
                "{path}"
            );
        }
    }
}
