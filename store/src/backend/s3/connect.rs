//! From a URI to a client.

use std::sync::Arc;
use std::time::Duration;

use headwater_host::{Host, real};
use headwater_model::store_uri::{Conditions, S3Store};
use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};

use super::{S3Objects, credentials};
use crate::backend::probe;
use crate::objects::{Objects, StoreError};

/// A pack over a slow line.
const REQUEST_DEADLINE: Duration = Duration::from_secs(120);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Trouble that lasts longer is told: callers have their own patience, and others may take over.
const RETRY_DEADLINE: Duration = Duration::from_secs(30);
const RETRIES: usize = 8;

/// Opens the bucket; looks whether it can be written to and keeps conditions.
pub async fn connect(place: &S3Store, host: &Host) -> Result<Arc<dyn Objects>, StoreError> {
    real::use_ring();
    let wanted = place.clone();
    let client = host.blocking(move || client(&wanted)).await?;
    let objects: Arc<dyn Objects> = Arc::new(client);
    match (probe::conditions(objects.as_ref(), host).await, place.conditions) {
        (Err(StoreError::Refused { key, detail }), Conditions::Warn) => {
            tracing::warn!(key, detail, "going on all the same, as conditions=warn says");
        }
        (probed, _) => probed?,
    }
    Ok(objects)
}

fn client(place: &S3Store) -> Result<S3Objects, StoreError> {
    let shown = format!("s3://{}", place.bucket);
    let failed = |detail: String| StoreError::refused(&shown, detail);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRY_DEADLINE,
        });
    if let Some(region) = &place.region {
        builder = builder.with_region(region);
    }
    let mut options = ClientOptions::new()
        .with_timeout(REQUEST_DEADLINE)
        .with_connect_timeout(CONNECT_DEADLINE);
    if let Some(endpoint) = &place.endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint);
        // A machine without any certificates can speak plainly all the same.
        options = options.with_allow_http(plain).with_no_system_certificates(plain);
    }
    if let Some(path_style) = place.path_style.or(place.endpoint.as_ref().map(|_| true)) {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    if let Some(file) = &place.ca_file {
        let pem = std::fs::read(file).map_err(|e| failed(format!("caFile {}: {e}", file.display())))?;
        let certificates = Certificate::from_pem_bundle(&pem);
        for certificate in certificates.map_err(|e| failed(format!("caFile {}: {e}", file.display())))? {
            options = options.with_root_certificate(certificate);
        }
    }
    if let Some(found) = credentials::find(place).map_err(failed)? {
        builder = builder
            .with_access_key_id(found.id)
            .with_secret_access_key(found.secret);
        if let Some(token) = found.token {
            builder = builder.with_token(token);
        }
    }
    let store = builder
        .with_client_options(options)
        .build()
        .map_err(|e| failed(e.to_string()))?;
    let prefix = match place.prefix.as_str() {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    Ok(S3Objects {
        store: Arc::new(store),
        prefix,
    })
}
