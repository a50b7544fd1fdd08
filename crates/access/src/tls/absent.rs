//! Stands for TLS in programs that are built without it, which refuse its flags.

use std::convert::Infallible;

use super::TlsFiles;

/// The reason why TLS can't be offered.
#[derive(Debug, thiserror::Error)]
#[error(
    "this program was built without TLS; build it with the feature `tls`, as `cargo build` does by \
     default and `cargo xtask serve` does not"
)]
pub struct TlsError;

/// TLS, of which there is no value.
#[derive(Debug)]
pub struct Tls(Infallible);

/// Certificates, of which there is no value.
#[derive(Debug)]
pub struct NewCertificates(Infallible);

impl Tls {
    /// Fails.
    ///
    /// # Errors
    /// [`TlsError`], always.
    pub fn open(_: TlsFiles) -> Result<Self, TlsError> {
        Err(TlsError)
    }

    /// Can't be called.
    pub fn asks_for_certificates(&self) -> bool {
        match self.0 {}
    }

    /// Can't be called.
    ///
    /// # Errors
    /// None.
    pub fn read_again(&self) -> Result<NewCertificates, TlsError> {
        match self.0 {}
    }

    /// Can't be called.
    pub fn replace(&self, new: NewCertificates) {
        match new.0 {}
    }
}
