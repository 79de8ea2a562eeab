//! The sources and the registry that a configuration asks for.

use std::sync::Arc;

use tower_mesh_core::{Clock, MemoryRegistry, Register, Resolve, Rng};
use tower_mesh_discovery::{Preferred, Static};

use crate::config::{
    ConfigError, ConsulConfig, DiscoveryConfig, DiscoveryKind, DnsConfig, FileConfig,
};

/// Where services are found, and where instances are announced.
pub(crate) struct Sources {
    pub(crate) source: Arc<dyn Resolve>,
    pub(crate) registry: Arc<dyn Register>,
}

impl Sources {
    /// What `config` asks for, with `embedded` as the memory.
    ///
    /// # Errors
    ///
    /// What can be found out only now: a file or a variable of the environment is not what it has to be.
    pub(crate) fn new(
        config: &DiscoveryConfig,
        embedded: &MemoryRegistry,
        clock: &Clock,
        rng: &Rng,
    ) -> Result<Self, ConfigError> {
        let mut registry: Arc<dyn Register> = Arc::new(embedded.clone());
        let mut sources: Vec<Arc<dyn Resolve>> = Vec::new();
        for kind in config.kinds() {
            sources.push(match kind {
                DiscoveryKind::Memory => Arc::new(embedded.clone()),
                DiscoveryKind::Static => Arc::new(fixed(config)),
                DiscoveryKind::File => file(config.file.as_ref(), clock)?,
                DiscoveryKind::Consul => {
                    let both = consul(config.consul.as_ref(), clock, rng)?;
                    registry = both.registry;
                    both.source
                }
                DiscoveryKind::Dns => dns(config.dns.as_ref(), clock, rng)?,
            });
        }
        Ok(Self {
            source: preferred(sources, clock, rng),
            registry,
        })
    }
}

fn preferred(sources: Vec<Arc<dyn Resolve>>, clock: &Clock, rng: &Rng) -> Arc<dyn Resolve> {
    let mut sources = sources.into_iter();
    // The configuration was checked: there is one.
    let best = sources.next().unwrap_or_else(|| Arc::new(Static::new()));
    if sources.len() == 0 {
        return best;
    }
    let preferred = Preferred::new(best).clock(clock.clone()).rng(rng.clone());
    Arc::new(sources.fold(preferred, Preferred::or))
}

fn fixed(config: &DiscoveryConfig) -> Static {
    let services = config.endpoints.iter();
    services.fold(Static::new(), |source, (name, endpoints)| {
        let endpoints = endpoints.iter().map(|endpoint| endpoint.endpoint());
        source.service(name.clone(), endpoints)
    })
}

#[cfg(feature = "file")]
fn file(config: Option<&FileConfig>, clock: &Clock) -> Result<Arc<dyn Resolve>, ConfigError> {
    let Some(config) = config else {
        return Err(ConfigError::at("discovery.file.path", "it is not said"));
    };
    let file = tower_mesh_discovery::File::new(&config.path).clock(clock.clone());
    Ok(Arc::new(match config.every {
        Some(every) => file.every(every),
        None => file,
    }))
}

#[cfg(not(feature = "file"))]
fn file(_: Option<&FileConfig>, _: &Clock) -> Result<Arc<dyn Resolve>, ConfigError> {
    Err(ConfigError::at(
        "discovery.kind",
        "\"file\" is not built in",
    ))
}

#[cfg(feature = "dns")]
fn dns(
    config: Option<&DnsConfig>,
    clock: &Clock,
    rng: &Rng,
) -> Result<Arc<dyn Resolve>, ConfigError> {
    let said = config.cloned().unwrap_or_default();
    let dns = said.source()?;
    Ok(Arc::new(dns.clock(clock.clone()).rng(rng.clone())))
}

#[cfg(not(feature = "dns"))]
fn dns(_: Option<&DnsConfig>, _: &Clock, _: &Rng) -> Result<Arc<dyn Resolve>, ConfigError> {
    Err(ConfigError::at("discovery.kind", "\"dns\" is not built in"))
}

#[cfg(feature = "consul")]
fn consul(config: Option<&ConsulConfig>, clock: &Clock, rng: &Rng) -> Result<Sources, ConfigError> {
    let said = config.cloned().unwrap_or_default();
    let consul = of_variables(&said, |name| std::env::var(name).ok())?;
    let consul = settings(consul, &said)
        .clock(clock.clone())
        .rng(rng.clone());
    Ok(Sources {
        source: Arc::new(consul.clone()),
        registry: Arc::new(consul),
    })
}

#[cfg(not(feature = "consul"))]
fn consul(_: Option<&ConsulConfig>, _: &Clock, _: &Rng) -> Result<Sources, ConfigError> {
    Err(ConfigError::at(
        "discovery.kind",
        "\"consul\" is not built in",
    ))
}

/// What the configuration says goes before the environment.
#[cfg(feature = "consul")]
fn of_variables(
    said: &ConsulConfig,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<tower_mesh_consul::Consul, ConfigError> {
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    if said
        .token_env
        .as_deref()
        .is_some_and(|name| environment(name).is_none())
    {
        // Not its name either: somebody may have taken the key for that of the token.
        let what = "the variable that it names is not set";
        return Err(ConfigError::at("discovery.consul.token_env", what));
    }
    let says_token = said.token_env.is_some() || said.token_file.is_some();
    let variable = |name: &str| match name {
        "CONSUL_HTTP_ADDR" => said.address().or_else(|| environment(name)),
        // All of it from one place: one's key does not fit the other's certificate.
        "CONSUL_CLIENT_CERT" | "CONSUL_CLIENT_KEY" if said.client_key.is_some() => {
            match name.ends_with("KEY") {
                true => said.client_key.clone(),
                false => said.client_certificate.clone(),
            }
        }
        "CONSUL_CACERT" if said.ca.is_some() => said.ca.clone(),
        "CONSUL_CAPATH" if said.ca.is_some() => None,
        "CONSUL_TLS_SERVER_NAME" if said.server_name.is_some() => said.server_name.clone(),
        "CONSUL_HTTP_TOKEN" if says_token => said.token_env.as_deref().and_then(environment),
        "CONSUL_HTTP_TOKEN_FILE" if says_token => said.token_file.clone(),
        "CONSUL_NAMESPACE" => said.namespace.clone().or_else(|| environment(name)),
        _ => environment(name),
    };
    let key = match (&said.token_env, &said.token_file) {
        // It may be about either; it names the file.
        _ if said.of_tls().is_some() => "discovery.consul",
        (Some(_), _) => "discovery.consul.token_env",
        (_, Some(_)) => "discovery.consul.token_file",
        (None, None) => "discovery.consul",
    };
    let consul = tower_mesh_consul::Consul::from_variables(variable)
        .map_err(|error| ConfigError::at(key, error.to_string()))?;
    match said.of_tls() {
        // Who says how to trust an agent would think that it is asked for proof.
        Some(key) if !consul.is_secure() => {
            let what = "no agent is connected to by TLS: write its address as https://…";
            Err(ConfigError::at(&format!("discovery.consul.{key}"), what))
        }
        _ => Ok(consul),
    }
}

#[cfg(feature = "consul")]
fn settings(
    mut consul: tower_mesh_consul::Consul,
    said: &ConsulConfig,
) -> tower_mesh_consul::Consul {
    if let Some(datacenter) = &said.datacenter {
        consul = consul.datacenter(datacenter);
    }
    if let Some(wait) = said.wait {
        consul = consul.wait(wait);
    }
    if let Some(age) = said.max_stale {
        consul = consul.max_stale(age);
    }
    if let Some(most) = said.max_held {
        consul = consul.max_held(most);
    }
    if let Some(rate) = said.max_rate {
        consul = consul.max_rate(rate);
    }
    if let Some(time) = said.forget_after {
        consul = consul.forget_after(time);
    }
    let checks = said.checks.iter().map(|check| check.check());
    checks.fold(consul, tower_mesh_consul::Consul::check)
}

#[cfg(all(test, feature = "consul"))]
mod tests {
    use super::*;
    use crate::Config;

    const CANARY: &str = "5ec2e7-canary";

    fn said(keys: &str) -> ConsulConfig {
        let text = format!("[discovery]\nkind = \"consul\"\n\n[discovery.consul]\n{keys}\n");
        let config = Config::parse(&text).expect("it is valid");
        config.discovery.consul.expect("it is said")
    }

    fn of(keys: &str, environment: &[(&str, &str)]) -> Result<String, ConfigError> {
        let look = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        of_variables(&said(keys), look).map(|consul| format!("{consul:?}"))
    }

    #[test]
    fn what_is_said_goes_before_the_environment_and_the_environment_before_nothing() {
        let environment = [
            ("CONSUL_HTTP_ADDR", "10.0.0.9"),
            ("CONSUL_HTTP_TOKEN", CANARY),
            ("CONSUL_NAMESPACE", "theirs"),
        ];
        let nothing = of("", &[]).unwrap();
        assert!(nothing.contains("127.0.0.1:8500") && nothing.contains("no token"));
        let theirs = of("", &environment).unwrap();
        for word in ["10.0.0.9:8500", "a token", "theirs"] {
            assert!(
                theirs.contains(word) && !theirs.contains("no token"),
                "{theirs}"
            );
        }
        let keys = "address = [\"10.0.0.1\", \"10.0.0.2:1\"]\nnamespace = \"ours\"";
        let ours = of(keys, &environment).unwrap();
        for word in ["10.0.0.1:8500, 10.0.0.2:1", "ours", "a token"] {
            assert!(ours.contains(word), "{ours}");
        }
        // An empty variable says nothing.
        assert!(
            of("", &[("CONSUL_HTTP_TOKEN", "")])
                .unwrap()
                .contains("no token")
        );
    }

    #[test]
    fn what_is_said_of_trust_holds_or_is_an_error() {
        let plain = of("ca = \"ca.pem\"", &[]).unwrap_err();
        assert_eq!(plain.key(), "discovery.consul.ca");
        let half = "[discovery]\nkind = \"consul\"\nconsul.client_key = \"a\"";
        let half = Config::parse(half).unwrap_err();
        assert_eq!(half.key(), "discovery.consul.client_key");
        // Whoever asked for TLS in the environment gets no less for an address that is said here.
        let ssl = [("CONSUL_HTTP_SSL", "true"), ("CONSUL_CACERT", "/theirs")];
        let error = of("address = \"10.0.0.1\"", &ssl).unwrap_err();
        let says = if cfg!(feature = "tls") {
            "/theirs"
        } else {
            "feature `tls`"
        };
        assert!(error.to_string().contains(says), "{error}");
        if cfg!(feature = "tls") {
            // A file that can be read, whatever it holds.
            let there = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
            for (keys, says) in [
                ("ca = \"/ours\"".to_owned(), "/ours cannot be read"),
                (format!("ca = {there:?}"), "no certificate"),
                (
                    "client_certificate = \"/a\"\nclient_key = \"/b\"".to_owned(),
                    "/a cannot",
                ),
                (
                    format!("client_certificate = {there:?}\nclient_key = \"/b\""),
                    "/b cannot",
                ),
                ("server_name = \"a b\"".to_owned(), "for that host"),
            ] {
                let error = of(&keys, &ssl[..1]).unwrap_err();
                assert!(error.to_string().contains(says), "{error}");
            }
        }
    }

    #[test]
    fn checks_that_make_no_sense_are_refused() {
        let parse = |checks: &str| {
            let text = format!("[discovery]\nkind = \"consul\"\nconsul.checks = [{checks}]");
            Config::parse(&text)
        };
        for good in [
            "{ kind = \"http\", path = \"/healthz\", every = \"1s\", limit = \"100ms\" }",
            "{ kind = \"tcp\" }, { kind = \"grpc\" }, { kind = \"grpc\", service = \"a.B\" }",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "{ kind = \"http\" }",
            "{ kind = \"http\", path = \"healthz\" }",
            "{ kind = \"tcp\", path = \"/healthz\" }",
            "{ kind = \"tcp\", path = \"healthz\" }",
            "{ kind = \"tcp\", service = \"a.B\" }",
            "{ kind = \"ttl\" }",
            "{ kind = \"tcp\", every = \"0s\" }",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_comes_from_where_it_is_said_to_and_is_never_told() {
        let set = [("SECRET", CANARY)];
        let consul = of("token_env = \"SECRET\"", &set).unwrap();
        assert!(
            consul.contains("a token") && !consul.contains(CANARY),
            "{consul}"
        );
        // The token where its variable's name belongs, a token that is none, a file that is not there.
        let refused = [
            of(&format!("token_env = {CANARY:?}"), &set).unwrap_err(),
            of("token_env = \"SECRET\"", &[("SECRET", "5ec2e7-canary\n")]).unwrap_err(),
            of("token_file = \"/no/such/file\"", &set).unwrap_err(),
        ];
        for (error, key) in refused.iter().zip(["token_env", "token_env", "token_file"]) {
            assert_eq!(error.key(), format!("discovery.consul.{key}"));
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
        // The environment's own token is not sent in place of one that was asked for.
        let error = of("token_env = \"SECRET\"", &[("CONSUL_HTTP_TOKEN", CANARY)]);
        assert!(error.is_err());
    }
}
