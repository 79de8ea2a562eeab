//! What the authority of a URI names.

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use tower_mesh_core::ServiceName;

/// The service that `uri` names, or in words why it names none and what to do.
pub(crate) fn service(uri: &Uri) -> Result<ServiceName, String> {
    let scheme = scheme(uri)?;
    let Some(authority) = uri.authority() else {
        return Err(
            "the request names no service: its URI has to begin with http://SERVICE/".into(),
        );
    };
    if has_credentials(authority) {
        // Without the text: there is a secret in it.
        return Err("credentials do not belong in a URI: send an `authorization` header".into());
    }
    let host = authority.host();
    let shown: String = host.chars().take(40).collect();
    let port = port(authority);
    if is_address(host) {
        return Err(format!(
            "{shown:?} is an address, not a service: name the service, or let this host pass through"
        ));
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!(
            "{shown:?} is not in lower case: services are called by URI in lower case, others by `Mesh::service`"
        ));
    }
    let name = ServiceName::new(host).map_err(|error| error.to_string())?;
    if !port.is_empty() && port != default_port(scheme) {
        return Err(format!(
            "{shown:?} is named with a port: leave it away, the registry says where endpoints listen; \
             a host that is no service has to be let through"
        ));
    }
    Ok(name)
}

fn scheme(uri: &Uri) -> Result<&Scheme, String> {
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => Ok(scheme),
        Some(_) => Err("only http and https are spoken: write http://SERVICE/".into()),
        None => {
            Err("the request names no service: its URI has to begin with http://SERVICE/".into())
        }
    }
}

fn has_credentials(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

/// What follows the host, colon included.
fn port(authority: &Authority) -> &str {
    authority
        .as_str()
        .strip_prefix(authority.host())
        .unwrap_or_default()
}

fn default_port(scheme: &Scheme) -> &'static str {
    if *scheme == Scheme::HTTPS {
        ":443"
    } else {
        ":80"
    }
}

/// Whether some reader of URIs takes it for an IP address: IPv6 in brackets, or what ends in a number (WHATWG's rule),
/// since `2130706433`, `0x7f.1` and `127.1` are all 127.0.0.1 to `inet_aton`.
fn is_address(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host);
    let last = last.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    host.starts_with('[')
        || !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Hosts that are let through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Vec<Box<str>>);

impl Hosts {
    pub(crate) fn new<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Self {
        Self(hosts.into_iter().map(Into::into).collect())
    }

    /// Whether `uri` may go there.
    pub(crate) fn have(&self, uri: &Uri) -> bool {
        let (Ok(scheme), Some(authority)) = (scheme(uri), uri.authority()) else {
            return false;
        };
        if has_credentials(authority) {
            return false;
        }
        let (host, port) = (authority.host(), port(authority));
        let default = port.is_empty() || port == default_port(scheme);
        self.0.iter().any(|said| match said.strip_prefix('*') {
            // Never a host itself, though there are URIs whose host is a star.
            Some(domain) => default && is_beneath(host, domain),
            None => {
                said.eq_ignore_ascii_case(authority.as_str())
                    || default && said.eq_ignore_ascii_case(host)
            }
        })
    }
}

/// Whether `host` is a name that ends with `domain`, or any with a dot in it if that is empty. An address never is.
fn is_beneath(host: &str, domain: &str) -> bool {
    let ends = host
        .len()
        .checked_sub(domain.len())
        .and_then(|at| host.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(domain));
    let dotted = domain.starts_with('.') || domain.is_empty() && host.contains('.');
    !is_address(host) && ends && dotted && host.len() > domain.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(uri: &str) -> Result<String, String> {
        service(&uri.parse().map_err(|_| "no URI")?).map(|name| name.as_str().to_owned())
    }

    // row 11
    #[test]
    fn a_service_is_named_exactly_and_all_that_is_not_one_is_told_what_to_do() {
        for uri in [
            "http://orders/v1",
            "http://orders:80/",
            "https://orders:443",
            "http://orders",
        ] {
            assert_eq!(named(uri).unwrap(), "orders", "{uri}");
        }
        assert_eq!(named("http://orders.v2_eu-1/").unwrap(), "orders.v2_eu-1");
        for (uri, says) in [
            ("/v1/items", "http://SERVICE/"),
            ("*", "http://SERVICE/"),
            ("orders:80", "http://SERVICE/"),
            ("ftp://orders/", "only http and https"),
            ("http://user:secret@orders/", "`authorization` header"),
            ("http://orders@10.0.0.7/", "`authorization` header"),
            ("http://10.0.0.7/", "an address"),
            ("http://169.254.169.254/latest/meta-data", "an address"),
            ("http://[::1]/", "an address"),
            ("http://[::ffff:10.0.0.7]:80/", "an address"),
            ("http://2130706433/", "an address"),
            ("http://127.1/", "an address"),
            ("http://0x7f.1/", "an address"),
            ("http://0x7f000001/", "an address"),
            ("http://10.0.0.7./", "an address"),
            ("http://orders:8080/", "leave it away"),
            ("http://orders:443/", "leave it away"),
            ("https://orders:80/", "leave it away"),
            ("http://orders:/", "leave it away"),
            ("http://orders:080/", "leave it away"),
            ("http://Orders/", "lower case"),
            ("http://orders./", "a part between dots is empty"),
            ("http://.orders/", "a part between dots is empty"),
            ("http://-orders/", "must start with"),
            ("http://_orders/", "must start with"),
            ("http://or~ders/", "is not allowed"),
            ("http://or!ders/", "is not allowed"),
        ] {
            let why = named(uri).unwrap_err();
            assert!(why.contains(says), "{uri}: {why}");
            assert!(!why.contains("secret"), "{why}");
            assert!(why.len() < 300, "{why}");
        }
        for no_uri in [
            "http://o%72ders/",
            "http://\u{43e}rders/",
            "http://or ders/",
            "http://a\r\nb/",
            "http:///",
        ] {
            let why = named(no_uri).unwrap_err();
            assert!(
                why == "no URI" || why.contains("is not allowed"),
                "{no_uri}: {why}"
            );
        }
        let long = format!("http://{}/", "a".repeat(300));
        assert!(named(&long).unwrap_err().len() < 300);
    }

    #[test]
    fn only_hosts_that_were_named_pass_and_no_address_beneath_a_star() {
        let have =
            |said: &[&str], uri: &str| Hosts::new(said.iter().copied()).have(&uri.parse().unwrap());
        assert!(have(&["api.example.com"], "http://api.example.com/a"));
        assert!(have(&["api.example.com"], "https://API.example.com:443/a"));
        assert!(have(
            &["api.example.com:8443"],
            "https://api.example.com:8443/a"
        ));
        assert!(have(&["*.example.com"], "http://a.b.example.com/"));
        assert!(have(&["*"], "http://example.com/"));
        assert!(have(&["10.0.0.7", "[::1]:80"], "http://10.0.0.7/"));
        assert!(have(&["10.0.0.7", "[::1]:80"], "http://[::1]:80/"));
        for (said, uri) in [
            ("api.example.com", "http://api.example.com:8080/"),
            ("api.example.com", "http://example.com/"),
            ("api.example.com", "http://api.example.com.evil.org/"),
            ("api.example.com", "http://api.example.com@evil.org/"),
            ("api.example.com", "http://u:p@api.example.com/"),
            ("api.example.com", "ftp://api.example.com/"),
            ("*.example.com", "http://example.com/"),
            ("*.example.com", "http://.example.com/"),
            ("*.example.com", "http://evilexample.com/"),
            ("*example.com", "http://evilexample.com/"),
            ("*", "http://orders/"),
            ("*", "http://*/"),
            ("*", "http://169.254.169.254/"),
            ("*", "http://[::1]/"),
            ("*", "http://127.1/"),
            ("*", "/a"),
        ] {
            assert!(!have(&[said], uri), "{said} {uri}");
        }
    }
}
