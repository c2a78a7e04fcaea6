//! TLS: which cryptography it uses in this process, and how a service that listens proves who it is.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;

/// A connection that is secured, and on which the other side believes who we are.
pub type Secured = tokio_rustls::server::TlsStream<TcpStream>;

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Makes *ring* the cryptography of every TLS connection of this process. To be called before an HTTP client is built:
/// clients find the provider by itself only in the process' own settings. Again is no change.
pub fn use_ring() {
    // An error says that one is set already: ours, or that of a program around us, which then meant it.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Why files are no proof. Never tells what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file without what it is for.
    #[error("{path} does not hold {wanted} in PEM", path = path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// Files that do not belong together, or are not to be used.
    #[error("the certificate of {path} cannot be used with its key: {reason}", path = path.display())]
    Unfit {
        /// The file with the certificate.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Takes connections, by a certificate and a key that are loaded anew when their files change. Cheap to clone.
#[derive(Clone)]
pub struct TlsAcceptor(Arc<Inner>);

struct Inner {
    cert: PathBuf,
    key: PathBuf,
    present: Mutex<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    /// As they were in the files.
    pems: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("cert", &self.0.cert)
            .finish_non_exhaustive()
    }
}

impl TlsAcceptor {
    /// Reads certificate chain and key, both PEM.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let pems = (read(cert)?, read(key)?);
        let config = config(cert, key, &pems)?;
        Ok(TlsAcceptor(Arc::new(Inner {
            cert: cert.to_owned(),
            key: key.to_owned(),
            present: Mutex::new(Loaded { pems, config }),
        })))
    }

    /// Makes a connection a secured one.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Secured> {
        let config = self.present().config;
        tokio_rustls::TlsAcceptor::from(config).accept(stream).await
    }

    /// Loads files that changed, from time to time, for ever. Files that are no proof change nothing: of a certificate and
    /// a key that are being replaced one is there before the other.
    pub async fn follow(self) {
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            match self.look() {
                Ok(true) => tracing::info!(cert = %self.0.cert.display(), "a new certificate is in use"),
                Ok(false) => told.clear(),
                Err(error) => {
                    let words = error.to_string();
                    if words != told {
                        tracing::warn!("the former certificate stays in use: {words}");
                        told = words;
                    }
                }
            }
        }
    }

    /// Loads the files if they changed; answers whether they did. Two small files: not worth a thread.
    fn look(&self) -> Result<bool, TlsError> {
        let pems = (read(&self.0.cert)?, read(&self.0.key)?);
        if pems == self.present().pems {
            return Ok(false);
        }
        let config = config(&self.0.cert, &self.0.key, &pems)?;
        *self.0.present.lock().unwrap_or_else(PoisonError::into_inner) = Loaded { pems, config };
        Ok(true)
    }

    fn present(&self) -> Loaded {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read {
        path: path.to_owned(),
        error,
    })
}

fn config(cert: &Path, key: &Path, pems: &(Vec<u8>, Vec<u8>)) -> Result<Arc<ServerConfig>, TlsError> {
    let empty = |path: &Path, wanted| TlsError::Empty {
        path: path.to_owned(),
        wanted,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pems.0)
        .collect::<Result<_, _>>()
        .map_err(|_| empty(cert, "certificates"))?;
    if chain.is_empty() {
        return Err(empty(cert, "certificates"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&pems.1).map_err(|_| empty(key, "a private key"))?;
    let unfit = |error: rustls::Error| TlsError::Unfit {
        path: cert.to_owned(),
        reason: error.to_string(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
