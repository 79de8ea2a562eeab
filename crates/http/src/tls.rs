//! TLS to endpoints.

use std::{error::Error, fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_mesh_core::BoxError;

use crate::client::Protocol;

/// Whom a client trusts, and who it is itself, when it calls endpoints over TLS; for
/// [`HttpEndpoints::tls`](crate::HttpEndpoints::tls).
///
/// rustls over ring, TLS 1.2 and 1.3. There is no way to leave a check out, and none back to plain text.
///
/// # Clone
///
/// A clone shares everything, the sessions that can be resumed too.
///
/// # Example
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_mesh_http::{HttpEndpoints, Tls};
///
/// let ca = std::fs::read("ca.pem")?;
/// let tls = Tls::trusting(&ca)?;
/// # #[allow(clippy::disallowed_methods)]
/// let orders = HttpEndpoints::new(|task| drop(tokio::spawn(task))).tls(&tls, "orders")?;
/// # let _ = orders;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts the certificate authorities in `pem`, and nobody else.
    ///
    /// # Errors
    ///
    /// [`InvalidTls`] if there is none in it, or what is there is no certificate.
    pub fn trusting(pem: &[u8]) -> Result<Self, InvalidTls> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            (roots.add(certificate))
                .map_err(|error| InvalidTls::new("an authority cannot be used", error))?;
        }
        Self::of(roots)
    }

    /// Trusts whom the system trusts.
    ///
    /// # Errors
    ///
    /// [`InvalidTls`] if the system has no certificate authorities, or they cannot be read.
    pub fn system() -> Result<Self, InvalidTls> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A system may have some that nobody understands: what is not added is not trusted.
        roots.add_parsable_certificates(found.certs);
        match found.errors.into_iter().next() {
            Some(error) if roots.is_empty() => {
                let what = "the system's certificate authorities cannot be read";
                Err(InvalidTls::new(what, error))
            }
            _ => Self::of(roots),
        }
    }

    fn of(roots: RootCertStore) -> Result<Self, InvalidTls> {
        if roots.is_empty() {
            return Err(InvalidTls::what(
                "there is no certificate authority to trust",
            ));
        }
        let roots = Arc::new(roots);
        let config = builder()?
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            roots,
        })
    }

    /// Shows servers that ask the first certificate in `chain`, the ones after it being those that it was signed with;
    /// `key` is its private key. Both are PEM.
    ///
    /// # Errors
    ///
    /// [`InvalidTls`] if they cannot be read, or do not belong together.
    pub fn client_certificate(self, chain: &[u8], key: &[u8]) -> Result<Self, InvalidTls> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| InvalidTls::new("there is no private key in PEM", error))?;
        let config = builder()?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(chain, key)
            .map_err(|error| InvalidTls::new("the client's certificate cannot be used", error))?;
        Ok(Self {
            config: Arc::new(config),
            roots: self.roots,
        })
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, InvalidTls> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidTls::new("TLS cannot be set up", error))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| InvalidTls::new("what should be certificates is no PEM", error))?;
    if certificates.is_empty() {
        return Err(InvalidTls::what("there is no certificate in PEM"));
    }
    Ok(certificates)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.roots.len())
            .field(
                "client_certificate",
                &self.config.client_auth_cert_resolver.has_certs(),
            )
            .finish_non_exhaustive()
    }
}

/// Who an endpoint has to prove to be.
#[derive(Clone)]
pub(crate) struct Identity {
    tls: Tls,
    name: ServerName<'static>,
    /// As in `tls`, with the protocols that are offered.
    config: Arc<ClientConfig>,
}

impl Identity {
    pub(crate) fn new(tls: &Tls, name: &str) -> Result<Self, InvalidTls> {
        let invalid = |error| InvalidTls::new("an endpoint has to prove a name of DNS", error);
        let name = rustls::pki_types::DnsName::try_from(name.to_owned())
            .map_err(|error| invalid(BoxError::from(error)))?;
        Ok(Self {
            config: Arc::clone(&tls.config),
            tls: tls.clone(),
            name: ServerName::DnsName(name),
        })
    }

    /// The same, over a connection on which this is spoken.
    pub(crate) fn speaking(mut self, protocol: Protocol) -> Self {
        let mut config = ClientConfig::clone(&self.tls.config);
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
            Protocol::Negotiated => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        self.config = Arc::new(config);
        self
    }

    pub(crate) fn name(&self) -> std::borrow::Cow<'_, str> {
        self.name.to_str()
    }

    pub(crate) async fn connect(&self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let handshake = connector.connect(self.name.clone(), tcp).await;
        handshake.map_err(|error| TlsError::new(&self.name(), error))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.name()).finish()
    }
}

/// An endpoint did not prove who it is, or would not speak TLS; it stands in the chain of the client's error, with rustls'
/// own beneath it.
#[derive(Debug)]
pub struct TlsError {
    name: Box<str>,
    source: BoxError,
}

impl TlsError {
    fn new(name: &str, error: io::Error) -> Self {
        // An `io::Error` hides what it was made of from the chain.
        let source = match error.downcast::<rustls::Error>() {
            Ok(tls) => tls.into(),
            Err(io) => io.into(),
        };
        Self {
            name: name.into(),
            source,
        }
    }

    /// Whom it had to prove to be.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no TLS with {}: {}", self.name, self.source)
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// Certificates, keys or names for TLS cannot be used.
#[derive(Debug)]
pub struct InvalidTls {
    what: &'static str,
    source: Option<BoxError>,
}

impl InvalidTls {
    fn what(what: &'static str) -> Self {
        Self { what, source: None }
    }

    fn new(what: &'static str, source: impl Into<BoxError>) -> Self {
        Self {
            what,
            source: Some(source.into()),
        }
    }
}

impl fmt::Display for InvalidTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl Error for InvalidTls {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
