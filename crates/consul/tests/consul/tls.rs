//! TLS with real agents: who is believed, and what is said of who is not.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;
use tower_mesh_consul::{Consul, ConsulError, Distrust, ErrorKind, Tls};
use tower_mesh_core::{Health, Key, KeyValue, Register};

use crate::{
    agent::Agent,
    scene::{Seen, chain, instance, orders},
};

/// An authority, and the files of those whom it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        Self::named("Consul Agent CA")
    }

    fn named(name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { issuer, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Signs one for `names`, and writes `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn of(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let this = Self::new();
        this.sign("agent", names, change);
        this
    }

    fn believed(&self) -> Tls {
        Tls::new().authority(self.file("ca.pem"))
    }

    fn client(&self) -> Tls {
        self.believed()
            .identity(self.file("client.pem"), self.file("client.key"))
    }

    async fn agent(&self, more: &str) -> Agent {
        let [ca, certificate, key] =
            ["ca.pem", "agent.pem", "agent.key"].map(|name| self.file(name));
        let config =
            format!("ca_file = {ca:?}\ncert_file = {certificate:?}\nkey_file = {key:?}\n{more}");
        Agent::with(&config).await
    }
}

const HERE: &[&str] = &["127.0.0.1"];
/// What an agent is told to ask for a certificate.
const ASKING: &str = "verify_incoming_https = true";

fn consul(agent: &Agent, tls: Tls) -> Consul {
    let address = format!("https://127.0.0.1:{}", agent.https());
    Consul::new(&address).unwrap().tls(tls).unwrap()
}

/// Why the agent, or this process, was not believed; and what is said of it.
async fn distrust(consul: &Consul) -> (Distrust, String) {
    let error = consul.get(&Key::new("a").unwrap()).await.unwrap_err();
    let told = chain(&error);
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<ConsulError>() {
            return match error.kind() {
                ErrorKind::Untrusted(distrust) => (distrust, told),
                other => panic!("{other:?}: {told}"),
            };
        }
        next = cause.source();
    }
    panic!("no reason: {told}");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_that_proves_who_it_is_and_asks_who_we_are_is_used_as_any_other() {
    let authority = Authority::of(HERE, |_| {});
    authority.sign("client", &["client"], |_| {});
    let agent = authority.agent(ASKING).await;
    let consul = consul(&agent, authority.client());
    let mut seen = Seen::start(&consul, &orders());
    assert!(seen.ports().await.is_empty());
    let registration = consul.register(instance(1)).await.unwrap();
    seen.until(&[(1, Health::Passing)]).await;
    registration.deregister().await.unwrap();
    seen.until(&[]).await;
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_with_a_certificate_for_another_name_is_not_believed_unless_that_name_is_expected()
{
    let authority = Authority::of(&["server.dc1.consul"], |_| {});
    let agent = authority.agent("").await;
    let (distrust, told) = distrust(&consul(&agent, authority.believed())).await;
    assert_eq!(distrust, Distrust::Name, "{told}");
    assert!(told.contains("for another name"), "{told}");
    let named = authority.believed().server_name("server.dc1.consul");
    let key = Key::new("a").unwrap();
    consul(&agent, named).put(&key, "1".into()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_certificate_whose_time_is_over_or_has_not_come_is_not_believed() {
    for (change, expected, says) in [
        (
            Box::new(|params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1))
                as Box<dyn FnOnce(&mut CertificateParams)>,
            Distrust::Expired,
            "has expired",
        ),
        (
            Box::new(|params: &mut CertificateParams| {
                params.not_before = date_time_ymd(4000, 1, 1)
            }),
            Distrust::NotYetValid,
            "not valid yet",
        ),
    ] {
        let authority = Authority::of(HERE, change);
        let agent = authority.agent("").await;
        let (distrust, told) = distrust(&consul(&agent, authority.believed())).await;
        assert_eq!(distrust, expected, "{told}");
        assert!(told.contains(says), "{told}");
    }
}

/// Neither by another authority's word, nor by that of those whom the system believes.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_authority_that_is_not_believed_vouches_for_nobody() {
    let authority = Authority::of(HERE, |_| {});
    let agent = authority.agent("").await;
    // One of the same name, as it is when an authority was made anew.
    for name in ["Consul Agent CA", "another"] {
        let other = Authority::named(name);
        let (distrust, told) = distrust(&consul(&agent, other.believed())).await;
        assert_eq!(distrust, Distrust::Authority, "{told}");
        assert!(told.contains("authority that is not believed"), "{told}");
    }
    let system = format!("https://127.0.0.1:{}", agent.https());
    let (key, system) = (Key::new("a").unwrap(), Consul::new(&system).unwrap());
    let told = chain(&system.get(&key).await.unwrap_err());
    // Where the system names nobody, nobody is believed either.
    let says = ["authority that is not believed", "neither the system"];
    assert!(says.iter().any(|says| told.contains(says)), "{told}");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_that_does_not_take_who_we_are_is_told_from_one_that_is_away() {
    let authority = Authority::of(HERE, |_| {});
    let agent = authority.agent(ASKING).await;
    let stranger = Authority::new();
    stranger.sign("client", &["client"], |_| {});
    let unknown = authority
        .believed()
        .identity(stranger.file("client.pem"), stranger.file("client.key"));
    for tls in [authority.believed(), unknown] {
        let (distrust, told) = distrust(&consul(&agent, tls)).await;
        assert_eq!(distrust, Distrust::Client, "{told}");
        assert!(told.contains("wants a client certificate"), "{told}");
    }
}

/// The one that was read before is of no use to the agent by then; that the files are looked at shows in that it works.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn certificates_that_were_exchanged_are_read_within_a_minute_and_broken_ones_are_not_taken() {
    let authority = Authority::of(HERE, |_| {});
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    authority.sign("client", &["client"], expired);
    let agent = authority.agent(ASKING).await;
    let (clock, time) = tower_mesh_core::Clock::manual();
    let consul = consul(&agent, authority.client()).clock(clock);
    let key = Key::new("a").unwrap();
    assert_eq!(distrust(&consul).await.0, Distrust::Client);
    authority.sign("client", &["client"], |_| {});
    assert_eq!(distrust(&consul).await.0, Distrust::Client, "not yet");
    time.advance(std::time::Duration::from_secs(60));
    consul.put(&key, "1".into()).await.unwrap();

    fs::write(authority.file("client.pem"), "half of").unwrap();
    time.advance(std::time::Duration::from_secs(60));
    consul.put(&key, "2".into()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn what_speaks_no_tls_is_told_so_and_gets_no_token() {
    let agent = Agent::start().await;
    let authority = Authority::new();
    let address = format!("https://127.0.0.1:{}", agent.port());
    let consul = Consul::new(&address)
        .unwrap()
        .tls(authority.believed())
        .unwrap();
    let error = consul.get(&Key::new("a").unwrap()).await.unwrap_err();
    assert!(
        chain(&error).contains("does not speak TLS"),
        "{}",
        chain(&error)
    );
}

#[test]
fn files_that_are_no_use_are_told_at_once_and_never_what_they_hold() {
    let authority = Authority::of(HERE, |_| {});
    authority.sign("client", &["client"], |_| {});
    let [ca, pem, key] = ["ca.pem", "client.pem", "client.key"].map(|name| authority.file(name));
    let secret = fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    let believed = || Tls::new().authority(&ca);
    for (tls, says) in [
        (
            Tls::new().authority("/no/such/file"),
            "/no/such/file cannot be read",
        ),
        (Tls::new().authority(&key), "holds no certificate in PEM"),
        (
            believed().identity(&key, &key),
            "holds no certificate in PEM",
        ),
        (
            believed().identity(&pem, &pem),
            "holds no private key in PEM",
        ),
        (
            believed().identity(authority.file("agent.pem"), &key),
            "is not the key of the certificate",
        ),
        (
            believed().identity(&pem, "/no/such/key"),
            "/no/such/key cannot be read",
        ),
        (believed().server_name("a b"), "cannot be for that host"),
    ] {
        let error = Consul::new("https://consul").unwrap().tls(tls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        let told = format!("{} {error:?}", chain(&error));
        assert!(told.contains(says), "{told}");
        assert!(!told.contains(secret), "{told}");
    }
    let all = Consul::new("https://consul").unwrap();
    let all = all.tls(believed().identity(&pem, &key)).unwrap();
    assert!(!format!("{all:?}").contains(secret));
}

#[test]
fn a_directory_of_authorities_is_read_and_tls_holds_for_all_agents() {
    let authority = Authority::new();
    let tls = Tls::new().authority(authority.directory.path());
    let consul = Consul::new("127.0.0.1:1,consul:2").unwrap();
    assert!(!consul.is_secure());
    let consul = consul.tls(tls).unwrap();
    let told = format!("{consul:?}");
    assert!(
        told.contains("https://127.0.0.1:1, https://consul:2"),
        "{told}"
    );
    // One that begins with http:// beside one that does not: the token is sent to neither in the clear.
    let mixed = format!("{:?}", Consul::new("http://a:1,https://b:2").unwrap());
    assert!(mixed.contains("https://a:1, https://b:2"), "{mixed}");
}
