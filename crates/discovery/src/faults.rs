//! What can be wrong with an update.

use std::{fmt, net::SocketAddr};

/// What was wrong with the endpoints of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Named twice, by id or by address.
    pub(crate) duplicates: usize,
    /// Nothing can listen at their address.
    pub(crate) unusable: usize,
    /// One of them, for the log.
    pub(crate) example: Option<(Box<str>, Fault)>,
}

/// What is wrong with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Duplicate,
    PortZero,
    Unspecified,
    Multicast,
}

/// An update cannot be taken in; the table is as it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    TooMany { named: usize, most: usize },
    Unknown,
}

impl Faults {
    pub(crate) fn note(&mut self, id: &str, fault: Fault) {
        match fault {
            Fault::Duplicate => self.duplicates += 1,
            _ => self.unusable += 1,
        }
        if self.example.is_none() {
            // An id can be long; this much recognises it.
            let id = id.chars().take(60).collect::<String>();
            self.example = Some((id.into(), fault));
        }
    }
}

/// Why nothing can listen at `address`, if so.
pub(crate) fn unusable(address: SocketAddr) -> Option<Fault> {
    // An IPv4 address in IPv6 clothes is judged as what it is.
    let ip = address.ip().to_canonical();
    if address.port() == 0 {
        Some(Fault::PortZero)
    } else if ip.is_unspecified() {
        Some(Fault::Unspecified)
    } else if ip.is_multicast() {
        Some(Fault::Multicast)
    } else {
        None
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "its id or its address is named again later in the update",
            Self::PortZero => "its port is 0",
            Self::Unspecified => "its address is unspecified",
            Self::Multicast => "its address is a multicast address",
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { named, most } => write!(
                f,
                "the update names {named} endpoints, more than the {most} that are allowed (max_endpoints)"
            ),
            Self::Unknown => f.write_str("the update is of a kind that this version does not know"),
        }
    }
}
