//! A handler that panics answers 500 with a refusal; the connection and the worker live on.

use std::panic::AssertUnwindSafe;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use futures::FutureExt;

use crate::fault::Fault;

/// Catches what unwinds out of a handler. The request's state is dropped whole, so nothing half-done is seen again.
pub(crate) async fn refuse_panics<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::panicked().into()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{App, middleware, test, web};
    use headwater_protocol::agent::{Refusal, RefusalKind};

    use super::*;

    async fn bad() -> String {
        assert!(std::hint::black_box(false), "secret detail");
        String::new()
    }

    #[actix_web::test]
    async fn a_panic_becomes_a_refusal_that_tells_nothing() {
        let scope = web::scope("")
            .wrap(middleware::from_fn(refuse_panics))
            .route("/bad", web::get().to(bad));
        let app = test::init_service(App::new().service(scope)).await;
        let request = test::TestRequest::get().uri("/bad").to_request();
        let error = test::try_call_service(&app, request).await.err().unwrap();
        let response = error.error_response();
        assert_eq!(response.status().as_u16(), 500);
        let body = actix_web::body::to_bytes(response.into_body()).await.ok().unwrap();
        let refusal: Refusal = serde_json::from_slice(&body).unwrap();
        assert_eq!(refusal.kind, RefusalKind::Internal);
        assert!(!refusal.message.contains("secret"));
    }
}
