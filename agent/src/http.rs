//! POSTs over HTTP; the only file that names `reqwest`.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::settings::AgentSettings;
use crate::shipping::{Call, NoService, Post};

/// An HTTP client with its pool of connections.
pub struct Http(reqwest::Client);

impl Http {
    /// A client with the settings' time limits.
    pub fn new(settings: &AgentSettings) -> Result<Http, NoService> {
        headwater_host::real::use_ring();
        let unusable = |e: reqwest::Error| NoService::Client(told(e));
        let builder = reqwest::Client::builder();
        let secured = settings.service.iter().any(|url| url.starts_with("https://"));
        let builder = match (secured, &settings.ca_pem) {
            // Who speaks plainly must be able to on a machine without any certificates.
            (false, _) => builder.tls_certs_only([]),
            (true, None) => builder,
            (true, Some(pem)) => builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?),
        };
        let client = builder
            .connect_timeout(Duration::from_secs(5))
            .timeout(settings.request_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(unusable)?;
        Ok(Http(client))
    }
}

#[async_trait]
impl Post for Http {
    async fn post(&self, call: Call) -> Result<(u16, Bytes), String> {
        let sent = self.0.post(&call.url).bearer_auth(&call.key);
        let response = sent
            .header("content-type", call.content)
            .body(call.body)
            .send()
            .await
            .map_err(told)?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(told)?;
        Ok((status, body))
    }
}

/// The error with its causes; reqwest keeps the interesting part in the sources. Its URL is left out, it may hold secrets.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
