//! Alerts over HTTP: one POST of JSON each. The address may carry a secret, so it is never logged.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_actors::alerting::Tell;

/// How long a webhook may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// See the module.
pub struct HttpWebhook {
    http: reqwest::Client,
    url: String,
}

impl HttpWebhook {
    /// Prepares; connects to nothing yet.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(DEADLINE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client cannot start")?;
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
            let answer = request.send().await.map_err(|e| e.without_url().to_string())?;
            match answer.status() {
                status if status.is_success() => Ok(()),
                status => Err(format!("it answered {status}")),
            }
        }
        .boxed()
    }
}
