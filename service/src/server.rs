//! The listening process.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use headwater_actors::Backup;

use crate::internal::Door;

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

/// Serves until `stop` resolves, then finishes the requests in progress and returns. Fails when the address cannot
/// be bound. Other daemons come in by `door`.
pub async fn serve(backup: Backup, door: Door, listen: SocketAddr, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (backup, door) = (web::Data::new(backup), web::Data::new(door));
    let app = move || {
        App::new()
            .app_data(backup.clone())
            .app_data(door.clone())
            .configure(crate::configure)
    };
    let server = HttpServer::new(app)
        .workers(WORKERS)
        .max_connections(CONNECTIONS_PER_WORKER)
        .client_request_timeout(HEAD_DEADLINE)
        .client_disconnect_timeout(Duration::from_secs(5))
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals()
        .bind(listen)?
        .run();
    tracing::info!(%listen, "service listens");
    let handle = server.handle();
    let stopping = async move {
        stop.await;
        handle.stop(true).await;
    };
    tokio::pin!(server, stopping);
    tokio::select! {
        ended = &mut server => ended,
        () = &mut stopping => server.await,
    }
}
