//! Why an endpoint is or is not picked now.

use std::{fmt, time::Duration};

use tower_mesh_core::{
    Endpoint, EndpointSet, Gate, Instant, JudgeKind, Ratio, ServiceName, Shut, Standing,
};

use crate::{
    levels::Levels,
    pick::{Chance, Field},
    pool::Settings,
    search::crowding,
    strategy::{Moment, Strategy},
    table::Table,
};

/// How calls are spread over the endpoints of a service at this moment; see [`BalanceLayer::explain`].
///
/// [`BalanceLayer::explain`]: crate::BalanceLayer::explain
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Whose endpoints these are.
    pub service: ServiceName,
    /// How one of them is chosen.
    pub strategy: Strategy,
    /// The levels of priority and distance, those that are used first first; one, if all endpoints are of one.
    pub levels: Vec<LevelNow>,
    /// All endpoints, in discovery's order.
    pub endpoints: Vec<EndpointNow>,
}

/// A level of endpoints that are of the same priority and as far away.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LevelNow {
    /// Their priority: 0 is used first.
    pub priority: u8,
    /// How many parts of the caller's zone are not theirs: 0 is the same zone.
    pub distance: u8,
    /// How many of them take calls, whatever their health.
    pub endpoints: usize,
    /// The share of the calls that goes to them.
    pub share: Ratio,
    /// Whether so many of them are out that health and ejection are ignored.
    pub is_panicking: bool,
}

/// How an endpoint stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointNow {
    /// Which one.
    pub endpoint: Endpoint,
    /// The index of its level, unless it weighs nothing or is left to other clients.
    pub level: Option<usize>,
    /// What it takes.
    pub takes: Takes,
    /// Its share among its peers as the registry says.
    pub weight: u16,
    /// The part of that which counts while it [begins slowly](crate::SlowStart); 1 otherwise.
    pub slow_start: f32,
    /// Its mean latency, once a call has succeeded or it was given one to start from.
    pub latency: Option<Duration>,
    /// Calls that have begun and not ended.
    pub in_flight: u32,
    /// The share of its calls that succeed, weighted to the last second.
    pub success: f32,
    /// What a call costs there by the strategy, in no unit: of those drawn for a call, the least takes it. Nothing for
    /// strategies that do not compare.
    pub cost: Option<f32>,
    /// Its place among those of its level that take calls, by cost: the first is the cheapest.
    pub rank: Option<usize>,
}

/// What an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Takes {
    /// Calls.
    Calls,
    /// A few calls as probes.
    Probes,
    /// Calls, although this judge shuts it out: there is a panic.
    CallsInPanic(JudgeKind),
    /// A few probes before the time of its breaker: there is a panic.
    ProbesInPanic(JudgeKind),
    /// Nothing: this judge keeps its gate shut, for so long if that is known.
    Shut(JudgeKind, Option<Duration>),
    /// Nothing: its weight is zero.
    Weightless,
    /// Nothing of this client: it is left to [others](crate::Subset).
    NotInSubset,
}

impl Explanation {
    pub(crate) fn new(service: &ServiceName, set: &EndpointSet, settings: &Settings) -> Self {
        let now = settings.clock.now();
        let endpoints = set.endpoints();
        let weights: Vec<_> = endpoints.iter().map(|e| e.weight().get()).collect();
        let ranks: Vec<_> = endpoints.iter().map(|e| settings.ranking.of(e)).collect();
        let Settings {
            chance,
            ranking,
            subset,
            ..
        } = settings;
        let members = subset.map(|subset| subset.members(endpoints, &ranks, &weights));
        let member = |index: usize| members.as_ref().is_none_or(|members| members[index]);
        let whole = Table::new(&weights, member);
        let levels = Levels::new(None, ranking, endpoints, &ranks, &weights, member, chance);
        let fields: Vec<(LevelNow, Field<'_>, &Chance)> = match &levels {
            None if whole.len() == 0 => Vec::new(),
            None => {
                let field = Field {
                    endpoints,
                    table: &whole,
                };
                let rank = ranks[whole.at(0).0];
                let is_panicking = chance.panic.would_be(field);
                let all = (rank.priority, rank.distance, 1.0, is_panicking);
                vec![(LevelNow::new(all, whole.len()), field, chance)]
            }
            Some(levels) => {
                let shares = levels.count(endpoints);
                let now = levels.iter().zip(shares).map(|(level, share)| {
                    let rank = level.rank;
                    let is_panicking = level.is_panicking(endpoints);
                    let of = (rank.priority, rank.distance, share, is_panicking);
                    let of = LevelNow::new(of, level.table.len());
                    (of, level.field(endpoints), &level.chance)
                });
                now.collect()
            }
        };
        let mut this = Self {
            service: service.clone(),
            strategy: settings.strategy,
            levels: Vec::new(),
            endpoints: endpoints.iter().map(EndpointNow::outside).collect(),
        };
        for index in (0..endpoints.len()).filter(|index| !member(*index) && weights[*index] > 0) {
            this.endpoints[index].takes = Takes::NotInSubset;
        }
        for (nth, (level, field, chance)) in fields.into_iter().enumerate() {
            let look = Look {
                nth,
                is_panicking: level.is_panicking,
                chance,
                strategy: settings.strategy,
                at: Moment::new(now),
            };
            for place in 0..field.table.len() {
                let (index, relative) = field.table.at(place);
                look.at(&mut this.endpoints[index], relative);
            }
            this.levels.push(level);
        }
        this.rank();
        this
    }

    fn rank(&mut self) {
        let compared = |of: &EndpointNow| match of.takes {
            Takes::Calls | Takes::CallsInPanic(_) => of.cost,
            _ => None,
        };
        for level in 0..self.levels.len() {
            let here = self.endpoints.iter_mut();
            let mut here: Vec<_> = here
                .filter(|of| of.level == Some(level))
                .filter_map(|of| Some((compared(of)?, of)))
                .collect();
            here.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            for (nth, (_, of)) in here.into_iter().enumerate() {
                of.rank = Some(nth + 1);
            }
        }
    }
}

impl LevelNow {
    fn new(
        (priority, distance, share, is_panicking): (u8, u8, f64, bool),
        endpoints: usize,
    ) -> Self {
        Self {
            priority,
            distance,
            endpoints,
            share: Ratio::new(share.clamp(0.0, 1.0)).expect("a share lies between 0 and 1"),
            is_panicking,
        }
    }
}

impl EndpointNow {
    /// Before it is looked at: as one that weighs nothing.
    fn outside(endpoint: &Endpoint) -> Self {
        let load = endpoint.vitals().load();
        let latency = load.latency_us();
        Self {
            endpoint: endpoint.clone(),
            level: None,
            takes: Takes::Weightless,
            weight: endpoint.weight().get(),
            slow_start: 1.0,
            latency: latency.map(|us| Duration::try_from_secs_f32(us / 1e6).unwrap_or_default()),
            in_flight: load.in_flight(),
            success: load.success(),
            cost: None,
            rank: None,
        }
    }
}

/// What endpoints of a level are looked at with.
struct Look<'a> {
    nth: usize,
    is_panicking: bool,
    chance: &'a Chance,
    strategy: Strategy,
    at: Moment,
}

impl Look<'_> {
    fn at(&self, of: &mut EndpointNow, relative: f32) {
        let vitals = of.endpoint.vitals().clone();
        let slow_start = self.chance.slow_start.of(vitals.gate(), self.at.now);
        of.level = Some(self.nth);
        of.takes = self.takes(vitals.gate());
        of.slow_start = slow_start.unwrap_or(1.0);
        let cost = self.strategy.cost(vitals.load(), relative, &self.at);
        of.cost = cost.map(|cost| cost * crowding(vitals.load(), relative, of.slow_start));
    }

    fn takes(&self, gate: &Gate) -> Takes {
        let now = self.at.now;
        let shut = match gate.standing(|| now) {
            Standing::Open => return Takes::Calls,
            Standing::Limited => return Takes::Probes,
            Standing::Shut(shut) => shut,
        };
        match self.is_panicking.then(|| gate.standing_in_panic(now)) {
            Some(Standing::Open) => Takes::CallsInPanic(shut.by()),
            Some(Standing::Limited) => Takes::ProbesInPanic(shut.by()),
            Some(Standing::Shut(shut)) => Takes::shut(shut, now),
            None => Takes::shut(shut, now),
        }
    }
}

impl Takes {
    fn shut(shut: Shut, now: Instant) -> Self {
        Self::Shut(shut.by(), shut.until().map(|until| until.since(now)))
    }
}

mod display;

#[cfg(all(test, not(mesh_loom)))]
mod tests;
