//! A read-only page at `/` that shows what `headwater status` shows. One embedded file, nothing from elsewhere; the
//! policy names its style and its script by hash, so that nothing else can run in it.

use actix_web::http::{Method, header};
use actix_web::{HttpResponse, web};

use crate::place;

const PAGE: &str = include_str!("console.html");
/// SHA-256 of the page's script; the test below tells the new one after a change.
const SCRIPT: &str = "8Cf047CZiW69jOVgNbx5/UamGYsoNpuw6JA+fw+g7Tw=";
/// SHA-256 of the page's style.
const STYLE: &str = "BS9ukS7mfb3fnygNE9uOrnjmnRPoAhNYaFKnTqSEIaE=";

pub(crate) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(place("/", &[Method::GET]).route(web::get().to(page)));
}

fn policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{SCRIPT}'; style-src 'sha256-{STYLE}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(PAGE)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    fn hash_of(tag: &str) -> String {
        let (_, rest) = PAGE.split_once(&format!("<{tag}>")).unwrap();
        let (text, _) = rest.split_once(&format!("</{tag}>")).unwrap();
        STANDARD.encode(Sha256::digest(text))
    }

    #[test]
    fn the_policy_admits_the_page_as_it_is() {
        assert_eq!(SCRIPT, hash_of("script"));
        assert_eq!(STYLE, hash_of("style"));
    }

    #[test]
    fn the_page_takes_nothing_from_elsewhere() {
        for foreign in [
            "http:",
            "https:",
            "//cdn",
            "src=",
            "@import",
            "style=",
            "onclick",
            "innerHTML",
        ] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
    }
}
