//! Which records name the endpoints of a service.

use std::fmt;

use hickory_resolver::proto::rr::Name;
use tower_mesh_core::ServiceName;

use crate::error::DnsError;

/// Which records name the endpoints of a service: a name, in which `{service}` stands for that of the service, and their
/// type.
///
/// A name is always a whole one, with a dot at its end or without: search domains are not tried.
///
/// # Example
///
/// ```
/// use tower_mesh_dns::Records;
///
/// # fn main() -> Result<(), tower_mesh_dns::DnsError> {
/// let consul = Records::srv("{service}.service.consul")?;
/// let kubernetes = Records::srv("_http._tcp.{service}.default.svc.cluster.local")?;
/// let plain = Records::addresses("{service}.internal", 8080)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Records {
    name: Box<str>,
    /// Of addresses; SRV records say it themselves.
    port: Option<u16>,
}

/// What stands for the name of the service.
const PLACE: &str = "{service}";

impl Records {
    /// The SRV records of `name`, and the addresses of their targets.
    ///
    /// # Errors
    ///
    /// If it is no name of DNS, whatever the service.
    pub fn srv(name: &str) -> Result<Self, DnsError> {
        Self::new(name, None)
    }

    /// The A and AAAA records of `name`, all with this port.
    ///
    /// # Errors
    ///
    /// As [`srv`](Self::srv), and if the port is zero.
    pub fn addresses(name: &str, port: u16) -> Result<Self, DnsError> {
        if port == 0 {
            return Err(DnsError::new("zero is no port that anybody listens on"));
        }
        Self::new(name, Some(port))
    }

    fn new(name: &str, port: Option<u16>) -> Result<Self, DnsError> {
        if name.replace(PLACE, "").contains(['{', '}']) {
            let message = format!("{name:?} has braces that are not those of {PLACE:?}");
            return Err(DnsError::new(message));
        }
        let this = Self {
            name: name.into(),
            port,
        };
        this.text_to_name("service").map(|_| this)
    }

    /// Whether each service has records of its own.
    pub fn depends_on_service(&self) -> bool {
        self.name.contains(PLACE)
    }

    /// The port of addresses; none if records say it.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(crate) fn name_of(&self, service: &ServiceName) -> Result<Name, DnsError> {
        self.text_to_name(service.as_str())
    }

    fn text_to_name(&self, service: &str) -> Result<Name, DnsError> {
        let text = self.name.replace(PLACE, service);
        let refuse = || DnsError::new(format!("{text:?} is no name of DNS"));
        let mut name = Name::from_utf8(&text).map_err(|error| refuse().caused_by(error))?;
        name.set_fqdn(true);
        match name.is_root() {
            true => Err(refuse()),
            false => Ok(name),
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "SRV {}", self.name),
            Some(port) => write!(f, "A and AAAA {}, port {port}", self.name),
        }
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_service_stands_in_its_place_and_the_whole_is_never_searched_for() {
        let name = |text: &str| {
            let records = Records::srv(text).unwrap();
            let name = records.name_of(&ServiceName::new("orders").unwrap());
            let name = name.unwrap();
            assert!(name.is_fqdn());
            name.to_string()
        };
        assert_eq!(name("{service}.service.consul"), "orders.service.consul.");
        assert_eq!(name("_{service}._tcp.example."), "_orders._tcp.example.");
        assert_eq!(name("orders"), "orders.");
    }

    #[test]
    fn what_is_no_name_is_refused_before_anything_is_asked() {
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", "{name}.example", "{service", "a b", &long] {
            assert!(Records::srv(bad).is_err(), "{bad:?}");
        }
        assert!(Records::addresses("a.example", 0).is_err());
    }

    #[test]
    fn a_service_whose_name_is_too_long_for_dns_is_refused() {
        let records = Records::srv("{service}.example").unwrap();
        let service = ServiceName::new(&"a".repeat(64)).unwrap();
        let error = records.name_of(&service).unwrap_err();
        assert!(error.to_string().contains("is no name of DNS"), "{error}");
    }
}
