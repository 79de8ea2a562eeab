//! What became of calls and attempts, second by second.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tower_mesh::core::{Clock, Instant};

/// Writes down what becomes of each call and each attempt. Times are counted from its making.
pub(crate) struct Log {
    clock: Clock,
    started: Instant,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    seconds: Vec<Second>,
    sent: Vec<Sent>,
    /// Calls that were not answered: when they began, how long they took, and what they ended with.
    lost: Vec<(Duration, Duration, &'static str)>,
    /// Probes under way, by client and server.
    probes: HashMap<(usize, usize), u32>,
    most_probes: u32,
    /// When an attempt last failed, by client and server.
    failed: HashMap<(usize, usize), Duration>,
    removed: HashSet<usize>,
    /// Attempts that were sent to a server after its clients had been told that it is gone.
    to_removed: u64,
}

/// What happened within one second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Second {
    /// Calls that began.
    pub(crate) calls: u64,
    /// Attempts that were sent.
    pub(crate) attempts: u64,
    /// Calls that were answered.
    pub(crate) answered: u64,
    /// Calls that ended in another way.
    pub(crate) lost: u64,
}

/// An attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) server: usize,
    pub(crate) answered: bool,
}

/// An attempt that has begun.
pub(crate) struct Began {
    at: Duration,
    server: usize,
    client: usize,
    /// Its endpoint's gate was not open.
    probe: bool,
}

/// What a call ends with that the mesh had too many of.
const OVERLOADED: &str = "overloaded";

impl Log {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            started: clock.now(),
            clock,
            notes: Mutex::default(),
        }
    }

    /// A call begins; gives when.
    pub(super) fn begins(&self) -> Duration {
        let now = self.now();
        self.notes().second(now).calls += 1;
        now
    }

    /// A call has ended, with an error of this kind unless it is empty.
    pub(super) fn ended(&self, begun: Duration, how: &'static str) {
        let now = self.now();
        let mut notes = self.notes();
        if how.is_empty() {
            notes.second(now).answered += 1;
            return;
        }
        notes.second(now).lost += 1;
        notes.lost.push((begun, now - begun, how));
    }

    /// An attempt is sent.
    pub(super) fn sends(&self, client: usize, server: usize, probe: bool) -> Began {
        let at = self.now();
        let mut notes = self.notes();
        notes.second(at).attempts += 1;
        notes.to_removed += u64::from(notes.removed.contains(&server));
        if probe {
            let out = notes.probes.entry((client, server)).or_default();
            *out += 1;
            let out = *out;
            notes.most_probes = notes.most_probes.max(out);
        }
        Began {
            at,
            server,
            client,
            probe,
        }
    }

    /// An attempt has ended, or was given up.
    pub(super) fn sent(&self, began: &Began, answered: bool) {
        let now = self.now();
        let mut notes = self.notes();
        if began.probe {
            let out = notes.probes.get_mut(&(began.client, began.server));
            *out.expect("it was counted") -= 1;
        }
        if !answered {
            notes.failed.insert((began.client, began.server), now);
        }
        notes.sent.push(Sent {
            at: began.at,
            took: now - began.at,
            server: began.server,
            answered,
        });
    }

    /// The time since it was made.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now().since(self.started)
    }

    /// Second by second.
    pub(crate) fn seconds(&self) -> Vec<Second> {
        self.notes().seconds.clone()
    }

    /// What happened within these seconds, in all.
    pub(crate) fn within(&self, seconds: Range<usize>) -> Second {
        let notes = self.notes();
        let mut sum = Second::default();
        for second in notes.seconds.iter().take(seconds.end).skip(seconds.start) {
            sum.calls += second.calls;
            sum.attempts += second.attempts;
            sum.answered += second.answered;
            sum.lost += second.lost;
        }
        sum
    }

    /// The attempts that have ended.
    pub(crate) fn attempts(&self) -> Vec<Sent> {
        self.notes().sent.clone()
    }

    /// How long it took to refuse calls because too many ran, in order; of calls that began from then on.
    pub(crate) fn refusals(&self, since: Duration) -> Vec<Duration> {
        let notes = self.notes();
        let refused = notes
            .lost
            .iter()
            .filter(|(begun, _, how)| *begun >= since && *how == OVERLOADED);
        let mut refused: Vec<_> = refused.map(|(_, took, _)| *took).collect();
        refused.sort_unstable();
        refused
    }

    /// What calls ended with that were not answered, by kind.
    pub(crate) fn kinds(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (_, _, how) in &self.notes().lost {
            *kinds.entry(how).or_default() += 1;
        }
        kinds
    }

    /// How many calls ended with that, of those that began from then on.
    pub(crate) fn ended_with(&self, kind: &str, since: Duration) -> usize {
        let notes = self.notes();
        let lost = notes
            .lost
            .iter()
            .filter(|(begun, _, how)| *begun >= since && *how == kind);
        lost.count()
    }

    /// The most probes that one client had under way to one server at once.
    pub(crate) fn most_probes(&self) -> u32 {
        self.notes().most_probes
    }

    /// When an attempt of a client at a server last failed.
    pub(crate) fn last_failed(&self, client: usize, server: usize) -> Option<Duration> {
        self.notes().failed.get(&(client, server)).copied()
    }

    /// All clients have been told that a server is gone.
    pub(crate) fn removed(&self, server: usize) {
        self.notes().removed.insert(server);
    }

    /// Attempts that were sent to servers after that.
    pub(crate) fn to_removed(&self) -> u64 {
        self.notes().to_removed
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn second(&mut self, at: Duration) -> &mut Second {
        let nth = at.as_secs() as usize;
        if self.seconds.len() <= nth {
            self.seconds.resize(nth + 1, Second::default());
        }
        &mut self.seconds[nth]
    }
}

impl Second {
    /// Attempts a call.
    pub(crate) fn amplification(&self) -> f64 {
        self.attempts as f64 / self.calls.max(1) as f64
    }

    /// Calls answered as a share of those that began.
    pub(crate) fn goodput(&self) -> f64 {
        self.answered as f64 / self.calls.max(1) as f64
    }
}
