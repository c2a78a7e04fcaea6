//! Certificates for tests: an authority, and what it signs for this machine.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority that nobody knows but who is told.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both in one file, as a mongod wants them.
    pub both: PathBuf,
}

impl Authority {
    /// A new one, which keeps its files in `folder`.
    pub fn new(folder: &Path) -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let own = params.self_signed(&key)?;
        std::fs::write(folder.join("ca.pem"), own.pem())?;
        Ok(Authority {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The file by which it is believed.
    pub fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for this machine. Again with the same name it takes the place of the former one.
    pub fn sign(&self, name: &str) -> Result<Certificate> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        let files = Certificate {
            cert: file("pem"),
            key: file("key"),
            both: file("both"),
        };
        std::fs::write(&files.cert, &cert)?;
        std::fs::write(&files.key, key.serialize_pem())?;
        std::fs::write(&files.both, cert + &key.serialize_pem())?;
        Ok(files)
    }
}
