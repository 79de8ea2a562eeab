//! Who is ejected, for a person, a dashboard, or the next start.

use std::{net::SocketAddr, time::Duration};

use tower_mesh_core::{Endpoint, Instant, ServiceName};

use crate::outlier::{judge::Sentence, rules::EjectionReason};

/// How ejection stands with one service, of one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutlierSnapshot {
    /// The service.
    pub service: ServiceName,
    /// When the snapshot was taken, by the injected clock.
    pub taken: Instant,
    /// How many endpoints there are, without those that drain or were taken out on purpose.
    pub endpoints: usize,
    /// How many of them are out: ejected, unhealthy, or with a breaker that is open or on probation.
    pub out: usize,
    /// How many of them may be out for an ejection to be made.
    pub most_out: usize,
    /// When endpoints were last compared.
    pub evaluated: Option<Instant>,
    /// Who is ejected, in discovery's order.
    pub ejected: Vec<Ejection>,
    /// How many ejections there have been.
    pub ejections: u64,
    /// How many more there would have been if it were not for the bounds, or if fewer had failed at once.
    pub withheld: u64,
}

/// An endpoint that is ejected.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ejection {
    /// The endpoint's id.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Why.
    pub reason: EjectionReason,
    /// Since when.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
    /// How often in a row, this time included.
    pub times: u32,
}

impl Ejection {
    pub(crate) fn new(endpoint: &Endpoint, sentence: Sentence) -> Self {
        Self {
            id: endpoint.id().to_owned(),
            address: endpoint.address(),
            reason: sentence.reason,
            since: sentence.since,
            until: sentence.until,
            times: sentence.times,
        }
    }
}

impl OutlierSnapshot {
    /// The ejections, to be kept over a restart: see [`Outliers::restore`](crate::Outliers::restore).
    pub fn saved(&self) -> Vec<SavedEjection> {
        let save = |ejection: &Ejection| SavedEjection {
            id: ejection.id.clone(),
            address: ejection.address,
            remaining: ejection.until.since(self.taken),
            times: ejection.times,
        };
        self.ejected.iter().map(save).collect()
    }
}

/// An ejection as it is kept over a restart: plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedEjection {
    /// The endpoint's id.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How much of its time was left when it was saved.
    pub remaining: Duration,
    /// How often it had been ejected in a row.
    pub times: u32,
}
