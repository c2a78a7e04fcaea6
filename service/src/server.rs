//! The listening process.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::HttpService;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::{App, web};
use headwater_actors::Backup;
use headwater_host::real::TlsAcceptor;

use crate::internal::Door;
use crate::welcome::welcome;

/// Threads that serve connections; the engine's work is elsewhere.
const WORKERS: usize = 2;
/// Connections held at once by each of them.
const CONNECTIONS_PER_WORKER: usize = 512;
/// A connection that has not sent a request's head by then is closed.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. Longer than the agent's slowest rhythm.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long requests in progress may take once the process shall end.
const DRAIN_SECONDS: u64 = 10;

/// What a service listens with.
pub struct Listen {
    /// Where.
    pub at: SocketAddr,
    /// How connections are secured; `None` for not at all. With one, whoever speaks plainly is turned away.
    pub tls: Option<TlsAcceptor>,
}

/// Serves until `stop` resolves, then finishes the requests in progress and returns. Fails when the address cannot
/// be bound. Other daemons come in by `door`.
pub async fn serve(backup: Backup, door: Door, listen: Listen, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (backup, door) = (web::Data::new(backup), web::Data::new(door));
    let Listen { at, tls } = listen;
    let secured = tls.is_some();
    let builder = actix_server::Server::build()
        .workers(WORKERS)
        .max_concurrent_connections(CONNECTIONS_PER_WORKER)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals();
    let ending = builder.graceful_shutdown_signal();
    // What actix-web's own server does, but for the welcome.
    let factory = move || {
        let (backup, door, tls, ending) = (backup.clone(), door.clone(), tls.clone(), ending.clone());
        let app = App::new()
            .app_data(backup)
            .app_data(door)
            .configure(crate::configure)
            .into_factory()
            .map_err(|error: actix_web::Error| error.error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let ending = ending.clone();
                async move { ending.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_DEADLINE)
            .client_disconnect_timeout(Duration::from_secs(5))
            .h1(map_config(app, |_| AppConfig::default()));
        fn_service(move |stream| welcome(stream, tls.clone())).and_then(http)
    };
    let server = builder.bind("service", at, factory)?.run();
    tracing::info!(listen = %at, tls = secured, "service listens");
    let handle = server.handle();
    let stopping = async move {
        stop.await;
        handle.stop(true).await;
    };
    tokio::pin!(server, stopping);
    tokio::select! {
        biased;
        ended = &mut server => ended,
        () = &mut stopping => server.await,
    }
}
