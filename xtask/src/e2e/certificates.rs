//! Certificates and tokens for clients that come over TLS, right, wrong and expired, and the flags of a server that asks
//! for them.

use std::{ffi::OsString, fs, path::Path, process::Command};

use anyhow::Result;

use crate::{
    process,
    setup::{self, Need},
};

const OPENSSL: Need = Need { program: "openssl", package: "openssl", why: "makes certificates" };

/// Makes the CA of the server and its clients, the CA of others, and certificates of both. The key of each is beside it.
const CERTIFICATES: &str = r#"
set -e
new() { openssl req "$@" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes 2> /dev/null; }
ca() { new -x509 -days 30 -subj "/CN=$1" -addext keyUsage=critical,keyCertSign -keyout "$1.key" -out "$1.pem"; }
leaf() { # NAME CA EXTENSION…
  name=$1; by=$2; shift 2
  new -x509 -days 30 -subj "/CN=ci" -addext basicConstraints=critical,CA:FALSE "$@" \
    -CA "$by.pem" -CAkey "$by.key" -keyout "$name.key" -out "$name.pem"
}
ca own; ca other
leaf server own -addext subjectAltName=IP:127.0.0.1 -addext extendedKeyUsage=serverAuth
leaf certified own -addext extendedKeyUsage=clientAuth
leaf stranger other -addext extendedKeyUsage=clientAuth
# `openssl req` makes none that has expired.
new -new -subj /CN=ci -keyout expired.key -out expired.request
: > index; echo 01 > serial
cat > ca.cnf <<END
[ca]
default_ca = past
[past]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = names
x509_extensions = leaf
[names]
commonName = supplied
[leaf]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = clientAuth
END
openssl ca -batch -notext -config ca.cnf -cert own.pem -keyfile own.key -in expired.request \
  -startdate 20010101000000Z -enddate 20020101000000Z -out expired.pem 2> /dev/null
printf t0k3n-of-builder > right.token; printf T0k3n-of-builder > wrong.token
"#;

/// Each hash is that of a token: `printf t0k3n-of-builder | sha256sum`.
const PRINCIPALS: &str = "\
[[token]]
name = 'builder'
sha256 = '3817682dae19441b94a5691ef29d4a52346c6b7f1245f0d3cc4ebcaab60281bd'
rights = ['client']
[[certificate]]
name = 'certified'
common_name = 'ci'
rights = ['client']
";

/// Text that must not be in the log: the scheme of a header with a token, tokens, and the first line of a key.
pub(super) const SECRETS: [&str; 4] = ["Bearer", "t0k3n", "T0k3n", "PRIVATE KEY"];

/// Makes the certificates, keys, tokens and the file of principals in `folder`.
pub(super) fn make(folder: &Path) -> Result<()> {
    setup::ensure(&[OPENSSL])?;
    fs::create_dir_all(folder)?;
    process::run(Command::new("bash").args(["-c", CERTIFICATES]).current_dir(folder))?;
    Ok(fs::write(folder.join("principals.toml"), PRINCIPALS)?)
}

/// The flags of a server that asks clients for certificates and tokens.
pub(super) fn flags(folder: &Path) -> Vec<OsString> {
    let of = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display()).into();
    vec![
        "--listen=127.0.0.1:0".into(),
        of("tls-cert", "server.pem"),
        of("tls-key", "server.key"),
        of("tls-client-ca", "own.pem"),
        of("token-file", "principals.toml"),
    ]
}
