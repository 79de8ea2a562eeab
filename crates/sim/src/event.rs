//! What happens next.

use std::{cmp::Ordering, collections::BinaryHeap};

use tower_mesh_core::Instant;

/// What happens by itself; calls answer to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// The next call arrives at a client.
    Arrives,
    /// An attempt reaches its server.
    Reaches {
        attempt: usize,
    },
    /// A server has done the work of an attempt, unless its speed has changed since.
    Leaves {
        server: usize,
        attempt: usize,
        epoch: u64,
    },
    /// The answer to an attempt reaches the client.
    Answered {
        attempt: usize,
    },
    /// A neighbour begins or ends to take half of a server.
    Switches {
        server: usize,
    },
    /// Some server stands still, and later goes on.
    Freezes {
        pauses: usize,
    },
    Thaws {
        server: usize,
    },
}

/// Events in order of time, and of those at one time in the order in which they were scheduled.
#[derive(Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Scheduled>,
    scheduled: u64,
}

impl Events {
    pub(crate) fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.heap.push(Scheduled {
            at,
            nth: self.scheduled,
            event,
        });
    }

    /// When the next one happens.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|next| next.at)
    }

    /// The next one that has happened by `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Event> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|next| next.event)
    }
}

#[derive(Debug)]
struct Scheduled {
    at: Instant,
    nth: u64,
    event: Event,
}

impl Ord for Scheduled {
    /// The earliest is the greatest, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.nth).cmp(&(self.at, self.nth))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.nth == other.nth
    }
}

impl Eq for Scheduled {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_happen_in_order_and_those_at_one_time_as_they_were_scheduled() {
        let mut events = Events::default();
        let at = Instant::from_nanos;
        for (time, attempt) in [(5, 0), (3, 1), (5, 2), (3, 3)] {
            events.schedule(at(time), Event::Reaches { attempt });
        }
        assert_eq!(events.pop(at(2)), None);
        let order: Vec<_> = std::iter::from_fn(|| events.pop(at(5))).collect();
        let expected = [1, 3, 0, 2].map(|attempt| Event::Reaches { attempt });
        assert_eq!(order, expected);
        assert_eq!(events.next(), None);
    }
}
