//! The agent's half: `/agent/v1`, by the table of `protocol::agent`.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use headwater_model::{DeploymentName, ReplicaSetId};
use headwater_protocol::agent::{OpenRequest, OrdersRequest, PollRequest, SyncEnd};

use crate::fault::Fault;
use crate::{access, body, place};

type Answer = Result<HttpResponse, Fault>;

const POST: &[Method] = &[Method::POST];

pub(crate) fn routes(cfg: &mut web::ServiceConfig) {
    let set = "/agent/v1/{deployment}/{set}";
    cfg.service(place("/agent/v1/orders", POST).route(web::post().to(orders)))
        .service(place(&format!("{set}/open"), POST).route(web::post().to(open)))
        .service(place(&format!("{set}/sync/begin"), POST).route(web::post().to(sync_begin)))
        .service(place(&format!("{set}/sync/slice"), POST).route(web::post().to(sync_slice)))
        .service(place(&format!("{set}/sync/end"), POST).route(web::post().to(sync_end)))
        .service(place(&format!("{set}/oplog"), POST).route(web::post().to(oplog)))
        .service(place(&format!("{set}/documents"), POST).route(web::post().to(documents)))
        .service(place(&format!("{set}/poll"), POST).route(web::post().to(poll)));
}

fn set_of(req: &HttpRequest) -> Result<ReplicaSetId, Fault> {
    let part = |name| req.match_info().get(name).unwrap_or_default();
    Ok(ReplicaSetId::new(
        DeploymentName::new(part("deployment"))?,
        part("set"),
    )?)
}

async fn orders(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let mut request: OrdersRequest = body::json(&req, payload).await?;
    let bearer = &backup.bearer;
    request.faults.retain(|fault| bearer.covers(&fault.deployment));
    request.scope.clone_from(&bearer.scope);
    Ok(HttpResponse::Ok().json(backup.orders(request).await?))
}

async fn open(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let set = set_of(&req)?;
    let request: OpenRequest = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.open(&set, request).await?))
}

async fn sync_begin(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let set = set_of(&req)?;
    let frame = body::frame(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.sync_begin(&set, frame.bytes.clone()).await?))
}

async fn sync_slice(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let set = set_of(&req)?;
    let frame = body::frame(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.sync_slice(&set, frame.bytes.clone()).await?))
}

async fn sync_end(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let set = set_of(&req)?;
    let end: SyncEnd = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.sync_end(&set, end).await?))
}

async fn oplog(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let set = set_of(&req)?;
    let frame = body::frame(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.oplog(&set, frame.bytes.clone()).await?))
}

async fn documents(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let set = set_of(&req)?;
    let frame = body::frame(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.documents(&set, frame.bytes.clone()).await?))
}

async fn poll(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let set = set_of(&req)?;
    let request: PollRequest = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.poll(&set, request).await?))
}
