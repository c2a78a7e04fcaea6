//! Whom a client believes: whoever holds a certificate of the system's authorities, or of those in a file.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_fault};

/// The certificates of a file, as they are in it; `None` for the system's.
pub fn read(ca_file: Option<&Path>) -> Outcome<Option<Vec<u8>>> {
    let Some(path) = ca_file else { return Ok(None) };
    let pem = std::fs::read(path).map_err(|e| file_fault("read", path, &e))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(Some(pem)),
        _ => {
            let message = format!("{} does not hold certificates in PEM", path.display());
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Has a client believe so. One that speaks plainly must be able to on a machine without any certificates.
pub fn believing(builder: ClientBuilder, secured: bool, pem: Option<&[u8]>) -> reqwest::Result<ClientBuilder> {
    match (secured, pem) {
        (false, _) => Ok(builder.tls_certs_only([])),
        (true, None) => Ok(builder),
        (true, Some(pem)) => Ok(builder.tls_certs_only(Certificate::from_pem_bundle(pem)?)),
    }
}

/// The same, with the certificates besides the system's: for those who are not part of the cluster.
pub fn believing_also(builder: ClientBuilder, secured: bool, pem: Option<&[u8]>) -> reqwest::Result<ClientBuilder> {
    match (secured, pem) {
        (true, Some(pem)) => Ok(builder.tls_certs_merge(Certificate::from_pem_bundle(pem)?)),
        _ => believing(builder, secured, None),
    }
}

/// Whether an address asks for a secured connection.
pub fn is_secured(url: &str) -> bool {
    url.starts_with("https://")
}
