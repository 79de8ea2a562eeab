//! One server at work: slots, a queue, a speed. Pure: it is told what time it is, and says when work will be done.

use std::{collections::VecDeque, time::Duration};

use tower_mesh_core::Instant;

use crate::{
    gauge::Gauge,
    scenario::Server,
    work::{duration, nanos},
};

/// What becomes of an attempt that reaches a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reached {
    /// It waits for a slot, or has been given one: see what is started.
    Taken,
    /// It is answered with an error, after so long.
    Refused(Duration),
    /// Nothing comes back, ever.
    Lost,
}

/// How it treats what reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Works,
    Fails(Duration),
    Hangs,
}

/// Work that a server has begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Begun {
    pub(crate) attempt: usize,
    pub(crate) done_in: Duration,
    pub(crate) epoch: u64,
}

#[derive(Debug)]
struct Running {
    attempt: usize,
    begun: Instant,
    /// Nanoseconds at speed 1, as of `since`.
    left: f64,
    since: Instant,
}

#[derive(Debug)]
pub(crate) struct Machine {
    slots: usize,
    most_waiting: Option<usize>,
    speed: f64,
    /// What faults leave of the speed: by hand, and by neighbours.
    slowed: f64,
    neighbours: f64,
    frozen: usize,
    pub(crate) mood: Mood,
    running: Vec<Running>,
    waiting: VecDeque<(usize, f64)>,
    /// Counts changes of speed: what was said to be done when is void after one.
    epoch: u64,
    pub(crate) in_flight: Gauge,
    busy: Gauge,
    /// How long calls are in a slot, in nanoseconds: a mean weighted to the last ten or so.
    service: Option<f64>,
}

impl Machine {
    pub(crate) fn new(server: &Server, now: Instant) -> Self {
        Self {
            slots: server.slots,
            most_waiting: server.queue,
            speed: server.speed,
            slowed: 1.0,
            neighbours: 1.0,
            frozen: 0,
            mood: Mood::Works,
            running: Vec::with_capacity(server.slots),
            waiting: VecDeque::new(),
            epoch: 0,
            in_flight: Gauge::new(now),
            busy: Gauge::new(now),
            service: None,
        }
    }

    /// How long a call would be here that came now, as far as the server can tell.
    pub(crate) fn outlook(&self) -> Duration {
        let turns = (self.in_flight.level() + 1) as f64 / self.slots as f64;
        duration(self.service.unwrap_or_default() * turns.max(1.0))
    }

    /// Whether it answers nothing at all.
    pub(crate) fn is_silent(&self) -> bool {
        self.mood == Mood::Hangs || self.effective() == 0.0
    }

    /// Takes an attempt with so much work; `begun` gets what is started.
    pub(crate) fn take(
        &mut self,
        attempt: usize,
        work: f64,
        now: Instant,
        begun: &mut Vec<Begun>,
    ) -> Reached {
        match self.mood {
            Mood::Works => {}
            Mood::Fails(after) => return Reached::Refused(after),
            Mood::Hangs => return Reached::Lost,
        }
        let full = self.running.len() == self.slots;
        if full
            && self
                .most_waiting
                .is_some_and(|most| self.waiting.len() >= most)
        {
            return Reached::Refused(Duration::ZERO);
        }
        self.in_flight.add(now);
        self.waiting.push_back((attempt, work));
        self.start(now, begun);
        Reached::Taken
    }

    /// Ends the work of `attempt`, unless its end was foretold before the speed changed; answers whether it did.
    pub(crate) fn finish(
        &mut self,
        attempt: usize,
        epoch: u64,
        now: Instant,
        begun: &mut Vec<Begun>,
    ) -> bool {
        if epoch != self.epoch {
            return false;
        }
        let of = |running: &Running| running.attempt == attempt;
        let Some(nth) = self.running.iter().position(of) else {
            return false;
        };
        let ended = self.running.swap_remove(nth);
        self.learn(now.since(ended.begun));
        self.busy.remove(now);
        self.in_flight.remove(now);
        self.start(now, begun);
        true
    }

    /// Changes what decides its speed; `begun` gets when its work will now be done.
    pub(crate) fn change(
        &mut self,
        now: Instant,
        begun: &mut Vec<Begun>,
        change: impl FnOnce(&mut Speeds<'_>),
    ) {
        let before = self.effective();
        change(&mut Speeds {
            slowed: &mut self.slowed,
            neighbours: &mut self.neighbours,
            frozen: &mut self.frozen,
        });
        let speed = self.effective();
        if speed == before {
            return;
        }
        self.epoch += 1;
        for running in &mut self.running {
            let passed = now.since(running.since).as_nanos() as f64;
            running.left = (running.left - passed * before).max(0.0);
            running.since = now;
            begun.extend(ends(running, speed, self.epoch));
        }
    }

    pub(crate) fn reset(&mut self, now: Instant) {
        self.in_flight.reset(now);
        self.busy.reset(now);
    }

    /// The share of its slots that were in use since the last reset.
    pub(crate) fn utilisation(&self, now: Instant) -> f64 {
        self.busy.mean(now) / self.slots as f64
    }

    fn learn(&mut self, time: Duration) {
        const WEIGHT: f64 = 0.1;
        let time = nanos(time);
        let mean = self.service.get_or_insert(time);
        *mean += WEIGHT * (time - *mean);
    }

    fn effective(&self) -> f64 {
        match self.frozen {
            0 => self.speed * self.slowed * self.neighbours,
            _ => 0.0,
        }
    }

    fn start(&mut self, now: Instant, begun: &mut Vec<Begun>) {
        while self.running.len() < self.slots {
            let Some((attempt, left)) = self.waiting.pop_front() else {
                return;
            };
            let running = Running {
                attempt,
                begun: now,
                left,
                since: now,
            };
            begun.extend(ends(&running, self.effective(), self.epoch));
            self.running.push(running);
            self.busy.add(now);
        }
    }
}

/// What a server's speed is made of.
#[derive(Debug)]
pub(crate) struct Speeds<'a> {
    pub(crate) slowed: &'a mut f64,
    pub(crate) neighbours: &'a mut f64,
    /// How many pauses it is in.
    pub(crate) frozen: &'a mut usize,
}

/// When it will be done; never, if the server stands still.
fn ends(running: &Running, speed: f64, epoch: u64) -> Option<Begun> {
    (speed > 0.0).then(|| Begun {
        attempt: running.attempt,
        done_in: duration(running.left / speed),
        epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn machine(slots: usize) -> Machine {
        Machine::new(&Server::new().slots(slots), at(0))
    }

    /// What was begun, as attempt and milliseconds to go.
    fn told(begun: &mut Vec<Begun>) -> Vec<(usize, u128)> {
        let told = begun.iter().map(|b| (b.attempt, b.done_in.as_millis()));
        let told = told.collect();
        begun.clear();
        told
    }

    #[test]
    fn what_finds_no_slot_waits_its_turn() {
        let (mut this, mut begun) = (machine(2), Vec::new());
        for attempt in 0..4 {
            this.take(attempt, 10.0 * MS, at(0), &mut begun);
        }
        assert_eq!(told(&mut begun), [(0, 10), (1, 10)]);
        assert!(this.finish(1, 0, at(10), &mut begun));
        assert_eq!(told(&mut begun), [(2, 10)]);
        assert_eq!((this.in_flight.level(), this.in_flight.peak()), (3, 4));
    }

    #[test]
    fn half_the_speed_doubles_what_is_left_to_do() {
        let (mut this, mut begun) = (machine(1), Vec::new());
        this.take(7, 10.0 * MS, at(0), &mut begun);
        begun.clear();
        this.change(at(4), &mut begun, |speeds| *speeds.slowed = 0.5);
        assert_eq!(told(&mut begun), [(7, 12)]);
        assert!(
            !this.finish(7, 0, at(10), &mut begun),
            "foretold at full speed"
        );
        assert!(this.finish(7, 1, at(16), &mut begun));
    }

    #[test]
    fn a_frozen_server_does_nothing_and_then_what_was_left() {
        let (mut this, mut begun) = (machine(1), Vec::new());
        this.take(7, 10.0 * MS, at(0), &mut begun);
        begun.clear();
        this.change(at(4), &mut begun, |speeds| *speeds.frozen += 1);
        this.take(8, 10.0 * MS, at(5), &mut begun);
        assert_eq!(told(&mut begun), []);
        this.change(at(504), &mut begun, |speeds| *speeds.frozen -= 1);
        assert_eq!(told(&mut begun), [(7, 6)]);
    }

    #[test]
    fn the_outlook_is_as_long_as_calls_take_and_longer_when_they_have_to_wait() {
        let (mut this, mut begun) = (machine(2), Vec::new());
        assert_eq!(this.outlook(), Duration::ZERO, "nothing is known yet");
        this.take(0, 10.0 * MS, at(0), &mut begun);
        this.finish(0, 0, at(10), &mut begun);
        assert_eq!(this.outlook(), Duration::from_millis(10));
        for attempt in 1..=5 {
            this.take(attempt, 10.0 * MS, at(10), &mut begun);
        }
        assert_eq!(this.outlook(), Duration::from_millis(30));
        assert!(!this.is_silent());
        this.change(at(11), &mut begun, |speeds| *speeds.frozen += 1);
        assert!(this.is_silent());
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut this = Machine::new(&Server::new().slots(1).queue(1), at(0));
        let mut begun = Vec::new();
        let mut take = |attempt| this.take(attempt, MS, at(0), &mut begun);
        assert_eq!((take(0), take(1)), (Reached::Taken, Reached::Taken));
        assert_eq!(take(2), Reached::Refused(Duration::ZERO));
        assert_eq!(this.in_flight.level(), 2);
    }

    #[test]
    fn the_busy_share_counts_slots_over_time() {
        let (mut this, mut begun) = (machine(4), Vec::new());
        this.take(0, 10.0 * MS, at(0), &mut begun);
        this.finish(0, 0, at(10), &mut begun);
        assert_eq!(this.utilisation(at(20)), 0.125);
    }
}
