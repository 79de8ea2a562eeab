//! Where agents listen.

use std::fmt;

use crate::error::ConsulError;

/// One agent: a host and a port.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: Box<str>,
    port: u16,
    secure: bool,
}

/// Where agents listen unless they are told otherwise; by TLS only if told so, and then there by custom.
const PORT: u16 = 8500;
const SECURE_PORT: u16 = 8501;

impl Address {
    /// Reads `host`, `host:port`, `http://host:port` or `https://host:port`, as in `CONSUL_HTTP_ADDR`.
    pub(crate) fn parse(text: &str) -> Result<Self, ConsulError> {
        // What is refused may hold a password: it is not repeated.
        let refuse = |why: &str| Err(ConsulError::refused(format!("an agent's address {why}")));
        let text = text.trim().trim_end_matches('/');
        if text.starts_with("unix://") {
            return refuse(
                "must begin with http:// or https://: sockets of Unix are not supported",
            );
        }
        let (secure, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        if secure && cfg!(not(feature = "tls")) {
            return refuse(
                "begins with https://: switch on the feature `tls` of tower-mesh-consul",
            );
        }
        if rest.contains(['/', '?', '#', '@', ' ']) || rest.contains("://") {
            return refuse("must be a host and a port, without a path or a password");
        }
        let (host, port) = match split(rest) {
            Some(parts) => parts,
            None => return refuse("is not understood; write it as http://127.0.0.1:8500"),
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(known) {
            return refuse("has no host");
        }
        let default = if secure { SECURE_PORT } else { PORT };
        match port.map_or(Ok(default), str::parse) {
            Ok(port) if port > 0 => Ok(Self {
                host: host.into(),
                port,
                secure,
            }),
            _ => refuse("has a port that is none"),
        }
    }

    /// Whether the agent has to prove who it is.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// The same, by TLS.
    pub(crate) fn secured(&self) -> Self {
        Self {
            secure: true,
            ..self.clone()
        }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// The host, without the brackets of IPv6, and the port if there is one.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            rest => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secure {
            true => write!(f, "https://{self}"),
            false => write!(f, "{self}"),
        }
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_consuls_own_tools_read_them() {
        for (text, address) in [
            ("127.0.0.1:8501", "127.0.0.1:8501"),
            ("http://consul.internal:80/", "consul.internal:80"),
            ("consul", "consul:8500"),
            ("http://[::1]:8500", "[::1]:8500"),
            ("[::1]", "[::1]:8500"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), address);
        }
    }

    #[test]
    fn https_is_tls_or_an_error_and_never_less() {
        let address = Address::parse("https://consul/");
        match cfg!(feature = "tls") {
            true => assert_eq!(format!("{:?}", address.unwrap()), "https://consul:8501"),
            false => assert!(address.unwrap_err().to_string().contains("feature `tls`")),
        }
        assert!(!Address::parse("consul").unwrap().is_secure());
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for text in [
            "",
            "http://",
            "https://",
            "https://http://consul",
            "unix:///run/consul",
            "http://me:secret@consul:8500",
            "consul:0",
            "consul:70000",
            "::1",
            "consul:8500/v1",
            "ftp://consul",
            "a b",
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
