//! Answers other than 2xx. Each carries a `Refusal` in JSON; nothing else ever reaches a client as an error.

use std::fmt;

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use headwater_model::{InvalidName, KeyRole};
use headwater_protocol::agent::{Refusal, RefusalKind};

/// A refusal with the status it travels under, which can be narrower than its kind's.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    refusal: Refusal,
    methods: &'static [Method],
}

impl Fault {
    fn new(status: StatusCode, kind: RefusalKind, message: impl Into<String>) -> Self {
        Fault {
            status,
            refusal: Refusal::new(kind, message),
            methods: &[],
        }
    }

    pub(crate) fn no_such_place(path: &str) -> Self {
        let message = format!("there is no place {path} here; see the API's table of requests");
        Fault::new(StatusCode::NOT_FOUND, RefusalKind::NotFound, message)
    }

    pub(crate) fn method(asked: &Method, methods: &'static [Method]) -> Self {
        let takes = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(" and ");
        let message = format!("this place takes {takes}, not {asked}");
        Fault {
            methods,
            ..Fault::new(StatusCode::METHOD_NOT_ALLOWED, RefusalKind::Invalid, message)
        }
    }

    pub(crate) fn no_key() -> Self {
        let message = "a key is needed; send it as Authorization: Bearer KEY";
        Fault::new(StatusCode::UNAUTHORIZED, RefusalKind::Unauthorized, message)
    }

    pub(crate) fn unknown_key() -> Self {
        let message = "this key is not known here; use the contents of the key file of this service";
        Fault::new(StatusCode::UNAUTHORIZED, RefusalKind::Unauthorized, message)
    }

    pub(crate) fn other_role(role: KeyRole, lacks: &str) -> Self {
        let message = format!("this key lacks the right to {lacks}: its role is {role}");
        Refusal::new(RefusalKind::Forbidden, message).into()
    }

    pub(crate) fn other_scope(deployment: &str) -> Self {
        let message = format!("this key is for other deployments, not for {deployment}");
        Refusal::new(RefusalKind::Forbidden, message).into()
    }

    /// A place of which nobody has said who may go there: a fault of ours that must not let anyone in.
    pub(crate) fn no_right(what: &str) -> Self {
        let message = format!("no key opens {what}: it is missing in the table of rights");
        Refusal::new(RefusalKind::Forbidden, message).into()
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the body is over the limit of {limit} bytes for this place");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, RefusalKind::Invalid, message)
    }

    pub(crate) fn too_slow() -> Self {
        let message = "the body did not arrive in time; send it again";
        Fault::new(StatusCode::REQUEST_TIMEOUT, RefusalKind::Unavailable, message)
    }

    pub(crate) fn cut_body(words: &dyn fmt::Display) -> Self {
        Fault::new(
            StatusCode::BAD_REQUEST,
            RefusalKind::Invalid,
            format!("the body could not be read: {words}"),
        )
    }

    pub(crate) fn malformed(words: &dyn fmt::Display) -> Self {
        let message = format!("the body is not the JSON this place takes: {words}");
        Fault::new(StatusCode::BAD_REQUEST, RefusalKind::Invalid, message)
    }

    pub(crate) fn not_wired() -> Self {
        Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            RefusalKind::Unavailable,
            "this node is still starting",
        )
    }

    pub(crate) fn panicked() -> Self {
        let message = "this request met a fault of ours; nothing was acknowledged, and the log has the details";
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, RefusalKind::Internal, message)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Fault {
            status,
            refusal,
            methods: &[],
        }
    }
}

impl From<InvalidName> for Fault {
    fn from(error: InvalidName) -> Self {
        Refusal::new(RefusalKind::Invalid, error.to_string()).into()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.refusal.message)
    }
}

impl ResponseError for Fault {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(message = self.refusal.message, "request failed by a fault of ours");
        }
        let mut response = HttpResponse::build(self.status);
        match self.status {
            StatusCode::UNAUTHORIZED => response.insert_header((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
                response.insert_header((header::RETRY_AFTER, "1"))
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                let takes = self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                response.insert_header((header::ALLOW, takes))
            }
            _ => &mut response,
        };
        response.json(&self.refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(response: &HttpResponse, name: header::HeaderName) -> String {
        response
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    #[test]
    fn every_kind_of_refusal_travels_under_its_status() {
        for (kind, status) in [
            (RefusalKind::Unauthorized, 401),
            (RefusalKind::Forbidden, 403),
            (RefusalKind::NotFound, 404),
            (RefusalKind::Invalid, 400),
            (RefusalKind::Gap, 409),
            (RefusalKind::Stale, 409),
            (RefusalKind::Conflict, 409),
            (RefusalKind::NotRestorable, 422),
            (RefusalKind::Unavailable, 503),
            (RefusalKind::StoreFull, 507),
            (RefusalKind::Internal, 500),
        ] {
            let response = Fault::from(Refusal::new(kind, "words")).error_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(header_of(&response, header::CONTENT_TYPE), "application/json");
        }
    }

    #[test]
    fn who_may_come_back_is_told_when() {
        let full = Fault::from(Refusal::new(RefusalKind::StoreFull, "full")).error_response();
        assert_eq!(header_of(&full, header::RETRY_AFTER), "1");
        assert_eq!(
            header_of(&Fault::no_key().error_response(), header::WWW_AUTHENTICATE),
            "Bearer"
        );
    }
}
