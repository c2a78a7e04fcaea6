//! Keys and who did what: `/api/v1/access`, by the table of `protocol::admin`.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use headwater_model::KeyName;
use headwater_protocol::access::CreateKey;
use headwater_protocol::agent::Accepted;

use crate::audit::{Note, note};
use crate::fault::Fault;
use crate::{access, body, place};

type Answer = Result<HttpResponse, Fault>;

pub(crate) fn routes(cfg: &mut web::ServiceConfig) {
    let all = place("/api/v1/access/keys", &[Method::GET, Method::POST]);
    cfg.service(all.route(web::get().to(list)).route(web::post().to(create)))
        .service(place("/api/v1/access/log", &[Method::GET]).route(web::get().to(log)))
        .service(place("/api/v1/access/keys/{key}", &[Method::DELETE]).route(web::delete().to(revoke)));
}

async fn list(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.keys()))
}

async fn create(req: HttpRequest, payload: web::Payload) -> Answer {
    let backup = access::enter(&req)?;
    let request: CreateKey = body::json(&req, payload).await?;
    let about = Some(format!("key {}, {}", request.name, request.role));
    note(
        &req,
        Note {
            about,
            ..Note::default()
        },
    );
    Ok(HttpResponse::Ok().json(backup.create_key(request).await?))
}

async fn log(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    Ok(HttpResponse::Ok().json(backup.deeds()))
}

async fn revoke(req: HttpRequest) -> Answer {
    let backup = access::enter(&req)?;
    let name = KeyName::new(req.match_info().get("key").unwrap_or_default())?;
    backup.revoke_key(&name).await?;
    Ok(HttpResponse::Ok().json(Accepted {}))
}
