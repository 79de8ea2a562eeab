//! A question to all servers: which records of a type a name has.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_resolver::proto::{
    op::{DnsResponse, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tokio::sync::Semaphore;
use tower_mesh_core::{BoxError, Clock};

use crate::{dns::Transport, exchange};

/// The servers, and how to ask them.
#[derive(Clone)]
pub(crate) struct Servers {
    addresses: Arc<[SocketAddr]>,
    /// The one that has answered last.
    current: Arc<AtomicUsize>,
    pub(crate) transport: Transport,
    pub(crate) limit: Duration,
    /// Questions under way at a time: each holds a socket.
    places: Arc<Semaphore>,
}

/// What servers say of a name and a type.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) records: Vec<RData>,
    /// What may help with them.
    pub(crate) additional: Vec<Record>,
    /// In seconds.
    pub(crate) ttl: u32,
    /// There is no such name, with other types either.
    pub(crate) absent: bool,
}

/// Aliases that lead to aliases: more is a circle.
const MOST_ALIASES: usize = 8;
const PLACES: usize = 64;
/// Of resolv.conf, too: a question has no time for more.
const MOST_SERVERS: usize = 3;

impl Servers {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses: addresses.into(),
            current: Arc::default(),
            transport: Transport::default(),
            limit: Duration::from_secs(5),
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The records of a name, or of the name that it is an alias of.
    pub(crate) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        clock: &Clock,
    ) -> Result<Answer, BoxError> {
        let (mut name, mut ttl) = (name.clone(), u32::MAX);
        for _ in 0..MOST_ALIASES {
            let query = Query::query(name.clone(), kind);
            match read(self.exchange(&query, clock).await?, &query)? {
                Said::Answer(mut answer) => {
                    answer.ttl = answer.ttl.min(ttl);
                    return Ok(answer);
                }
                Said::Alias(of, holds) => (name, ttl) = (of, holds.min(ttl)),
            }
        }
        Err(circle(&name))
    }

    /// The answer of the first server that has one, beginning with who had the last.
    async fn exchange(&self, query: &Query, clock: &Clock) -> Result<DnsResponse, BoxError> {
        // It is never closed.
        let _place = self.places.acquire().await.ok();
        let all = self.addresses.len();
        let first = self.current.load(Ordering::Relaxed);
        let tried = all.min(MOST_SERVERS);
        let limit = self.limit / tried as u32;
        let mut failures = Vec::new();
        for at in (first..first + tried).map(|at| at % all) {
            let server = self.addresses[at];
            let asked = exchange::ask(server, query, self.transport, limit);
            match clock.within(limit, asked).await {
                Some(Ok(answer)) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Some(Err(failure)) => failures.push(failure),
                None => {
                    let over = self.transport;
                    failures.push(format!(
                        "{server} has not answered over {over} in {limit:?}"
                    ));
                }
            }
        }
        // None of them: who was not tried comes first now.
        self.current.store((first + tried) % all, Ordering::Relaxed);
        Err(failures.join("; ").into())
    }
}

enum Said {
    Answer(Answer),
    /// Ask for this one, which is what the name stands for.
    Alias(Name, u32),
}

/// What an answer says of a name; records of other names are nothing that was asked for.
fn read(answer: DnsResponse, query: &Query) -> Result<Said, BoxError> {
    let (mut name, mut ttl) = (query.name(), u32::MAX);
    for _ in 0..MOST_ALIASES {
        let about = || answer.answers.iter().filter(|record| record.name == *name);
        let found: Vec<_> = about()
            .filter(|record| record.record_type() == query.query_type())
            .collect();
        if !found.is_empty() {
            return Ok(Said::Answer(Answer {
                records: found.iter().map(|record| record.data.clone()).collect(),
                ttl: found.iter().fold(ttl, |ttl, record| ttl.min(record.ttl)),
                additional: answer.additionals.clone(),
                absent: false,
            }));
        }
        let alias = about().find_map(|record| match &record.data {
            RData::CNAME(alias) => Some((&alias.0, record.ttl)),
            _ => None,
        });
        match alias {
            Some((alias, holds)) => (name, ttl) = (alias, ttl.min(holds)),
            None if name != query.name() => return Ok(Said::Alias(name.clone(), ttl)),
            None if answer.answers.is_empty() => return Ok(Said::Answer(nothing(&answer))),
            None => return Err(format!("the answer says nothing of {name}").into()),
        }
    }
    Err(circle(name))
}

fn nothing(answer: &DnsResponse) -> Answer {
    Answer {
        records: Vec::new(),
        additional: Vec::new(),
        // RFC 2308: without an SOA record nobody says how long it holds.
        ttl: answer.negative_ttl().unwrap_or(0),
        absent: answer.response_code == ResponseCode::NXDomain,
    }
}

fn circle(name: &Name) -> BoxError {
    format!("{name} is an alias of aliases of aliases, most likely in a circle").into()
}
