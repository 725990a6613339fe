//! TLS: the certificate authorities for all servers, and for one server if the user names its own.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use zeroize::Zeroizing;

use crate::{
    clock, environment,
    files::{self, Owner, Refused, Rules},
};
use cc_core::secret::Tls;
use proto::env::{MLFLOW_CLIENT_CERT, MLFLOW_SERVER_CERT};

/// Certificates are read again after this time, because some may have been added.
const CERTIFICATES_REREAD_AFTER: Duration = Duration::from_secs(60);

/// Largest certificate file, in bytes.
const LARGEST: u64 = 8 << 20;

/// How many files of a directory are read at most.
const MOST_FILES: usize = 2000;

/// The trusted authorities, shared by all clients: there may be thousands, and reading hundreds of certificates takes
/// milliseconds. They are the well-known roots, those of the system, and those of `SSL_CERT_FILE` and
/// `NODE_EXTRA_CA_CERTS` (which users behind an inspecting proxy have set for Claude Code already).
///
/// # Errors
/// If TLS cannot be set up.
pub(super) fn shared() -> anyhow::Result<Arc<ClientConfig>> {
    static SHARED: Mutex<Option<(Instant, Arc<ClientConfig>)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, tls)) = shared.as_ref().filter(|(read, _)| read.elapsed() < CERTIFICATES_REREAD_AFTER) {
        return Ok(tls.clone());
    }
    let tls = Arc::new(config(Trust::Roots(everywhere()), None)?);
    *shared = Some((clock::monotonic(), tls.clone()));
    Ok(tls)
}

/// The authorities and the client certificate for one server.
///
/// # Errors
/// Which file cannot be used and what to do, or that TLS cannot be set up.
pub(super) fn for_server(own: &Tls) -> anyhow::Result<Arc<ClientConfig>> {
    if *own == Tls::default() {
        return shared();
    }
    let trust = match &own.authorities {
        _ if own.is_unproven => Trust::Anybody,
        Some(path) => Trust::Roots(authorities(&absolute(path, MLFLOW_SERVER_CERT)?)?),
        None => Trust::Roots(everywhere()),
    };
    let identity = own.identity.as_ref().map(|path| identity(&absolute(path, MLFLOW_CLIENT_CERT)?)).transpose()?;
    Ok(Arc::new(config(trust, identity)?))
}

/// How a server's identity is checked.
enum Trust {
    Roots(RootCertStore),
    Anybody,
}

/// A client certificate with its chain, and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn config(trust: Trust, identity: Option<Identity>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = match trust {
        Trust::Roots(roots) => config.with_root_certificates(roots),
        Trust::Anybody => config.dangerous().with_custom_certificate_verifier(Arc::new(Unproven(provider))),
    };
    Ok(match identity {
        None => config.with_no_client_auth(),
        Some((certificates, key)) => config
            .with_client_auth_cert(certificates, key)
            .map_err(|error| anyhow::anyhow!("the certificate that {MLFLOW_CLIENT_CERT} names and its key: {error}"))?,
    })
}

fn everywhere() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Includes SSL_CERT_FILE and SSL_CERT_DIR.
    let mut found = vec![rustls_native_certs::load_native_certs()];
    if let Some(path) = environment::raw("NODE_EXTRA_CA_CERTS").filter(|path| !path.is_empty()) {
        found.push(rustls_native_certs::load_certs_from_paths(Some(path.as_ref()), None));
    }
    for found in found {
        if let Some(error) = found.errors.first() {
            tracing::warn!(%error, and_others = found.errors.len() - 1, "certificates cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    roots
}

/// The path in the variable `name`. It must be absolute, because Claude Code, the daemon and `cc-langfusectl` run in
/// different directories.
fn absolute(path: &str, name: &str) -> anyhow::Result<PathBuf> {
    let below_home = path.strip_prefix("~/").zip(environment::home()).map(|(rest, home)| home.join(rest));
    let path = below_home.unwrap_or_else(|| PathBuf::from(path));
    ensure!(path.is_absolute(), "{name} is {}: write the whole path, which begins with /", path.display());
    Ok(path)
}

/// Reads a file that only the user and root can change.
fn read(path: &Path, name: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let rules = Rules { owner: Owner::UserOrRoot, may_be_shared: false, ..Rules::users(LARGEST) };
    let bad = |why: &str, remedy: &str| format!("{name}: {} {why}: {remedy}", path.display());
    files::read(path, &rules).map(Zeroizing::new).map_err(|refused| {
        anyhow::anyhow!(match refused {
            Refused::Missing => bad("is missing", "put the file there, or correct the variable"),
            Refused::NotAFile => bad("is no file", "name one with certificates"),
            Refused::OtherOwner => bad("belongs to another user", "chown it to yourself, or to root"),
            Refused::Shared => bad("can be changed by other users", "chmod go-w it"),
            Refused::TooLarge => bad("is larger than 8 MiB", "name a file with certificates"),
            Refused::Io(error) => bad("cannot be read", &format!("{error}; chmod u+r it")),
            Refused::HardLink => bad("has another name as well", "copy it"),
        })
    })
}

/// The authorities in a file, or in all files of a directory.
fn authorities(path: &Path) -> anyhow::Result<RootCertStore> {
    let name = MLFLOW_SERVER_CERT;
    let mut roots = RootCertStore::empty();
    if path.is_dir() {
        let entries = path.read_dir().with_context(|| format!("{name}: {} cannot be read", path.display()))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        // A file without a certificate, or one that cannot be read, is skipped.
        for file in files.iter().take(MOST_FILES) {
            let text = read(file, name).unwrap_or_default();
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
        }
    } else {
        let text = read(path, name)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = found.map_err(|error| anyhow::anyhow!("{name}: {} is no PEM: {error}", path.display()))?;
        roots.add_parsable_certificates(found);
    }
    if roots.is_empty() {
        bail!(
            "{name}: {} has no certificate of an authority in PEM: name the one your server's is signed by",
            path.display()
        );
    }
    Ok(roots)
}

/// The client certificate in a file, and its key.
fn identity(path: &Path) -> anyhow::Result<Identity> {
    let name = MLFLOW_CLIENT_CERT;
    let text = read(path, name)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    ensure!(!certificates.is_empty(), "{name}: {} has no certificate in PEM: put it before its key", path.display());
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        anyhow::anyhow!(
            "{name}: {} has no key that can be read: put the certificate's own there in PEM, without a passphrase (openssl pkey)",
            path.display()
        )
    })?;
    Ok((certificates, key))
}

/// Accepts any certificate. It is still checked that the server has the certificate's key.
#[derive(Debug)]
struct Unproven(Arc<CryptoProvider>);

impl ServerCertVerifier for Unproven {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
