//! From a URI to a client.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headwater_host::{Host, real};
use headwater_model::store_uri::{AzureStore, Conditions, GoogleStore, S3Store};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::{BucketObjects, credentials};
use crate::backend::probe;
use crate::objects::{Objects, StoreError};

/// A pack over a slow line.
const REQUEST_DEADLINE: Duration = Duration::from_secs(120);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Trouble that lasts longer is told: callers have their own patience, and others may take over.
const RETRY_DEADLINE: Duration = Duration::from_secs(30);
const RETRIES: usize = 8;

/// Opens a bucket of a service that speaks S3; looks whether it can be written to and keeps conditions.
pub async fn amazon(place: &S3Store, host: &Host) -> Result<Arc<dyn Objects>, StoreError> {
    let wanted = place.clone();
    opened(host, &place.prefix, place.conditions, move || amazon_client(&wanted)).await
}

/// Opens a bucket of Google Cloud Storage in the same way.
pub async fn google(place: &GoogleStore, host: &Host) -> Result<Arc<dyn Objects>, StoreError> {
    let wanted = place.clone();
    opened(host, &place.prefix, place.conditions, move || google_client(&wanted)).await
}

/// Opens a container of Azure Blob Storage in the same way.
pub async fn azure(place: &AzureStore, host: &Host) -> Result<Arc<dyn Objects>, StoreError> {
    let wanted = place.clone();
    opened(host, &place.prefix, place.conditions, move || azure_client(&wanted)).await
}

async fn opened<C: ObjectStore>(
    host: &Host,
    prefix: &str,
    conditions: Conditions,
    client: impl FnOnce() -> Result<C, StoreError> + Send + 'static,
) -> Result<Arc<dyn Objects>, StoreError> {
    real::use_ring();
    let store = host.blocking(client).await?;
    let prefix = match prefix {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let objects: Arc<dyn Objects> = Arc::new(BucketObjects {
        store: Arc::new(store),
        prefix,
    });
    match (probe::conditions(objects.as_ref(), host).await, conditions) {
        (Err(StoreError::Refused { key, detail }), Conditions::Warn) => {
            tracing::warn!(key, detail, "going on all the same, as conditions=warn says");
        }
        (probed, _) => probed?,
    }
    Ok(objects)
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: RETRIES,
        retry_timeout: RETRY_DEADLINE,
    }
}

fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

/// What is common to all clients. A machine without any certificates can speak plainly all the same.
fn options(endpoint: Option<&str>, ca_file: Option<&Path>) -> Result<ClientOptions, String> {
    let plain = is_plain(endpoint);
    let mut options = ClientOptions::new()
        .with_timeout(REQUEST_DEADLINE)
        .with_connect_timeout(CONNECT_DEADLINE)
        .with_allow_http(plain)
        .with_no_system_certificates(plain);
    if let Some(file) = ca_file {
        let fault = |e: &dyn std::fmt::Display| format!("caFile {}: {e}", file.display());
        let pem = std::fs::read(file).map_err(|e| fault(&e))?;
        for certificate in Certificate::from_pem_bundle(&pem).map_err(|e| fault(&e))? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn amazon_client(place: &S3Store) -> Result<impl ObjectStore + use<>, StoreError> {
    let shown = format!("s3://{}", place.bucket);
    let failed = |detail: String| StoreError::refused(&shown, detail);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(retries());
    if let Some(region) = &place.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(path_style) = place.path_style.or(place.endpoint.as_ref().map(|_| true)) {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    if let Some(found) = credentials::find(place).map_err(failed)? {
        builder = builder
            .with_access_key_id(found.id)
            .with_secret_access_key(found.secret);
        if let Some(token) = found.token {
            builder = builder.with_token(token);
        }
    }
    // TLS guards the body already; without it the signature must. SHA-256 of a pack takes as long as sending it.
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    builder = builder.with_unsigned_payload(!is_plain(endpoint.as_deref()));
    let options = options(endpoint.as_deref(), place.ca_file.as_deref()).map_err(failed)?;
    let built = builder.with_client_options(options).build();
    built.map_err(|e| failed(e.to_string()))
}

fn google_client(place: &GoogleStore) -> Result<impl ObjectStore + use<>, StoreError> {
    let shown = format!("gs://{}", place.bucket);
    let failed = |detail: String| StoreError::refused(&shown, detail);
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(retries());
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(file) = &place.credentials_file {
        let path = file.to_string_lossy();
        let text = std::fs::read_to_string(file).map_err(|e| failed(format!("credentialsFile {path}: {e}")))?;
        builder = match text.contains("\"private_key\"") {
            true => builder.with_service_account_path(path),
            false => builder.with_application_credentials(path),
        };
    }
    let options = options(place.endpoint.as_deref(), place.ca_file.as_deref()).map_err(failed)?;
    let built = builder.with_client_options(options).build();
    built.map_err(|e| failed(e.to_string()))
}

fn azure_client(place: &AzureStore) -> Result<impl ObjectStore + use<>, StoreError> {
    let shown = format!("az://{}", place.container);
    let failed = |detail: String| StoreError::refused(&shown, detail);
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(&place.container)
        .with_retry(retries());
    if let Some(account) = &place.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(file) = &place.key_file {
        let text = std::fs::read_to_string(file).map_err(|e| failed(format!("keyFile {}: {e}", file.display())))?;
        builder = builder.with_access_key(text.lines().next().unwrap_or_default().trim());
    }
    let options = options(place.endpoint.as_deref(), place.ca_file.as_deref()).map_err(failed)?;
    let built = builder.with_client_options(options).build();
    built.map_err(|e| failed(e.to_string()))
}
