//! The certificates of the authorities that a collector's own is checked with.

use std::path::Path;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::error::TracesError;

/// Those in a file, or those of the system.
pub(crate) fn read(file: Option<&Path>) -> Result<RootCertStore, TracesError> {
    let certificates = match file {
        Some(path) => {
            let failed = |source| TracesError::Read { path: path.to_owned(), source };
            let text = std::fs::read(path).map_err(failed)?;
            CertificateDer::pem_slice_iter(&text)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| TracesError::Certificates { path: path.to_owned() })?
        }
        // One that can't be read makes its servers unknown, which the call tells.
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    match file {
        Some(path) if added == 0 => Err(TracesError::Certificates { path: path.to_owned() }),
        _ => Ok(roots),
    }
}
