//! Certificates: a CA of one test, and what it signs.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// A CA.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate that is to be signed.
#[derive(Debug, Clone)]
pub struct Request(CertificateParams);

/// A certificate with its private key.
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

/// The files of an [`Identity`], in PEM.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new CA with a key of its own.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?);
        issuer.map(Self).context("making a CA")
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn sign(&self, Request(parameters): Request) -> anyhow::Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.0).context("signing a certificate")?;
        Ok(Identity { certificate, key })
    }

    /// Writes its certificate to `path`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write(path, &self.pem())
    }
}

impl Request {
    fn new(names: &[&str], usage: ExtendedKeyUsagePurpose) -> anyhow::Result<Self> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).context("the names of a certificate")?;
        parameters.distinguished_name.remove(DnType::CommonName);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        parameters.use_authority_key_identifier_extension = true;
        Ok(Self(parameters))
    }

    /// A server's, for those DNS names and addresses.
    ///
    /// # Errors
    /// When a name is not ASCII.
    pub fn server(names: &[&str]) -> anyhow::Result<Self> {
        Self::new(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's, with a common name.
    ///
    /// # Errors
    /// None in practice.
    pub fn client(common_name: &str) -> anyhow::Result<Self> {
        let Self(mut parameters) = Self::new(&[], ExtendedKeyUsagePurpose::ClientAuth)?;
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        Ok(Self(parameters))
    }

    /// Adds a URI to the names.
    ///
    /// # Errors
    /// When it is not ASCII.
    pub fn uri(mut self, uri: &str) -> anyhow::Result<Self> {
        self.0.subject_alt_names.push(SanType::URI(uri.try_into().context("a URI")?));
        Ok(self)
    }

    /// Makes the certificate one that has expired long ago.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.0.not_before = date_time_ymd(2001, 1, 1);
        self.0.not_after = date_time_ymd(2002, 1, 1);
        self
    }

    /// Makes the certificate one that will be valid in a thousand years.
    #[must_use]
    pub fn not_yet(mut self) -> Self {
        self.0.not_before = date_time_ymd(3000, 1, 1);
        self.0.not_after = date_time_ymd(3001, 1, 1);
        self
    }
}

impl Identity {
    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The private key in PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Writes `NAME.pem` and `NAME.key` into a directory.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write(&self, directory: &Path, name: &str) -> anyhow::Result<IdentityFiles> {
        let certificate = directory.join(format!("{name}.pem"));
        let key = directory.join(format!("{name}.key"));
        write(&certificate, &self.certificate_pem())?;
        write(&key, &self.key_pem())?;
        Ok(IdentityFiles { certificate, key })
    }
}

/// Writes a file that only its owner can read, as the server wants its keys to be.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}
