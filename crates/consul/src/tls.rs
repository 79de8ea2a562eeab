//! TLS to agents: whom to believe, and who we are.

mod trust;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_mesh_core::Instant;

pub(crate) use self::trust::explained;
use crate::{address::Address, error::ConsulError};

/// How agents at `https://` addresses prove who they are, and how this process does if they ask.
///
/// An agent has to have a certificate for the host of its address, or for [`server_name`](Self::server_name), which is
/// valid now and signed by an authority that is believed. There is no way to switch that off: who does not prove it is sent
/// nothing, and the error says what was wrong, see [`ErrorKind::Untrusted`](crate::ErrorKind::Untrusted).
///
/// The files are read again when a connection is opened, once a minute at most, so certificates may be exchanged while the
/// process runs. Files that are no use then are logged, and what was read before is kept. The key is never printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    authorities: Vec<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<Box<str>>,
}

impl Tls {
    /// Believes whom the system believes, until [`authority`](Self::authority) names others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Believes the authorities whose certificates stand in `path`, a PEM file or a directory of such, and no others.
    /// Several calls add up.
    #[must_use]
    pub fn authority(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities.push(path.into());
        self
    }

    /// Proves who this process is to an agent that asks (`verify_incoming`), with a certificate and the others of its chain
    /// in one PEM file, and its key in another.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name for which agents have a certificate, such as `server.dc1.consul`, if it is not that of their address.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// What the files hold.
    fn read(&self) -> Result<Files, ConsulError> {
        let mut authorities = Vec::new();
        for path in &self.authorities {
            for file in files_at(path)? {
                authorities.push((file.clone(), contents(&file)?));
            }
        }
        let identity = match &self.identity {
            Some((certificate, key)) => Some((contents(certificate)?, contents(key)?)),
            None => None,
        };
        Ok(Files {
            authorities,
            identity,
        })
    }

    fn config(&self, files: &Files) -> Result<ClientConfig, ConsulError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConsulError::refused("TLS cannot be set up").caused_by(error))?
            .with_root_certificates(self.roots(files)?);
        let mut config = match (&files.identity, &self.identity) {
            (Some((chain, key)), Some((chain_file, key_file))) => {
                let chain = certificates(chain_file, chain)?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| unusable(key_file, "holds no private key in PEM"))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    unusable(key_file, "is not the key of the certificate").caused_by(error)
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self, files: &Files) -> Result<RootCertStore, ConsulError> {
        let mut roots = RootCertStore::empty();
        for (file, text) in &files.authorities {
            for certificate in certificates(file, text)? {
                let refuse = |error| unusable(file, "holds what is no authority").caused_by(error);
                roots.add(certificate).map_err(refuse)?;
            }
        }
        if self.authorities.is_empty() {
            // Some of the system's may be of no use: what counts is whether any is.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        match roots.is_empty() {
            true => Err(ConsulError::refused(
                "TLS needs an authority to believe, and neither the system nor a file names one",
            )),
            false => Ok(roots),
        }
    }
}

#[derive(PartialEq, Eq)]
struct Files {
    authorities: Vec<(PathBuf, Vec<u8>)>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

fn contents(file: &Path) -> Result<Vec<u8>, ConsulError> {
    fs::read(file).map_err(|error| unusable(file, "cannot be read").caused_by(error))
}

/// `path`, or what lies in it, in order.
fn files_at(path: &Path) -> Result<Vec<PathBuf>, ConsulError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let cannot = |error| unusable(path, "cannot be read").caused_by(error);
    let entries = fs::read_dir(path).map_err(cannot)?;
    let files: Result<Vec<_>, _> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut files = files.map_err(cannot)?;
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

fn certificates(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConsulError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        // The text is not repeated: it may be the key.
        _ => Err(unusable(file, "holds no certificate in PEM")),
    }
}

fn unusable(file: &Path, why: &str) -> ConsulError {
    ConsulError::refused(format!("{} {why}", file.display()))
}

/// How long what was read is used before the files are looked at again.
const FRESH: Duration = Duration::from_secs(60);

/// What was read, and read again.
#[derive(Clone)]
pub(crate) struct Secured {
    tls: Tls,
    server_name: Option<ServerName<'static>>,
    loaded: Arc<Mutex<Loaded>>,
}

struct Loaded {
    files: Files,
    config: Arc<ClientConfig>,
    /// When the files were last looked at; none before the first connection.
    looked: Option<Instant>,
}

impl Secured {
    pub(crate) fn new(tls: Tls) -> Result<Self, ConsulError> {
        let server_name = match &tls.server_name {
            Some(name) => Some(name_of(name)?),
            None => None,
        };
        let files = tls.read()?;
        let config = Arc::new(tls.config(&files)?);
        let looked = None;
        Ok(Self {
            tls,
            server_name,
            loaded: Arc::new(Mutex::new(Loaded {
                files,
                config,
                looked,
            })),
        })
    }

    /// Makes sure over `stream` that the agent at `address` is who it should be.
    pub(crate) async fn secure(
        &self,
        address: &Address,
        stream: TcpStream,
        now: Instant,
    ) -> Result<TlsStream<TcpStream>, ConsulError> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => name_of(address.host())?,
        };
        let connector = TlsConnector::from(self.config(now));
        let secured = connector.connect(name, stream).await;
        secured.map_err(|error| explained(address, &error).caused_by(error))
    }

    fn config(&self, now: Instant) -> Arc<ClientConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = *loaded.looked.get_or_insert(now);
        if now.since(looked) >= FRESH {
            loaded.looked = Some(now);
            if let Err(error) = self.look_again(&mut loaded) {
                tracing::warn!(%error, "the certificates that were read before are kept");
            }
        }
        Arc::clone(&loaded.config)
    }

    fn look_again(&self, loaded: &mut Loaded) -> Result<(), ConsulError> {
        let files = self.tls.read()?;
        // The system's authorities are read once: a new one comes with a new process.
        if files != loaded.files {
            loaded.config = Arc::new(self.tls.config(&files)?);
            loaded.files = files;
        }
        Ok(())
    }
}

fn name_of(host: &str) -> Result<ServerName<'static>, ConsulError> {
    ServerName::try_from(host.to_owned()).map_err(|error| {
        ConsulError::refused("a certificate cannot be for that host").caused_by(error)
    })
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tls.fmt(f)
    }
}
