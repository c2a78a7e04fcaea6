//! Where other daemons of the cluster call: `protocol::internal`. Whoever does not hold the cluster's key, belongs to
//! another cluster, or means another node is turned away before anything is looked at.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use headwater_host::Serve;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_protocol::internal::{self, ClusterKey, Envelope};

use crate::callers::CALLERS;
use crate::fault::Fault;
use crate::{body, place};

/// The way in for other daemons.
#[derive(Clone)]
pub struct Door {
    /// What all daemons of the cluster share.
    pub key: ClusterKey,
    /// The cluster's name for machines.
    pub cluster: String,
    /// This node's number.
    pub node: u64,
    /// Who answers.
    pub server: Arc<dyn Serve>,
}

pub(crate) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(place(internal::PATH, &[Method::POST]).route(web::post().to(call)));
}

async fn call(req: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Fault> {
    let door = req.app_data::<web::Data<Door>>().ok_or_else(Fault::not_wired)?;
    let (envelope, seal) = envelope(&req).ok_or_else(Fault::no_key)?;
    door.is_meant(&envelope)?;
    let call = body::call(&req, payload, envelope.kind).await?;
    if !door.key.is_call(&envelope, &call.bytes, &seal) {
        return Err(Fault::unknown_key());
    }
    CALLERS.prove(req.peer_addr().map(|from| from.ip()));
    // Not held any longer: what is served may wait for other calls.
    drop(call.room);
    let answer = door.server.serve(envelope.kind, call.bytes.into()).await;
    let seal = door.key.seal_answer(&envelope.nonce, &answer);
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((internal::SEAL, seal))
        .body(answer))
}

fn envelope(req: &HttpRequest) -> Option<(Envelope, String)> {
    let header = |name: &str| req.headers().get(name)?.to_str().ok();
    let mut nonce = [0; 16];
    let text = header(internal::NONCE)?.as_bytes();
    if text.len() != 32 {
        return None;
    }
    for (byte, pair) in nonce.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let envelope = Envelope {
        cluster: header(internal::CLUSTER)?.to_owned(),
        from: header(internal::FROM)?.parse().ok()?,
        to: header(internal::TO)?.parse().ok()?,
        kind: header(internal::KIND)?.parse().ok()?,
        nonce,
    };
    let seal = header(internal::SEAL)?;
    let is_seal = seal.len() == 64 && seal.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_seal.then(|| (envelope, seal.to_owned()))
}

impl Door {
    /// Asked before anybody knows who calls: the answer must not tell the name of this cluster.
    fn is_meant(&self, envelope: &Envelope) -> Result<(), Fault> {
        let elsewhere = |message: String| Err(Refusal::new(RefusalKind::Conflict, message).into());
        match envelope.kind {
            internal::KIND_JOIN => Ok(()),
            _ if envelope.cluster != self.cluster => elsewhere(format!(
                "this node does not belong to cluster {:?}: look at the addresses of its nodes",
                envelope.cluster
            )),
            // 0: whoever is there.
            _ if envelope.to != self.node && envelope.to != 0 => {
                elsewhere(format!("this is node {}, not node {}", self.node, envelope.to))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use actix_web::dev::Payload;
    use actix_web::error::PayloadError;
    use actix_web::{App, test};
    use bytes::Bytes;
    use futures::future::{BoxFuture, FutureExt};
    use futures::stream::{self, StreamExt};

    use super::*;

    struct Echo;

    impl Serve for Echo {
        fn serve(&self, kind: u8, mut body: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
            body.push(kind);
            async move { body }.boxed()
        }
    }

    fn meant() -> Envelope {
        Envelope {
            cluster: "c".to_owned(),
            from: 1,
            to: 2,
            kind: 5,
            nonce: [7; 16],
        }
    }

    fn door() -> Door {
        Door {
            key: ClusterKey::new("secret"),
            cluster: "c".to_owned(),
            node: 2,
            server: Arc::new(Echo),
        }
    }

    fn request(envelope: &Envelope, seal: String) -> test::TestRequest {
        test::TestRequest::post()
            .uri(internal::PATH)
            .insert_header((internal::CLUSTER, envelope.cluster.as_str()))
            .insert_header((internal::FROM, envelope.from.to_string()))
            .insert_header((internal::TO, envelope.to.to_string()))
            .insert_header((internal::KIND, envelope.kind.to_string()))
            .insert_header((internal::NONCE, "07".repeat(16)))
            .insert_header((internal::SEAL, seal))
    }

    async fn status(envelope: Envelope, key: &str) -> u16 {
        let door = door();
        let app = App::new()
            .app_data(web::Data::new(door.clone()))
            .configure(crate::configure);
        let app = test::init_service(app).await;
        let seal = ClusterKey::new(key).seal_call(&envelope, b"hello");
        let request = request(&envelope, seal).set_payload("hello");
        let response = test::call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        if status == 200 {
            let seal = response
                .headers()
                .get(internal::SEAL)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let body = test::read_body(response).await;
            assert_eq!(&body[..], [b"hello", &[envelope.kind][..]].concat());
            assert!(door.key.is_answer(&[7; 16], &body, &seal));
        }
        status
    }

    #[actix_web::test]
    async fn only_a_sealed_call_to_this_node_of_this_cluster_is_answered() {
        assert_eq!(status(meant(), "secret").await, 200);
        assert_eq!(status(meant(), "guess").await, 401);
        let other = Envelope {
            cluster: "d".to_owned(),
            ..meant()
        };
        assert_eq!(status(other, "secret").await, 409);
        assert_eq!(status(Envelope { to: 3, ..meant() }, "secret").await, 409);
        let stranger = Envelope {
            cluster: String::new(),
            to: 0,
            kind: internal::KIND_JOIN,
            ..meant()
        };
        assert_eq!(status(stranger.clone(), "secret").await, 200);
        assert_eq!(status(Envelope { kind: 5, ..stranger }, "secret").await, 409);
    }

    /// The status, and whether the body was asked for.
    async fn refusal(request: test::TestRequest) -> (u16, bool) {
        let app = App::new().app_data(web::Data::new(door())).configure(crate::configure);
        let app = test::init_service(app).await;
        let asked = Arc::new(AtomicBool::new(false));
        let seen = asked.clone();
        let body = stream::once(async move {
            seen.store(true, Ordering::SeqCst);
            Ok::<_, PayloadError>(Bytes::from_static(b"hello"))
        });
        let payload = Payload::Stream {
            payload: body.boxed_local(),
        };
        let (request, _) = request.to_request().replace_payload(payload);
        let status = test::call_service(&app, request).await.status().as_u16();
        (status, asked.load(Ordering::SeqCst))
    }

    #[actix_web::test]
    async fn a_call_that_is_not_for_this_node_or_not_well_formed_is_refused_with_its_body_unread() {
        let seal = |envelope: &Envelope| ClusterKey::new("guess").seal_call(envelope, b"hello");
        let other = Envelope {
            cluster: "d".to_owned(),
            ..meant()
        };
        assert_eq!(refusal(request(&other, seal(&other))).await, (409, false));
        let other = Envelope { to: 3, ..meant() };
        assert_eq!(refusal(request(&other, seal(&other))).await, (409, false));
        assert_eq!(refusal(request(&meant(), "seal".to_owned())).await, (401, false));
        let bad = request(&meant(), seal(&meant())).insert_header((internal::NONCE, "07"));
        assert_eq!(refusal(bad).await, (401, false));
        let long = request(&meant(), seal(&meant())).insert_header(("content-length", "100000000"));
        assert_eq!(refusal(long).await, (413, false));
        assert_eq!(refusal(request(&meant(), seal(&meant()))).await, (401, true));
    }
}
