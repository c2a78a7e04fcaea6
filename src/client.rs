//! The service over HTTP. Several addresses are tried in turn; a request is sent on to the next one only when it
//! certainly was not carried out.

use std::time::Duration;

use headwater_protocol::agent::Refusal;
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, innermost};
use crate::local::Access;
use crate::roots;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Silence from the service beyond this is an end of the connection; also between pieces of an archive.
const SILENCE_DEADLINE: Duration = Duration::from_secs(120);
/// Where there are others to ask, a question that changes nothing waits for an answer's beginning no longer than this.
const TURN_DEADLINE: Duration = Duration::from_secs(5);
/// How long an order whose answer was lost is repeated, and how long after each.
const REPEAT_FOR: Duration = Duration::from_secs(60);
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// Talks to a service. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    access: Access,
}

impl Client {
    /// Prepares; connects to nothing yet.
    pub fn new(access: Access) -> Outcome<Self> {
        headwater_host::real::use_ring();
        let secured = access.services.iter().any(|url| roots::is_secured(url));
        let unusable = |e: reqwest::Error| {
            let failure = Failure::new(Exit::Failed, format!("the HTTP client cannot start: {}", innermost(&e)));
            match secured {
                true => failure.help("name the certificates by which the service is believed with --ca-file"),
                false => failure,
            }
        };
        let builder = reqwest::Client::builder();
        let builder = roots::believing(builder, secured, access.ca_pem.as_deref()).map_err(unusable)?;
        let http = builder
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(SILENCE_DEADLINE)
            // The key goes to the addresses that were given and to no other.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(unusable)?;
        Ok(Client { http, access })
    }

    /// Asks for something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        read(self.send(Method::GET, path, None::<&()>).await?).await
    }

    /// Has something done.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Outcome<T> {
        read(self.send(Method::POST, path, Some(body)).await?).await
    }

    /// The same of what may be asked for twice and is done once, since its `body` bears a token: when the connection breaks
    /// before the answer is there, it is asked for again, for a minute.
    pub async fn post_until_answered<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Outcome<T> {
        let mut unanswered_since = None;
        loop {
            let answer = self.post(path, body).await;
            let Err(failure) = &answer else { return answer };
            if failure.is_unanswered {
                unanswered_since.get_or_insert_with(Instant::now);
            }
            let is_over = unanswered_since.is_none_or(|since| since.elapsed() >= REPEAT_FOR);
            if is_over || !matches!(failure.exit, Exit::Unreachable | Exit::Retry) {
                return answer;
            }
            tokio::time::sleep(REPEAT_AFTER).await;
        }
    }

    /// Has something done that needs no words.
    pub async fn order<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        read(self.send(Method::POST, path, None::<&()>).await?).await
    }

    /// Has something removed.
    pub async fn delete(&self, path: &str) -> Outcome {
        self.send(Method::DELETE, path, None::<&()>).await.map(drop)
    }

    /// Has something removed, and asks what is left.
    pub async fn remove<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        read(self.send(Method::DELETE, path, None::<&()>).await?).await
    }

    /// Asks for a stream.
    pub async fn stream(&self, path: &str) -> Outcome<Response> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// Whether a service answers at the first address and can serve.
    pub async fn is_ready(&self) -> bool {
        let Some(service) = self.access.services.first() else {
            return false;
        };
        let answer = self.http.get(format!("{service}/readyz")).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    async fn send<B: Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> Outcome<Response> {
        let mut last = Failure::new(Exit::Usage, "no service is given").help("give --service http://HOST:PORT");
        let services = &self.access.services;
        for (number, service) in services.iter().enumerate() {
            let has_next = number + 1 < services.len();
            let request = self
                .http
                .request(method.clone(), format!("{service}{path}"))
                .bearer_auth(&self.access.key);
            let request = match body {
                Some(body) => request.json(body),
                None => request,
            };
            let sending = request.send();
            let sent = match has_next && method == Method::GET {
                true => match tokio::time::timeout(TURN_DEADLINE, sending).await {
                    Ok(sent) => sent,
                    Err(_) => continue,
                },
                false => sending.await,
            };
            last = match sent {
                Err(error) if has_next && method == Method::GET => broken(&error),
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => refusal_of(response).await,
                Ok(response) => return Err(refusal_of(response).await),
                Err(error) if error.is_connect() => unreachable(service, &error),
                Err(error) => return Err(broken(&error)),
            };
        }
        Err(last)
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Outcome<T> {
    let body = response.bytes().await.map_err(|e| broken(&e))?;
    serde_json::from_slice(&body).map_err(|e| {
        let failure = Failure::new(Exit::Failed, format!("the service's answer cannot be read: {e}"));
        failure.help("use the same version of headwater on both sides")
    })
}

async fn refusal_of(response: Response) -> Failure {
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => refusal.into(),
        Err(_) => {
            let failure = Failure::new(
                Exit::Failed,
                format!("what answered with status {status} is no Headwater service"),
            );
            failure.help("check the address given with --service")
        }
    }
}

fn unreachable(service: &str, error: &reqwest::Error) -> Failure {
    let reason = innermost(error);
    let help = match reason.as_str() {
        reason if reason.contains("certificate") => {
            "name the certificates by which the service is believed with --ca-file, and the host as its certificate does"
        }
        reason if reason.contains("corrupt message") => "it may speak without TLS: write http:// instead of https://",
        _ => "start `headwater daemon`, or give its address with --service",
    };
    Failure::new(Exit::Unreachable, format!("no service answers at {service}: {reason}")).help(help)
}

/// A connection that broke after the request was sent: whether it was carried out is not known.
pub fn broken(error: &reqwest::Error) -> Failure {
    let message = format!("the connection to the service broke: {}", innermost(error));
    let failure = Failure {
        is_unanswered: true,
        ..Failure::new(Exit::Unreachable, message)
    };
    failure.help("see `headwater status` for what was done, then run the command again if need be")
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpResponse, HttpServer, web};
    use headwater_protocol::agent::RefusalKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn said(path: web::Path<u16>) -> HttpResponse {
        let refusal = |kind| HttpResponse::build(status(kind)).json(Refusal::new(kind, "words"));
        match path.into_inner() {
            200 => HttpResponse::Ok().json([1, 2]),
            401 => refusal(RefusalKind::Unauthorized),
            404 => refusal(RefusalKind::NotFound),
            409 => refusal(RefusalKind::Conflict),
            503 => refusal(RefusalKind::Unavailable),
            422 => refusal(RefusalKind::NotRestorable),
            507 => refusal(RefusalKind::StoreFull),
            302 => HttpResponse::Found().insert_header(("location", "/200")).finish(),
            _ => HttpResponse::BadGateway().body("<html>proxy</html>"),
        }
    }

    fn status(kind: RefusalKind) -> actix_web::http::StatusCode {
        actix_web::http::StatusCode::from_u16(kind.status()).unwrap()
    }

    async fn with_service<T>(ask: impl AsyncFnOnce(String) -> T) -> T {
        let server = HttpServer::new(|| App::new().route("/{status}", web::get().to(said)));
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        let asking = async {
            let answer = ask(url).await;
            handle.stop(false).await;
            answer
        };
        futures::join!(server, asking).1
    }

    fn client(services: &[&str]) -> Client {
        let services = services.iter().map(|s| (*s).to_owned()).collect();
        Client::new(Access {
            services,
            key: "k".into(),
            ca_pem: None,
        })
        .unwrap()
    }

    #[actix_rt::test]
    async fn every_answer_of_a_service_has_its_exit_code() {
        with_service(async |url: String| {
            let client = client(&[&url]);
            for (path, exit) in [
                ("/401", Exit::Auth),
                ("/404", Exit::NotFound),
                ("/409", Exit::Conflict),
                ("/503", Exit::Retry),
                ("/422", Exit::NotRestorable),
                ("/507", Exit::Retry),
                ("/502", Exit::Failed),
                ("/302", Exit::Failed),
            ] {
                assert_eq!(client.get::<Vec<u8>>(path).await.unwrap_err().exit, exit, "{path}");
            }
            assert_eq!(client.get::<Vec<u8>>("/200").await.unwrap(), [1, 2]);
            assert_eq!(client.get::<String>("/200").await.unwrap_err().exit, Exit::Failed);
        })
        .await;
    }

    /// Answers the third connection only: the first two break once the request is there, and none is answered in between.
    async fn answers_at_last(listener: tokio::net::TcpListener) -> Vec<String> {
        let mut asked = Vec::new();
        for number in 1..=3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"[7]") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            asked.push(String::from_utf8(request).unwrap().to_lowercase());
            if number == 3 {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n[8]";
                stream.write_all(answer).await.unwrap();
            }
        }
        asked
    }

    #[tokio::test]
    async fn an_order_with_a_token_is_repeated_when_its_answer_is_lost_and_others_are_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = client(&[&url]);
        let asking = async {
            let once = client.post::<_, Vec<u8>>("/orders", &[7]).await.unwrap_err();
            assert_eq!((once.exit, once.is_unanswered), (Exit::Unreachable, true));
            client.post_until_answered::<_, Vec<u8>>("/orders", &[7]).await
        };
        let (asked, answer) = futures::join!(answers_at_last(listener), asking);
        assert_eq!((asked.len(), answer.unwrap()), (3, vec![8]));
        // Nobody has listened: nothing can have been done, and the user hears so at once.
        let nobody = self::client(&["http://127.0.0.1:1"]);
        let unheard = nobody.post_until_answered::<_, Vec<u8>>("/orders", &[7]).await;
        assert!(!unheard.unwrap_err().is_unanswered);
    }

    #[actix_rt::test]
    async fn services_are_tried_in_turn() {
        with_service(async |url: String| {
            let nobody = "http://127.0.0.1:1";
            assert_eq!(client(&[nobody, &url]).get::<Vec<u8>>("/200").await.unwrap(), [1, 2]);
            assert_eq!(
                client(&[nobody]).get::<Vec<u8>>("/200").await.unwrap_err().exit,
                Exit::Unreachable
            );
            assert_eq!(
                client(&[&url, nobody]).get::<Vec<u8>>("/404").await.unwrap_err().exit,
                Exit::NotFound
            );
        })
        .await;
    }
}
