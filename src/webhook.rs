//! Alerts over HTTP: one POST of JSON each. The address may carry a secret, so it is never logged.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_actors::alerting::Tell;

use crate::failure::innermost;
use crate::roots;

/// How long a webhook may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// See the module.
pub struct HttpWebhook {
    http: reqwest::Client,
    url: String,
}

impl HttpWebhook {
    /// Prepares; connects to nothing yet. With `https` the webhook is believed by the certificates of the system and by
    /// those of `ca_pem`.
    pub fn new(url: &str, ca_pem: Option<&[u8]>) -> anyhow::Result<Self> {
        headwater_host::real::use_ring();
        let secured = roots::is_secured(url);
        let unusable = "the HTTP client of alerts.webhook cannot start: is there any certificate to believe it by?";
        let http = roots::believing_also(reqwest::Client::builder(), secured, ca_pem)?
            .timeout(DEADLINE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .build()
            .context(unusable)?;
        Ok(HttpWebhook {
            http,
            url: url.to_owned(),
        })
    }
}

impl Tell for HttpWebhook {
    fn tell(&self, json: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        let request = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .body(json);
        async move {
            let answer = request
                .send()
                .await
                .map_err(|e| in_words(&innermost(&e.without_url())))?;
            match answer.status() {
                status if status.is_success() => Ok(()),
                status => Err(format!("it answered {status}")),
            }
        }
        .boxed()
    }
}

/// A cause with its cure, where we know one.
fn in_words(cause: &str) -> String {
    let cure = match cause {
        cause if cause.to_lowercase().contains("expired") => "it needs a new certificate",
        cause if cause.contains("certificate") => {
            "name its authority in net.tls.caFile or among the system's, and its host as its certificate does"
        }
        cause if cause.contains("corrupt message") => "it may speak without TLS: write http:// instead of https://",
        cause => return cause.to_owned(),
    };
    format!("{cause}: {cure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_can_be_cured_are_told_with_the_cure() {
        for (cause, words) in [
            ("invalid peer certificate: UnknownIssuer", "net.tls.caFile"),
            ("invalid peer certificate: Expired", "new certificate"),
            ("received corrupt message of type InvalidContentType", "write http://"),
            ("Connection refused (os error 111)", "Connection refused (os error 111)"),
        ] {
            let told = in_words(cause);
            assert!(told.starts_with(cause) && told.contains(words), "{told}");
        }
    }
}
