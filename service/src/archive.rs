//! An archive as a response: a stream that breaks rather than lies.
//!
//! Its length is not known beforehand, so it travels in chunks, and only the closing chunk says that it is whole. When
//! the archive fails midway the connection is cut without that chunk, and every HTTP client reports an error.

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::Bytes;
use futures::{Stream, stream};
use headwater_actors::ArchiveStream;

/// Why the stream was cut; seen in our log only, the client sees the cut.
#[derive(Debug)]
struct Cut(String);

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "archive stream cut: {}", self.0)
    }
}

impl std::error::Error for Cut {}

/// The response that carries the stream.
pub(crate) fn response(archive: ArchiveStream) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .streaming(pieces(archive))
}

fn pieces(archive: ArchiveStream) -> impl Stream<Item = Result<Bytes, Cut>> {
    stream::unfold(Some(archive), |archive| async {
        let mut archive = archive?;
        match archive.next().await? {
            Ok(piece) => Some((Ok(piece), Some(archive))),
            Err(refusal) => {
                tracing::warn!(reason = refusal.message, "archive stream cut");
                Some((Err(Cut(refusal.message)), None))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpServer, web};
    use headwater_actors::archive::pipe;
    use headwater_protocol::agent::{Refusal, RefusalKind};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const CLOSING_CHUNK: &[u8] = b"0\r\n\r\n";

    #[derive(Clone, Copy)]
    enum End {
        Finished,
        Failed,
        Vanished,
    }

    async fn served(end: web::Data<End>) -> HttpResponse {
        let (writer, stream) = pipe(4);
        actix_web::rt::spawn(async move {
            for piece in [&b"first"[..], b"", b"second"] {
                writer.write(Bytes::from_static(piece)).await.unwrap();
            }
            // What was sent before shall have left: a failure midway, not at the beginning.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            match **end {
                End::Finished => writer.finish().await.unwrap(),
                End::Failed => writer.fail(Refusal::new(RefusalKind::Internal, "block damaged")).await,
                End::Vanished => drop(writer),
            }
        });
        response(stream)
    }

    async fn received(end: End) -> Vec<u8> {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(end))
                .route("/", web::get().to(served))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        let ask = async {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            socket
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            // A cut connection may end in an error; what had arrived is what counts.
            let _ = socket.read_to_end(&mut answer).await;
            handle.stop(false).await;
            answer
        };
        futures::join!(server, ask).1
    }

    fn holds(answer: &[u8], part: &[u8]) -> bool {
        answer.windows(part.len()).any(|w| w == part)
    }

    #[actix_web::test]
    async fn a_whole_archive_ends_with_the_closing_chunk() {
        let answer = received(End::Finished).await;
        assert!(holds(&answer, b"first") && holds(&answer, b"second"));
        assert!(answer.ends_with(CLOSING_CHUNK), "{}", String::from_utf8_lossy(&answer));
    }

    #[actix_web::test]
    async fn an_archive_that_fails_midway_never_ends_with_the_closing_chunk() {
        for end in [End::Failed, End::Vanished] {
            let answer = received(end).await;
            assert!(answer.starts_with(b"HTTP/1.1 200") && holds(&answer, b"second"));
            assert!(!holds(&answer, CLOSING_CHUNK), "{}", String::from_utf8_lossy(&answer));
        }
    }
}
