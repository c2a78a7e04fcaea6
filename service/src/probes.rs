//! What machines ask: is it alive, can it serve, how does it do. No key needed; nothing of the data is shown.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::fault::Fault;
use crate::{backup, place};

const GET: &[Method] = &[Method::GET];

pub(crate) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(place("/livez", GET).route(web::get().to(livez)))
        .service(place("/readyz", GET).route(web::get().to(readyz)))
        .service(place("/metrics", GET).route(web::get().to(metrics)));
}

async fn livez() -> HttpResponse {
    text("live\n".to_owned())
}

async fn readyz(req: HttpRequest) -> Result<HttpResponse, Fault> {
    backup(&req)?.ready()?;
    Ok(text("ready\n".to_owned()))
}

async fn metrics(req: HttpRequest) -> Result<HttpResponse, Fault> {
    let metrics = backup(&req)?.metrics().await + &memory();
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(metrics))
}

/// Memory of this process, where the system tells it in pages.
fn memory() -> String {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.map_or_else(String::new, |pages| {
        let name = "process_resident_memory_bytes";
        let bytes = pages * PAGE_BYTES;
        format!("# HELP {name} Memory of the process.\n# TYPE {name} gauge\n{name} {bytes}\n")
    })
}

fn text(body: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(body)
}

#[cfg(test)]
mod tests {
    use actix_web::{App, test};

    #[actix_web::test]
    async fn a_node_without_an_engine_is_live_but_not_ready() {
        let app = test::init_service(App::new().configure(crate::configure)).await;
        for (path, status) in [("/livez", 200), ("/readyz", 503), ("/metrics", 503)] {
            let response = test::call_service(&app, test::TestRequest::get().uri(path).to_request()).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
    }
}
