//! The cluster for its administrator: `/api/v1/cluster`, by the table of `protocol::admin`.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use headwater_protocol::agent::{Refusal, RefusalKind};

use crate::fault::Fault;
use crate::{access, place};

type Answer = Result<HttpResponse, Fault>;

pub(crate) fn routes(cfg: &mut web::ServiceConfig) {
    let one = "/api/v1/cluster/nodes/{id}";
    cfg.service(place("/api/v1/cluster", &[Method::GET]).route(web::get().to(cluster)))
        .service(place(one, &[Method::DELETE]).route(web::delete().to(remove)))
        .service(place(&format!("{one}/drain"), &[Method::POST]).route(web::post().to(drain)))
        .service(place(&format!("{one}/add"), &[Method::POST]).route(web::post().to(add)));
}

fn node_of(req: &HttpRequest) -> Result<u64, Fault> {
    let text = req.match_info().get("id").unwrap_or_default();
    let message = || format!("there is no node {text:?}; nodes have numbers");
    text.parse()
        .map_err(|_| Refusal::new(RefusalKind::NotFound, message()).into())
}

async fn cluster(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let mut view = backup.cluster();
    for node in &mut view.nodes {
        node.replica_sets.retain(|set| backup.bearer.covers(set.deployment()));
    }
    Ok(HttpResponse::Ok().json(view))
}

async fn drain(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.drain(node_of(&req)?, true).await?))
}

async fn add(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.drain(node_of(&req)?, false).await?))
}

async fn remove(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.remove_node(node_of(&req)?).await?))
}
