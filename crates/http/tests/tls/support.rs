//! Authorities, and servers whom they have signed.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, Request, Response, header::HOST};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::PrivateKeyDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tower_mesh_core::Endpoint;

/// A certificate authority.
pub(crate) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::called("ours")
    }

    pub(crate) fn called(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A server that proves to be `name`.
    pub(crate) fn server(&self, name: &str) -> ServerConfig {
        self.of(named(name), None)
    }

    /// The same, as it was long ago.
    pub(crate) fn expired(&self, name: &str) -> ServerConfig {
        let mut params = named(name);
        params.not_after = date_time_ymd(2000, 1, 1);
        self.of(params, None)
    }

    /// A server that lets nobody in whom this authority has not signed.
    pub(crate) fn server_asking(&self, name: &str) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let asks = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        self.of(named(name), Some(asks.build().unwrap()))
    }

    /// The certificate of a client and its key, in PEM.
    pub(crate) fn client(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let signed = named(name).signed_by(&key, &self.issuer).unwrap();
        (signed.pem(), key.serialize_pem())
    }

    fn of(
        &self,
        params: CertificateParams,
        asks: Option<Arc<dyn ClientCertVerifier>>,
    ) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match asks {
            Some(asks) => builder.with_client_cert_verifier(asks),
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder
            .with_single_cert(vec![signed.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

fn named(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

/// A server that answers with the name that it was asked for, and to gRPC's health checks that it serves; dropped, it is
/// gone.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(config: ServerConfig) -> Self {
        Self::with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// One without TLS.
    pub(crate) async fn plain() -> Self {
        Self::with(None).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, counted) = (tls.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let http = auto::Builder::new(TokioExecutor::new());
                    let Some(tls) = tls else {
                        let answer = service_fn(move |request| answer(request, None, &counted));
                        let _ = http.serve_connection(TokioIo::new(tcp), answer).await;
                        return;
                    };
                    // What goes wrong is the client's to tell.
                    let Ok(tls) = tls.accept(tcp).await else {
                        return;
                    };
                    let sni = tls.get_ref().1.server_name().map(str::to_owned);
                    let answer =
                        service_fn(move |request| answer(request, sni.as_deref(), &counted));
                    let _ = http.serve_connection(TokioIo::new(tls), answer).await;
                });
            }
        });
        Self {
            endpoint,
            requests,
            task,
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answer = UnsyncBoxBody<bytes::Bytes, Infallible>;

fn answer(
    request: Request<Incoming>,
    sni: Option<&str>,
    requests: &AtomicU64,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<> {
    requests.fetch_add(1, Ordering::SeqCst);
    if request.uri().path() == "/grpc.health.v1.Health/Check" {
        return std::future::ready(Ok(serving()));
    }
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().unwrap().to_owned(),
        None => request.uri().authority().unwrap().to_string(),
    };
    let text = format!("sni {}, host {host}", sni.unwrap_or("none"));
    std::future::ready(Ok(Response::new(UnsyncBoxBody::new(Full::from(text)))))
}

/// What a health service answers whose status is `SERVING`.
fn serving() -> Response<Answer> {
    let trailers = async {
        let status = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
        Some(Ok(HeaderMap::from_iter(status)))
    };
    let body = Full::from(&[0, 0, 0, 0, 2, 8, 1][..]).with_trailers(trailers);
    Response::builder()
        .header("content-type", "application/grpc")
        .body(UnsyncBoxBody::new(body))
        .unwrap()
}
