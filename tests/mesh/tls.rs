//! Services that are called over TLS, by what a configuration says.

use http_body_util::BodyExt;
use tower_mesh::{Config, Endpoint, Mesh, StartError, http::Tls};

use crate::{
    support::{dead_endpoint, until},
    tls_servers::{Authority, Server},
};

/// A directory with the files of an authority, and a configuration that names them.
struct Files {
    directory: tempfile::TempDir,
    ca: Authority,
}

impl Files {
    fn new() -> Self {
        let (directory, ca) = (tempfile::tempdir().unwrap(), Authority::new());
        let (chain, key) = ca.client("storefront");
        for (name, text) in [("ca.pem", ca.pem()), ("chain.pem", chain), ("key.pem", key)] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self { directory, ca }
    }

    fn config(&self, endpoints: &[&Endpoint], more: &str) -> String {
        let addresses = endpoints.iter().map(|endpoint| endpoint.address());
        let addresses: Vec<_> = addresses
            .map(|address| format!("{{ address = \"{address}\" }}"))
            .collect();
        format!(
            "service = \"shop\"\n[discovery]\nkind = \"static\"\n[discovery.endpoints]\norders = [{}]\n{}",
            addresses.join(", "),
            more.replace("DIR", &self.directory.path().display().to_string())
        )
    }

    async fn start(&self, endpoints: &[&Endpoint], more: &str) -> Mesh {
        let config = Config::parse(&self.config(endpoints, more)).unwrap();
        let mesh = Mesh::builder("shop").config(config);
        mesh.start().await.unwrap()
    }

    /// What a file says that cannot be put in force.
    async fn refused(&self, more: &str) -> String {
        let file = self.directory.path().join("mesh.toml");
        std::fs::write(&file, self.config(&[], more)).unwrap();
        let error: StartError = Mesh::from_file(&file).start().await.unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    }
}

const CA: &str = "[defaults.tls]\nca = \"DIR/ca.pem\"\n";

#[tokio::test]
async fn a_section_of_the_configuration_is_all_it_takes_and_no_certificate_of_another_service_will_do()
 {
    let files = Files::new();
    let good = Server::start(files.ca.server("orders")).await;
    let users = Server::start(files.ca.server("users")).await;
    for other in [users, Server::plain().await] {
        let mesh = files.start(&[&good.endpoint, &other.endpoint], CA).await;
        let orders = mesh.service("orders").unwrap();
        for _ in 0..20 {
            let answer = orders.get("/").await.unwrap();
            let told = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(told.starts_with(b"sni orders, host orders:"), "{told:?}");
        }
        assert_eq!(other.requests(), 0);
        let status = mesh.status();
        assert!(status.services[0].retries.made > 0, "{status}");
    }
}

#[tokio::test]
async fn an_endpoint_is_checked_over_tls_as_it_is_called() {
    let files = Files::new();
    let good = Server::start(files.ca.server("orders")).await;
    let users = Server::start(files.ca.server("users")).await;
    for check in ["check = \"http\"\npath = \"/healthz\"", "check = \"grpc\""] {
        let more = format!("{CA}[defaults.health]\n{check}\ninterval = \"5ms\"\n");
        let endpoints = [&good.endpoint, &users.endpoint];
        let mesh = files.start(&endpoints, &more).await;
        let _orders = mesh.service("orders").unwrap();
        let found = |endpoint: &Endpoint| {
            let address = endpoint.address().to_string();
            let mut endpoints = mesh.status().services.remove(0).endpoints.into_iter();
            endpoints.find(|found| found.address == address)?.check
        };
        until("each is found to be what it is", || {
            let states = endpoints.map(|endpoint| found(endpoint).map(|check| check.state));
            states == [Some("healthy"), Some("unhealthy")]
        })
        .await;
        let says = found(&users.endpoint).unwrap().last_error.unwrap();
        assert!(says.contains("no TLS with orders"), "{says}");
    }
    assert_eq!(users.requests(), 0);
}

#[tokio::test]
async fn who_has_no_endpoint_that_proves_its_name_is_told_why() {
    let files = Files::new();
    let users = Server::start(files.ca.server("users")).await;
    let mesh = files.start(&[&users.endpoint], CA).await;
    let error = mesh.service("orders").unwrap().get("/").await.unwrap_err();
    let chain = chain(&error);
    assert!(chain.contains("not valid for name \"orders\""), "{chain}");
    assert!(!error.maybe_sent(), "{chain}");
}

#[tokio::test]
async fn a_service_may_prove_another_name_be_shown_a_certificate_or_be_left_in_plain() {
    let files = Files::new();
    let asking = Server::start(files.ca.server_asking("orders.internal")).await;
    let more = format!(
        "{CA}certificate = \"DIR/chain.pem\"\nkey = \"DIR/key.pem\"\n\
         [services.orders.tls]\nname = \"orders.internal\"\n"
    );
    let mesh = files.start(&[&asking.endpoint], &more).await;
    mesh.service("orders").unwrap().get("/").await.unwrap();

    let plain = Server::plain().await;
    let more = format!("{CA}[services.orders.tls]\nenabled = false\n");
    let mesh = files.start(&[&plain.endpoint], &more).await;
    mesh.service("orders").unwrap().get("/").await.unwrap();
    assert_eq!(plain.requests(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_starts_with_key_and_line() {
    let files = Files::new();
    for (more, says) in [
        (
            "[defaults.tls]\nca = \"DIR/none.pem\"",
            "line 7, `defaults.tls.ca`: cannot read",
        ),
        (
            "[defaults.tls]\nca = \"DIR/key.pem\"",
            "line 7, `defaults.tls.ca`: there is no certificate",
        ),
        (
            "[defaults.tls]\nname = \"x\"",
            "line 7, `defaults.tls.name`: services have a name each",
        ),
        (
            "[services.orders.tls]\nca = \"DIR/ca.pem\"\ncertificate = \"DIR/chain.pem\"",
            "`services.orders.tls.key`: the certificate's key is missing",
        ),
        (
            "[services.orders.tls]\ninsecure = true",
            "`insecure` does not exist",
        ),
    ] {
        let refused = files.refused(more).await;
        assert!(refused.contains(says), "{refused}");
        assert!(!refused.contains("PRIVATE"), "{refused}");
    }
}

#[tokio::test]
async fn a_mesh_that_runs_does_not_go_back_to_plain_text_and_nor_does_a_client_of_ones_own() {
    let files = Files::new();
    let dead = dead_endpoint().await;
    let mesh = files.start(&[&dead], CA).await;
    let other = Config::parse(&files.config(&[&dead], "")).unwrap();
    let error = mesh.reload(&other).unwrap_err();
    assert_eq!(error.key(), "tls");
    assert!(error.to_string().contains("start a new one"), "{error}");
    let error = mesh.layer("orders").unwrap_err();
    assert!(error.to_string().contains("enabled = false"), "{error}");
}

#[tokio::test]
async fn a_service_whose_name_nobody_can_prove_is_no_service_to_call() {
    let files = Files::new();
    let mesh = files.start(&[], CA).await;
    let error = mesh.service("10.0.0.7").unwrap_err();
    assert!(error.to_string().contains("a name of DNS"), "{error}");
}

#[tokio::test]
async fn a_host_outside_the_mesh_is_called_over_https_if_who_is_trusted_has_signed_its_name() {
    let (ours, theirs) = (Authority::new(), Authority::called("theirs"));
    let outside = Server::start(ours.server("localhost")).await;
    let port = outside.endpoint.address().port();
    let (name, address) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    let trusting = |authority: &Authority| Tls::trusting(authority.pem().as_bytes()).unwrap();
    let mesh = Mesh::builder("shop").start().await.unwrap();
    let passing = mesh.client().pass_through([&*name, &*address]);
    let client = passing.clone().trusting(&trusting(&ours));
    for _ in 0..2 {
        let answer = client.get(&format!("https://{name}/")).await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        let told = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(told, format!("sni localhost, host {name}"));
    }
    for (client, host, says) in [
        (
            passing.clone().trusting(&trusting(&theirs)),
            &name,
            "UnknownIssuer",
        ),
        (client, &address, "a name of DNS"),
        (passing, &name, "nobody was said to be trusted for https"),
    ] {
        let error = client.get(&format!("https://{host}/")).await.unwrap_err();
        let told = chain(&error);
        assert!(told.contains(says), "{told}");
    }
    assert_eq!(outside.requests(), 2);
}

fn chain(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(|error| format!("{error}\n")).collect()
}
