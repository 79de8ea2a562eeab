//! Follows the endpoints of a service by blocking queries.

use std::time::Duration;

use futures_util::stream;
use tower_mesh_core::{Empties, Endpoint, Resolve, ResolveError, ServiceName, Update, Updates};

use crate::{
    catalog::{self, Line},
    consul::Consul,
    error::{ConsulError, ErrorKind},
    places::Follower,
    request::Request,
    turns::{Index, Pace},
};

impl Resolve for Consul {
    fn resolve(&self, service: &ServiceName) -> Updates {
        let watching = Watching {
            follower: self.places.follower(),
            consul: self.clone(),
            service: service.clone(),
            index: Index::default(),
            pace: Pace::default(),
            consistent: false,
            told: None,
            pause: Duration::ZERO,
        };
        Box::pin(stream::unfold(watching, |mut watching| async {
            let item = watching.next().await;
            Some((item, watching))
        }))
    }

    /// An answer without endpoints may be one that a token may not read, or that of an agent that lost its state.
    fn empties(&self) -> Empties {
        Empties::Suspect
    }

    fn name(&self) -> &'static str {
        "consul"
    }
}

/// One who follows a service.
struct Watching {
    consul: Consul,
    follower: Follower,
    service: ServiceName,
    index: Index,
    pace: Pace,
    /// The last answer was too old: the next is asked of the leader.
    consistent: bool,
    /// None before the first answer, and after an error: then an answer is news whatever it says.
    told: Option<Vec<Endpoint>>,
    pause: Duration,
}

impl Watching {
    async fn next(&mut self) -> Result<Update, ResolveError> {
        loop {
            if !self.pause.is_zero() {
                self.consul.clock.sleep(self.pause).await;
            }
            let asked_leader = self.consistent;
            match self.ask().await {
                Ok(Some(answered)) => {
                    let news = self.news(answered.endpoints);
                    let rng = &self.consul.rng;
                    self.pause = self.pace.answered(news.is_some(), answered.held, rng);
                    if let Some(update) = news {
                        return Ok(update);
                    }
                }
                Ok(None) => {}
                // There is no leader to ask: the old answer is the best there is.
                Err(error) if asked_leader && error.kind() == ErrorKind::Unavailable => {
                    let answered = self.query(true).await.map_err(|e| self.failed(e))?;
                    self.pause = self.consul.pause(&mut self.pace, &self.follower);
                    if let Some(update) = self.news(answered.endpoints) {
                        return Ok(update);
                    }
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn news(&mut self, endpoints: Vec<Endpoint>) -> Option<Update> {
        let known = |told: &[Endpoint]| same(told, &endpoints);
        if self.told.as_deref().is_some_and(known) {
            return None;
        }
        self.told = Some(endpoints.clone());
        Some(Update::Replace(endpoints))
    }

    fn failed(&mut self, error: ConsulError) -> ResolveError {
        self.pause = self.consul.pause(&mut self.pace, &self.follower);
        self.told = None;
        // Another agent may have another index, or the same one have lost its state.
        self.index.reset();
        let service = &self.service;
        ResolveError::new(format!("cannot look up {service}")).caused_by(error)
    }

    /// An answer; none if it is too old, and the next is to be a newer one.
    async fn ask(&mut self) -> Result<Option<Answered>, ConsulError> {
        let stale = !std::mem::take(&mut self.consistent);
        if !stale {
            self.index.reset();
        }
        let answered = self.query(stale).await?;
        self.consistent = stale && answered.age > self.consul.max_stale;
        Ok(Some(answered).filter(|_| !self.consistent))
    }

    async fn query(&mut self, stale: bool) -> Result<Answered, ConsulError> {
        let service = self.service.as_str();
        let needs = format!("service:read on {service} and node:read on its nodes");
        let _place = self.follower.place().await;
        let wait = self.consul.crowd(&self.follower).held(self.consul.wait);
        let mut request = Request::get(&["health", "service", service], needs.clone())
            .after(self.index.get(), wait);
        if stale {
            request = request.flag("stale");
        }
        let began = self.consul.clock.now();
        let answer = self.consul.call(&request).await?;
        let held = request.is_held(self.consul.clock.now().since(began));
        if answer.filtered {
            return Err(ConsulError::filtered(&needs));
        }
        let (index, age) = (answer.index, answer.last_contact);
        let lines: Vec<Line> = answer.json().await?;
        if lines.len() > self.consul.max_endpoints {
            return Err(ConsulError::too_many(
                lines.len(),
                self.consul.max_endpoints,
            ));
        }
        // Only of an answer that was understood: another one is asked for again.
        self.index.advance(index);
        let (endpoints, unusable) = catalog::endpoints(lines);
        if let Some(example) = unusable.example {
            tracing::warn!(
                service = %self.service, unusable = unusable.count, %example,
                "the catalogue names what is no endpoint"
            );
        }
        Ok(Answered {
            endpoints,
            age,
            held,
        })
    }
}

/// What an agent says of a service.
struct Answered {
    endpoints: Vec<Endpoint>,
    /// How long the server that said it has heard nothing of a leader.
    age: Duration,
    /// The agent has held the request for as long as it might.
    held: bool,
}

fn same(old: &[Endpoint], new: &[Endpoint]) -> bool {
    let same = |(old, new): (&Endpoint, &Endpoint)| old == new && old.same_description(new);
    old.len() == new.len() && old.iter().zip(new).all(same)
}
