//! One look-up: all questions that lead from a service to its endpoints.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType, rdata::SRV};
use tower_mesh_core::{BoxError, Clock};

use crate::{
    ask::Servers,
    dns::Family,
    endpoints::{self, Named, Target},
};

/// Targets that are asked for at a time.
const AT_ONCE: usize = 8;

/// Who looks up, and what for.
pub(crate) struct LookUp<'a> {
    pub(crate) servers: &'a Servers,
    pub(crate) clock: &'a Clock,
    pub(crate) family: Family,
    pub(crate) most: usize,
}

/// What has been found.
#[derive(Debug)]
pub(crate) struct Found {
    /// None if there is no such name.
    pub(crate) named: Option<Named>,
    /// The shortest of all that was used, in seconds.
    pub(crate) ttl: u32,
}

/// Addresses of a name.
struct Addresses {
    all: Vec<IpAddr>,
    ttl: u32,
    absent: bool,
}

impl LookUp<'_> {
    /// The endpoints of a name with addresses.
    pub(crate) async fn addresses(&self, name: &Name, port: u16) -> Result<Found, BoxError> {
        let found = self.addresses_of(name).await?;
        self.bounded(found.all.len())?;
        let named = (!found.absent).then(|| endpoints::of_addresses(found.all, port));
        Ok(Found {
            named,
            ttl: found.ttl,
        })
    }

    /// The endpoints of a name with SRV records.
    pub(crate) async fn srv(&self, name: &Name) -> Result<Found, BoxError> {
        let answer = self.servers.ask(name, RecordType::SRV, self.clock).await?;
        let mut ttl = answer.ttl;
        if answer.absent {
            return Ok(Found { named: None, ttl });
        }
        let records: Vec<_> = answer.records.iter().filter_map(available).collect();
        self.bounded(records.len())?;
        let mut known = self.in_addition(&answer.additional, &records);
        let missing: HashSet<_> = records.iter().map(|srv| &srv.target).collect();
        let missing = missing
            .into_iter()
            .filter(|name| !known.contains_key(*name));
        let missing: Vec<_> = missing.cloned().collect();
        let asked = stream::iter(missing).map(|name| async move {
            let addresses = self.addresses_of(&name).await?;
            Ok::<_, BoxError>((name, addresses))
        });
        // The first that fails fails all: a part of the endpoints would look as if the others were gone.
        let mut asked = asked.buffer_unordered(AT_ONCE);
        let mut count = 0;
        while let Some((name, addresses)) = asked.try_next().await? {
            count += addresses.all.len();
            self.bounded(count)?;
            known.insert(name, addresses);
        }
        let mut targets = Vec::with_capacity(records.len());
        let mut count = 0;
        for srv in records {
            let addresses = &known[&srv.target];
            ttl = ttl.min(addresses.ttl);
            count += addresses.all.len();
            self.bounded(count)?;
            targets.push(Target {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                addresses: addresses.all.clone(),
            });
        }
        let named = Some(endpoints::of_targets(targets));
        Ok(Found { named, ttl })
    }

    async fn addresses_of(&self, name: &Name) -> Result<Addresses, BoxError> {
        let mut found = Addresses {
            all: Vec::new(),
            ttl: u32::MAX,
            absent: false,
        };
        for kind in self.family.types() {
            if self.family == Family::V4First && !found.all.is_empty() {
                break;
            }
            let answer = self.servers.ask(name, *kind, self.clock).await?;
            found.all.extend(answer.records.iter().filter_map(ip));
            found.ttl = found.ttl.min(answer.ttl);
            found.absent = answer.absent;
            // It is said of the name, whatever the type.
            if answer.absent {
                break;
            }
        }
        Ok(found)
    }

    /// The targets whose addresses came along, all that are wanted.
    fn in_addition(&self, records: &[Record], wanted: &[&SRV]) -> HashMap<Name, Addresses> {
        let wanted: HashSet<_> = wanted.iter().map(|srv| &srv.target).collect();
        let mut known: HashMap<Name, Addresses> = HashMap::new();
        for record in records {
            if let Some(ip) = ip(&record.data).filter(|_| wanted.contains(&record.name)) {
                let entry = known.entry(record.name.clone());
                let entry = entry.or_insert_with(|| Addresses {
                    all: Vec::new(),
                    ttl: u32::MAX,
                    absent: false,
                });
                entry.all.push(ip);
                entry.ttl = entry.ttl.min(record.ttl);
            }
        }
        known.retain(|_, addresses| self.family.keep(&mut addresses.all));
        known
    }

    fn bounded(&self, endpoints: usize) -> Result<(), BoxError> {
        if endpoints <= self.most {
            return Ok(());
        }
        let most = self.most;
        Err(format!("the answers name more than the {most} endpoints that are allowed").into())
    }
}

/// A target of "." says that there is no such service here (RFC 2782).
fn available(data: &RData) -> Option<&SRV> {
    match data {
        RData::SRV(srv) => Some(srv).filter(|srv| !srv.target.is_root()),
        _ => None,
    }
}

fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

impl Family {
    fn types(self) -> &'static [RecordType] {
        match self {
            Self::V4First | Self::Both => &[RecordType::A, RecordType::AAAA],
            Self::V4 => &[RecordType::A],
            Self::V6 => &[RecordType::AAAA],
        }
    }

    /// Leaves the addresses that are wanted; false if they may not be all of them.
    fn keep(self, all: &mut Vec<IpAddr>) -> bool {
        let (v4, v6) = (
            all.iter().any(IpAddr::is_ipv4),
            all.iter().any(IpAddr::is_ipv6),
        );
        match self {
            Self::V4First | Self::V4 => all.retain(IpAddr::is_ipv4),
            Self::V6 => all.retain(IpAddr::is_ipv6),
            Self::Both => {}
        }
        match self {
            Self::V4First | Self::V4 => v4,
            Self::V6 => v6,
            Self::Both => v4 && v6,
        }
    }
}
