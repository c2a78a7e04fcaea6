//! The user's half: `/api/v1`, by the table of `protocol::admin`.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use headwater_model::{DeploymentName, SnapshotId};
use headwater_protocol::admin::{AddDeployment, RestoreOrder, RestoreRequest, RestoreView};
use headwater_protocol::agent::{Accepted, Refusal, RefusalKind};
use headwater_protocol::integrity::{Acknowledge, CheckRequest, ProofRequest};
use headwater_protocol::keeping::{GroomRequest, ScheduleChange, SnapshotChange};

use crate::audit::{Note, note};
use crate::fault::Fault;
use crate::{access, archive, body, place};

type Answer = Result<HttpResponse, Fault>;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const GET_POST: &[Method] = &[Method::GET, Method::POST];
const GET_DELETE: &[Method] = &[Method::GET, Method::DELETE];
const GET_POST_DELETE: &[Method] = &[Method::GET, Method::POST, Method::DELETE];

pub(crate) fn routes(cfg: &mut web::ServiceConfig) {
    let all = "/api/v1/deployments";
    let one = "/api/v1/deployments/{name}";
    cfg.service(
        place(all, GET_POST)
            .route(web::get().to(deployments))
            .route(web::post().to(add_deployment)),
    )
    .service(
        place(one, GET_DELETE)
            .route(web::get().to(deployment))
            .route(web::delete().to(remove_deployment)),
    )
    .service(place(&format!("{one}/stop"), POST).route(web::post().to(stop)))
    .service(place(&format!("{one}/restart"), POST).route(web::post().to(restart)))
    .service(place(&format!("{one}/resync"), POST).route(web::post().to(resync)))
    .service(place(&format!("{one}/rewrap"), POST).route(web::post().to(rewrap)))
    .service(place(&format!("{one}/timeline"), GET).route(web::get().to(timeline)))
    .service(
        place(&format!("{one}/snapshots"), GET_POST)
            .route(web::get().to(snapshots))
            .route(web::post().to(take_snapshot)),
    )
    .service(
        place(&format!("{one}/snapshots/{{id}}"), GET_POST_DELETE)
            .route(web::get().to(snapshot))
            .route(web::post().to(change_snapshot))
            .route(web::delete().to(delete_snapshot)),
    )
    .service(
        place(&format!("{one}/schedule"), GET_POST)
            .route(web::get().to(schedule))
            .route(web::post().to(set_schedule)),
    )
    .service(
        place(&format!("{one}/groom"), GET_POST)
            .route(web::get().to(grooms))
            .route(web::post().to(run_groom)),
    )
    .service(place(&format!("{one}/restores/plan"), POST).route(web::post().to(plan_restore)))
    .service(place(&format!("{one}/restores"), POST).route(web::post().to(start_restore)))
    .service(
        place(&format!("{one}/check"), GET_POST)
            .route(web::get().to(check_status))
            .route(web::post().to(start_check)),
    )
    .service(place(&format!("{one}/check/{{number}}"), GET).route(web::get().to(check)))
    .service(place(&format!("{one}/proof"), POST).route(web::post().to(start_proof)))
    .service(place("/api/v1/restores", GET).route(web::get().to(restores)))
    .service(place("/api/v1/restores/{id}", GET).route(web::get().to(restore)))
    .service(place("/api/v1/restores/{id}/cancel", POST).route(web::post().to(cancel_restore)))
    .service(place("/api/v1/restores/{id}/archive", GET).route(web::get().to(restore_archive)))
    .service(place("/api/v1/alerts", GET).route(web::get().to(alerts)))
    .service(place("/api/v1/alerts/ack", POST).route(web::post().to(acknowledge)))
    .service(place("/api/v1/status", GET).route(web::get().to(status)));
}

fn name_of(req: &HttpRequest) -> Result<DeploymentName, Fault> {
    Ok(DeploymentName::new(req.match_info().get("name").unwrap_or_default())?)
}

fn snapshot_of(req: &HttpRequest) -> Result<SnapshotId, Fault> {
    Ok(SnapshotId::new(req.match_info().get("id").unwrap_or_default())?)
}

fn restore_of(req: &HttpRequest) -> Result<u64, Fault> {
    let text = req.match_info().get("id").unwrap_or_default();
    let missing = || {
        Refusal::new(
            RefusalKind::NotFound,
            format!("there is no restore {text:?}; restores have numbers"),
        )
    };
    text.parse().map_err(|_| missing().into())
}

async fn deployments(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let mut views = backup.deployments().await?;
    views.retain(|view| backup.bearer.covers(&view.name));
    Ok(HttpResponse::Ok().json(views))
}

async fn add_deployment(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let request: AddDeployment = body::json(&req, payload).await?;
    backup.require(&request.name)?;
    let deployment = Some(request.name.clone());
    note(
        &req,
        Note {
            deployment,
            ..Note::default()
        },
    );
    Ok(HttpResponse::Ok().json(backup.add_deployment(request).await?))
}

async fn deployment(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.deployment(&name_of(&req)?).await?))
}

async fn remove_deployment(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    backup.remove_deployment(&name_of(&req)?).await?;
    Ok(HttpResponse::Ok().json(Accepted {}))
}

async fn stop(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.stop_deployment(&name_of(&req)?).await?))
}

async fn restart(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.restart_deployment(&name_of(&req)?).await?))
}

async fn resync(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.resync_deployment(&name_of(&req)?).await?))
}

async fn rewrap(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.rewrap_key(&name_of(&req)?).await?))
}

async fn timeline(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.timeline(&name_of(&req)?).await?))
}

async fn snapshots(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.snapshots(&name_of(&req)?).await?))
}

async fn take_snapshot(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.take_snapshot(&name_of(&req)?).await?))
}

async fn snapshot(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.snapshot(&name_of(&req)?, &snapshot_of(&req)?).await?))
}

async fn delete_snapshot(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    backup.delete_snapshot(&name_of(&req)?, &snapshot_of(&req)?).await?;
    Ok(HttpResponse::Ok().json(Accepted {}))
}

async fn change_snapshot(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let (name, id) = (name_of(&req)?, snapshot_of(&req)?);
    let change: SnapshotChange = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.change_snapshot(&name, &id, change).await?))
}

async fn schedule(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.schedule(&name_of(&req)?).await?))
}

async fn set_schedule(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let name = name_of(&req)?;
    let change: ScheduleChange = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.set_schedule(&name, change).await?))
}

async fn grooms(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.grooms(&name_of(&req)?).await?))
}

async fn run_groom(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let name = name_of(&req)?;
    let request: GroomRequest = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.run_groom(&name, request).await?))
}

async fn plan_restore(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let name = name_of(&req)?;
    let request: RestoreRequest = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.plan_restore(&name, &request).await?))
}

async fn start_restore(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let name = name_of(&req)?;
    let order: RestoreOrder = body::json(&req, payload).await?;
    let view = backup.start_restore(&name, order).await?;
    let restore = Some(view.id);
    note(
        &req,
        Note {
            restore,
            ..Note::default()
        },
    );
    Ok(HttpResponse::Ok().json(view))
}

/// `?replica_set=…`, for a deployment with several.
#[derive(Debug, Default, serde::Deserialize)]
struct OfSet {
    replica_set: Option<String>,
}

fn set_of(req: &HttpRequest) -> Result<Option<String>, Fault> {
    let query = web::Query::<OfSet>::from_query(req.query_string());
    let query = query.map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))?;
    Ok(query.into_inner().replica_set)
}

async fn check_status(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let status = backup.check_status(&name_of(&req)?, set_of(&req)?.as_deref()).await?;
    Ok(HttpResponse::Ok().json(status))
}

async fn start_check(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let name = name_of(&req)?;
    let request: CheckRequest = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.start_check(&name, &request).await?))
}

async fn start_proof(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let name = name_of(&req)?;
    let request: ProofRequest = body::json(&req, payload).await?;
    Ok(HttpResponse::Ok().json(backup.start_proof(&name, &request).await?))
}

async fn check(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let text = req.match_info().get("number").unwrap_or_default();
    let missing = || {
        Refusal::new(
            RefusalKind::NotFound,
            format!("there is no check {text:?}; checks have numbers"),
        )
    };
    let number: u64 = text.parse().map_err(|_| missing())?;
    let view = backup.check(&name_of(&req)?, set_of(&req)?.as_deref(), number).await?;
    Ok(HttpResponse::Ok().json(view))
}

async fn restores(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let mut views = backup.restores().await?;
    views.retain(|view| backup.bearer.covers(view.plan.replica_set.deployment()));
    Ok(HttpResponse::Ok().json(views))
}

/// The restore that a request names, if its key may know of it.
async fn covered(req: &HttpRequest, backup: &access::Entered) -> Result<RestoreView, Fault> {
    let view = backup.restore(restore_of(req)?).await?;
    backup.require(view.plan.replica_set.deployment())?;
    Ok(view)
}

/// Notes what is done with a restore.
fn note_of(req: &HttpRequest, view: &RestoreView, about: String) {
    let told = Note {
        deployment: Some(view.plan.replica_set.deployment().clone()),
        about: Some(about),
        restore: None,
    };
    note(req, told);
}

async fn restore(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(covered(&req, &backup).await?))
}

async fn cancel_restore(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let view = covered(&req, &backup).await?;
    note_of(&req, &view, format!("restore {}", view.id));
    Ok(HttpResponse::Ok().json(backup.cancel_restore(view.id).await?))
}

async fn restore_archive(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let view = covered(&req, &backup).await?;
    let archive = backup.archive(view.id).await?;
    note_of(&req, &view, format!("the archive of restore {} is sent", view.id));
    Ok(archive::response(archive))
}

async fn alerts(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let mut views = backup.alerts();
    views.retain(|view| backup.bearer.covers_subject(&view.subject));
    Ok(HttpResponse::Ok().json(views))
}

async fn acknowledge(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let request: Acknowledge = body::json(&req, payload).await?;
    let about = Some(format!("alert {}", request.id));
    note(
        &req,
        Note {
            about,
            ..Note::default()
        },
    );
    let known = backup.alerts().into_iter().find(|alert| alert.id == request.id);
    if known.is_some_and(|alert| !backup.bearer.covers_subject(&alert.subject)) {
        return Err(Fault::other_scope("that"));
    }
    Ok(HttpResponse::Ok().json(backup.acknowledge(&request.id, &request.comment).await?))
}

async fn status(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let mut status = backup.status().await?;
    let bearer = &backup.bearer;
    status.replica_sets.retain(|set| bearer.covers(set.name.deployment()));
    status.alerts.retain(|words| bearer.covers_subject(words));
    status.open_alerts.retain(|alert| bearer.covers_subject(&alert.subject));
    Ok(HttpResponse::Ok().json(status))
}
