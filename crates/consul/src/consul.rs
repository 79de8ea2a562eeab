//! Consul as its users hold it: where it is, who asks, how long to wait.

mod ask;

#[cfg(feature = "tls")]
use std::sync::OnceLock;
use std::{
    env, fmt,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tower_mesh_core::{Clock, Rng};

#[cfg(feature = "tls")]
use crate::tls::{Secured, Tls};
use crate::{
    address::Address,
    connection::Idle,
    error::ConsulError,
    places::{Follower, Places},
    register::Announcing,
    token::Token,
    turns::{Crowd, Pace},
};

/// Consul's agent, or several of them: a registry ([`Resolve`](tower_mesh_core::Resolve),
/// [`Register`](tower_mesh_core::Register)) and a store ([`KeyValue`](tower_mesh_core::KeyValue)).
///
/// # Clone
///
/// Clones share their connections, and which agent is in use.
#[derive(Clone)]
pub struct Consul {
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) wait: Duration,
    pub(crate) max_stale: Duration,
    pub(crate) max_endpoints: usize,
    max_pause: Duration,
    max_rate: NonZeroU32,
    pub(crate) places: Places,
    pub(crate) announcing: Announcing,
    pub(crate) lock_delay: Duration,
    datacenter: Option<Box<str>>,
    namespace: Option<Box<str>>,
    token: Token,
    max_answer: usize,
    agents: Arc<Agents>,
    /// Read when it is first needed, unless somebody says what to read.
    #[cfg(feature = "tls")]
    secured: Arc<OnceLock<Secured>>,
}

struct Agents {
    addresses: Vec<Address>,
    /// The one in use.
    current: AtomicUsize,
    idle: Idle,
}

/// Requests a second of those who follow something, if they are many.
const RATE: NonZeroU32 = NonZeroU32::new(20).expect("it is not zero");

impl Consul {
    /// The agent at `address`, such as `http://127.0.0.1:8500`; or several, separated by commas, of which the next is
    /// asked when one does not answer.
    ///
    /// One at `https://` takes the feature `tls`, and has to prove who it is as [`Tls::new`](crate::Tls::new) says, unless
    /// [`tls`](Self::tls) says otherwise. If one of several has to, all have to.
    ///
    /// # Errors
    ///
    /// If it is no address.
    pub fn new(address: &str) -> Result<Self, ConsulError> {
        let addresses = address.split(',').map(Address::parse);
        let agents = Agents::new(addresses.collect::<Result<_, _>>()?);
        Ok(Self {
            clock: Clock::default(),
            rng: Rng::default(),
            wait: Duration::from_secs(300),
            max_stale: Duration::from_secs(60),
            max_endpoints: 100_000,
            max_pause: Duration::from_secs(10),
            max_rate: RATE,
            places: Places::new(128),
            announcing: Announcing::default(),
            lock_delay: Duration::ZERO,
            datacenter: None,
            namespace: None,
            token: Token::default(),
            max_answer: 32 << 20,
            agents: Arc::new(agents),
            #[cfg(feature = "tls")]
            secured: Arc::default(),
        })
    }

    /// What the environment says: `CONSUL_HTTP_ADDR` (`127.0.0.1:8500` if it is not set), `CONSUL_HTTP_TOKEN` or
    /// `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_NAMESPACE`.
    ///
    /// With `CONSUL_HTTP_SSL`, or an address that begins with `https://`, also `CONSUL_CACERT`, `CONSUL_CAPATH`,
    /// `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` and `CONSUL_TLS_SERVER_NAME`. That an agent is believed without proof
    /// (`CONSUL_HTTP_SSL_VERIFY=false`) is refused.
    ///
    /// # Errors
    ///
    /// If a variable cannot be understood, or a file that one names be of no use.
    pub fn from_env() -> Result<Self, ConsulError> {
        Self::from_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`from_env`](Self::from_env), of variables that `variable` looks up: for what goes before the environment.
    ///
    /// # Errors
    ///
    /// As `from_env`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConsulError> {
        let address = variable("CONSUL_HTTP_ADDR");
        let mut consul = Self::new(address.as_deref().unwrap_or("127.0.0.1:8500"))?;
        if consul.is_secure() || variable("CONSUL_HTTP_SSL").is_some_and(|said| !is_off(&said)) {
            consul = consul.secured_by(&variable)?;
        }
        if let Some(file) = variable("CONSUL_HTTP_TOKEN_FILE") {
            consul = consul.token_file(file)?;
        }
        if let Some(token) = variable("CONSUL_HTTP_TOKEN") {
            consul = consul.token(&token)?;
        }
        if let Some(namespace) = variable("CONSUL_NAMESPACE") {
            consul = consul.namespace(&namespace);
        }
        Ok(consul)
    }

    #[cfg(not(feature = "tls"))]
    fn secured_by(self, _: &impl Fn(&str) -> Option<String>) -> Result<Self, ConsulError> {
        Err(ConsulError::refused(
            "CONSUL_HTTP_SSL asks for TLS: switch on the feature `tls` of tower-mesh-consul",
        ))
    }

    #[cfg(feature = "tls")]
    fn secured_by(self, variable: &impl Fn(&str) -> Option<String>) -> Result<Self, ConsulError> {
        if variable("CONSUL_HTTP_SSL_VERIFY").is_some_and(|said| is_off(&said)) {
            return Err(ConsulError::refused(
                "CONSUL_HTTP_SSL_VERIFY=false would let anybody answer in Consul's place: name its authority by CONSUL_CACERT",
            ));
        }
        let mut tls = Tls::new();
        for name in ["CONSUL_CACERT", "CONSUL_CAPATH"] {
            tls = variable(name).into_iter().fold(tls, Tls::authority);
        }
        tls = match (
            variable("CONSUL_CLIENT_CERT"),
            variable("CONSUL_CLIENT_KEY"),
        ) {
            (Some(certificate), Some(key)) => tls.identity(certificate, key),
            (None, None) => tls,
            _ => {
                return Err(ConsulError::refused(
                    "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY go together: one of them is not set",
                ));
            }
        };
        if let Some(name) = variable("CONSUL_TLS_SERVER_NAME") {
            tls = tls.server_name(&name);
        }
        self.tls(tls)
    }

    /// Connects by TLS alone, to agents that prove who they are as `tls` says, whatever their addresses begin with.
    ///
    /// # Errors
    ///
    /// If a file that it names cannot be read or is of no use, or nobody is left to be believed.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Result<Self, ConsulError> {
        self.secured = Arc::new(OnceLock::from(Secured::new(tls)?));
        let addresses = self.agents.addresses.iter().map(Address::secured);
        self.agents = Arc::new(Agents::new(addresses.collect()));
        Ok(self)
    }

    /// Whether agents are connected to by TLS, and by nothing else.
    pub fn is_secure(&self) -> bool {
        self.agents.addresses.iter().any(Address::is_secure)
    }

    /// Sends `token` with each request. It is never printed.
    ///
    /// # Errors
    ///
    /// If it cannot stand in a header.
    pub fn token(mut self, token: &str) -> Result<Self, ConsulError> {
        self.token = Token::value(token)?;
        Ok(self)
    }

    /// Sends the token that `file` holds, which is read again when Consul refuses it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or what it holds cannot stand in a header.
    pub fn token_file(mut self, file: impl Into<PathBuf>) -> Result<Self, ConsulError> {
        self.token = Token::file(file.into())?;
        Ok(self)
    }

    /// Asks another datacentre than the agent's own.
    #[must_use]
    pub fn datacenter(mut self, datacenter: &str) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// Asks within a namespace, where Consul has such.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// How long an agent holds a request that waits for a change; 5 min unless said otherwise, Consul's own default; 1 s
    /// to 10 min, its limit.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.clamp(Duration::from_secs(1), Duration::from_secs(600));
        self
    }

    /// How old an answer of a server without a leader may be before others are asked for a newer one; 60 s unless said
    /// otherwise. If there is none to be had, the old one is used.
    #[must_use]
    pub fn max_stale(mut self, age: Duration) -> Self {
        self.max_stale = age;
        self
    }

    /// How large an answer may be, in bytes; 32 MiB unless said otherwise. A larger one is refused, and what was known
    /// stays.
    #[must_use]
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }

    /// How many endpoints a service may have; 100,000 unless said otherwise. An answer with more is refused, and what
    /// was known stays.
    #[must_use]
    pub fn max_endpoints(mut self, most: usize) -> Self {
        self.max_endpoints = most;
        self
    }

    /// How long at most one who follows something pauses before asking again after an error; 10 s unless said otherwise.
    ///
    /// Pauses begin at a quarter of a second and double, and half of each is chance. They are longer where so many follow
    /// something that they would ask more often than [`max_rate`](Self::max_rate) allows.
    #[must_use]
    pub fn max_pause(mut self, pause: Duration) -> Self {
        self.max_pause = pause.max(Duration::from_millis(10));
        self
    }

    /// How many requests agents hold at a time for those who follow something; 128 unless said otherwise.
    ///
    /// More of them take turns, as long ones as [`max_rate`](Self::max_rate) asks for. An agent closes connections above 200 of one address unless its
    /// `limits.http_max_conns_per_client` says otherwise. What was cloned before keeps its own number.
    #[must_use]
    pub fn max_held(mut self, most: NonZeroUsize) -> Self {
        self.places = Places::new(most.get());
        self
    }

    /// How many requests a second all who follow something send at most while nothing changes, or no agent answers; about
    /// 20 unless said otherwise.
    ///
    /// It matters only to a process that follows more than [`max_held`](Self::max_held), or so many that they fail more
    /// often than this. The price is time: of more services than can be held, each is asked in turn, so that a change may
    /// be heard as late as their number divided by this rate, 50 s for 1,000; and after an outage it may be as long until
    /// all have asked again. First look-ups, and those after a change, do not wait for it.
    #[must_use]
    pub fn max_rate(mut self, per_second: NonZeroU32) -> Self {
        self.max_rate = per_second;
        self
    }

    /// How long a key cannot be had by another lease after its own has ended; zero unless said otherwise, at most 60 s.
    ///
    /// It is time for an owner that does not know yet that it has lost the key. A
    /// [fencing token](tower_mesh_core::kv::FencingToken) needs no such time, and holds for any delay.
    #[must_use]
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay.min(Duration::from_secs(60));
        self
    }

    /// Takes time and timers from `clock`; tokio's unless said otherwise.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes chance from `rng`.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    pub(crate) fn crowd(&self, follower: &Follower) -> Crowd {
        let (following, places) = follower.crowd();
        Crowd {
            following,
            places,
            rate: self.max_rate,
        }
    }

    /// How long `follower` pauses after an error.
    pub(crate) fn pause(&self, pace: &mut Pace, follower: &Follower) -> Duration {
        let longest = self.crowd(follower).pause(self.max_pause);
        pace.failed(longest, &self.rng)
    }
}

impl Agents {
    fn new(mut addresses: Vec<Address>) -> Self {
        // A token that is sent to one in secret must not go to another in the clear.
        if addresses.iter().any(Address::is_secure) {
            addresses = addresses.iter().map(Address::secured).collect();
        }
        Self {
            addresses,
            current: AtomicUsize::new(0),
            idle: Idle::new(),
        }
    }
}

/// A variable that switches something off. What is not understood does not.
fn is_off(said: &str) -> bool {
    ["0", "f", "false", "n", "no", "off"].contains(&&*said.trim().to_ascii_lowercase())
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consul")
            .field("agents", &self.agents.addresses)
            .field("datacenter", &self.datacenter)
            .field("namespace", &self.namespace)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Consul, ConsulError> {
        Consul::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_says_where_consul_is_and_who_asks() {
        let nothing = from(&[]).expect("it may say nothing");
        let nothing = format!("{nothing:?}");
        assert!(nothing.contains("127.0.0.1:8500") && nothing.contains("no token"));

        let all = [
            ("CONSUL_HTTP_ADDR", "http://10.0.0.1:80,10.0.0.2"),
            ("CONSUL_HTTP_TOKEN", "5ec2e7-canary"),
            ("CONSUL_NAMESPACE", "team"),
        ];
        let all = format!("{:?}", from(&all).expect("it is understood"));
        for word in ["10.0.0.1:80, 10.0.0.2:8500", "team", "a token"] {
            assert!(all.contains(word), "{word} is not in {all}");
        }
        assert!(!all.contains("canary"), "{all}");
    }

    #[test]
    fn what_the_environment_asks_for_and_is_not_there_is_an_error_not_ignored() {
        let tls = cfg!(feature = "tls");
        let no_file = ("CONSUL_CACERT", "/no/such/file");
        for asked in [
            ("CONSUL_HTTP_ADDR", "https://consul"),
            ("CONSUL_HTTP_SSL", "true"),
        ] {
            let error = from(&[asked, no_file]).unwrap_err().to_string();
            assert!(
                error.contains(if tls {
                    "/no/such/file"
                } else {
                    "feature `tls`"
                }),
                "{error}"
            );
            let halves = from(&[asked, ("CONSUL_CLIENT_CERT", "/a")]).unwrap_err();
            assert!(
                !tls || halves.to_string().contains("go together"),
                "{halves}"
            );
            let unproven = from(&[asked, ("CONSUL_HTTP_SSL_VERIFY", "FALSE")]).unwrap_err();
            assert!(
                !tls || unproven.to_string().contains("anybody"),
                "{unproven}"
            );
        }
        assert!(from(&[("CONSUL_HTTP_SSL", "false"), no_file]).is_ok());
        assert!(from(&[("CONSUL_HTTP_TOKEN_FILE", "/no/such/file")]).is_err());
    }
}
