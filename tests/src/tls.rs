//! Test certificates.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

/// A certificate authority that no system trusts.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).expect("an authority"))
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `host`, which may be an address.
    pub fn certify(&self, host: &str) -> Identity {
        self.sign(params(host))
    }

    /// The same, but expired.
    pub fn certify_expired(&self, host: &str) -> Identity {
        let mut params = params(host);
        params.not_after = rcgen::date_time_ymd(2024, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = key();
        Identity::new(&params.signed_by(&key, &self.0).expect("a certificate"), key)
    }
}

/// A server's certificate and key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Identity {
    /// A self-signed certificate for `host`.
    pub fn self_signed(host: &str) -> Self {
        let key = key();
        Self::new(&params(host).self_signed(&key).expect("a certificate"), key)
    }

    fn new(certificate: &Certificate, key: KeyPair) -> Self {
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// Its key, in PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A server's TLS configuration that requires a client certificate signed by `authority`.
    pub(crate) fn config_for(&self, authority: &Authority) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).expect("an authority");
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.and_then(|config| {
            let config = config.with_client_cert_verifier(clients.expect("a verifier"));
            config.with_single_cert(vec![self.certificate.clone()], key.into())
        });
        Arc::new(config.expect("a key and its certificate"))
    }

    /// A server's TLS configuration for one version.
    pub(crate) fn config(&self, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .and_then(|config| {
                config.with_no_client_auth().with_single_cert(vec![self.certificate.clone()], key.into())
            });
        Arc::new(config.expect("a key and its certificate"))
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn params(host: &str) -> CertificateParams {
    CertificateParams::new([host.to_owned()]).expect("a host")
}
