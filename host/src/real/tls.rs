//! Which cryptography TLS uses in this process.

/// Makes *ring* the cryptography of every TLS connection of this process. To be called before an HTTP client is built:
/// clients find the provider by itself only in the process' own settings. Again is no change.
pub fn use_ring() {
    // An error says that one is set already: ours, or that of a program around us, which then meant it.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
