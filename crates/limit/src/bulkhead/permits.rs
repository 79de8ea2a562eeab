//! How many permits are out, who waits for one, and who is next: a semaphore whose limit can move.

use std::{collections::BTreeMap, fmt, task::Waker};

use tower_mesh_core::{
    Priority,
    sync::{AtomicU64, Mutex, Ordering, lock},
};

/// Permits out, limit and "somebody waits" change as one word, so a permit that is free at once costs one
/// compare-exchange. The queue is locked only when somebody waits.
///
/// Three rules keep it fair and awake:
/// - while somebody waits, only the queue hands out permits: nobody overtakes;
/// - the mark that somebody waits is set under the lock, together with the finding that no permit is free;
/// - whoever makes room (a release, a higher limit) and finds the mark hands out.
///
/// An adaptive limit has to hear of permits that come back, but only while it is below its upper bound. It asks for that
/// in the same word, so a release that nobody wants to hear of costs what it did.
pub(crate) struct Permits {
    /// Bit 0: who gives a permit back tells of it. Bits 1..31: permits out. Bit 31: somebody waits. Bits 33..63: the limit.
    word: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    /// The critical first, and in the order of arrival. Who is no longer in it has been given a permit.
    waiting: BTreeMap<Ticket, Waker>,
}

/// A place in the queue: before those that are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Whoever is not critical comes after all who are.
    fn new(nth: u64, priority: Priority) -> Self {
        const LATER: u64 = 1 << 63;
        match priority {
            Priority::Critical => Self(nth),
            _ => Self(nth | LATER),
        }
    }
}

/// What came of asking for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A permit was free.
    Admitted,
    /// It waits.
    Queued(Ticket),
    /// No permit is free and no place in the queue either.
    Full,
}

/// Numbers that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) limit: usize,
    pub(crate) out: usize,
    pub(crate) waiting: usize,
}

/// Whether whoever gives a permit back tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nobody wants to know.
    Off,
    /// Each is told of.
    On,
}

const WATCHED: u64 = 1;
/// One permit. The lowest bit is taken, and stands beneath all that is compared.
const PERMIT: u64 = 2;
const WAITING: u64 = 1 << 31;
/// Where the limit begins, as twice itself: both halves count in twos.
const LIMIT_SHIFT: u32 = 33;
/// The mark must not fit beneath any limit, see [`is_free`].
const MAX_LIMIT: u64 = (1 << 30) - 1;
const OUT: u64 = MAX_LIMIT << 1;

impl Permits {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            word: AtomicU64::new(clamp(limit) << LIMIT_SHIFT),
            queue: Mutex::new(Queue::default()),
        }
    }

    /// Takes a permit if one is free and nobody waits.
    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while is_free(word) {
            match self.word.compare_exchange_weak(
                word,
                word + PERMIT,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes a permit if one is free, nobody waits, and less than three quarters of the limit are in use.
    pub(crate) fn try_acquire_spare(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while is_free(word) && out(word) < (3 * limit(word)).div_ceil(4) {
            match self.replace(word, word + PERMIT) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes a permit or a place in the queue, of which there are `places`.
    pub(crate) fn enter(&self, waker: Waker, places: usize, priority: Priority) -> Entry {
        // A waker that is not kept is dropped after the lock: it is user code.
        let mut queue = lock(&self.queue);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (next, entry) = if is_free(word) {
                (word + PERMIT, Entry::Admitted)
            } else if queue.waiting.len() < places {
                (
                    word | WAITING,
                    Entry::Queued(Ticket::new(queue.next, priority)),
                )
            } else {
                return Entry::Full;
            };
            match self.replace(word, next) {
                Ok(()) => {
                    if let Entry::Queued(ticket) = entry {
                        queue.next += 1;
                        queue.waiting.insert(ticket, waker);
                    }
                    return entry;
                }
                Err(now) => word = now,
            }
        }
    }

    /// Whether it is this ticket's turn, and so has its permit; if not, `waker` is woken when it is.
    pub(crate) fn is_turn(&self, ticket: Ticket, waker: Waker) -> bool {
        let replaced; // Declared before the lock, so dropped after it.
        let mut queue = lock(&self.queue);
        replaced = queue
            .waiting
            .get_mut(&ticket)
            .map(|kept| std::mem::replace(kept, waker));
        replaced.is_none()
    }

    /// Leaves the queue. False if the ticket's turn had come: then there is a permit to give back.
    #[must_use]
    pub(crate) fn leave(&self, ticket: Ticket) -> bool {
        let waker; // Declared before the lock, so dropped after it.
        let mut queue = lock(&self.queue);
        waker = queue.waiting.remove(&ticket);
        if queue.waiting.is_empty() {
            self.word.fetch_and(!WAITING, Ordering::Relaxed);
        }
        waker.is_some()
    }

    /// Gives a permit back; answers how many were out if that is [watched](Watch).
    #[inline]
    pub(crate) fn release(&self) -> Option<usize> {
        let word = self.word.fetch_sub(PERMIT, Ordering::Release);
        if word & (WAITING | WATCHED) == 0 {
            return None;
        }
        self.released(word)
    }

    #[cold]
    fn released(&self, word: u64) -> Option<usize> {
        if word & WAITING != 0 {
            self.hand_out();
        }
        (word & WATCHED != 0).then(|| out(word) as usize)
    }

    /// Moves the limit, and lets in who waits. Permits that are out stay out.
    pub(crate) fn resize(&self, limit: usize) {
        if self.set(limit, None) {
            self.hand_out();
        }
    }

    /// Moves the limit without letting anybody in; answers whether somebody waits, who must then be
    /// [let in](Self::hand_out). For those who hold a lock: letting in runs wakers, which are user code.
    #[must_use]
    pub(crate) fn set(&self, limit: usize, watch: Option<Watch>) -> bool {
        let limit = clamp(limit) << LIMIT_SHIFT;
        let (keep, set) = match watch {
            None => (WAITING | OUT | WATCHED, 0),
            Some(Watch::Off) => (WAITING | OUT, 0),
            Some(Watch::On) => (WAITING | OUT, WATCHED),
        };
        let mut word = self.word.load(Ordering::Relaxed);
        while let Err(now) = self.replace(word, limit | word & keep | set) {
            word = now;
        }
        word & WAITING != 0
    }

    /// How many are out: one load.
    pub(crate) fn out(&self) -> usize {
        out(self.word.load(Ordering::Relaxed)) as usize
    }

    pub(crate) fn count(&self) -> Count {
        let queue = lock(&self.queue);
        let word = self.word.load(Ordering::Relaxed);
        Count {
            limit: limit(word) as usize,
            out: out(word) as usize,
            waiting: queue.waiting.len(),
        }
    }

    /// Lets in who waits, as far as there is room.
    #[cold]
    pub(crate) fn hand_out(&self) {
        while let Some(waker) = self.admit_next() {
            waker.wake();
        }
    }

    /// Gives the next in the queue a permit, if there is room. One at a time, since wakers are user code and run without
    /// the lock.
    fn admit_next(&self) -> Option<Waker> {
        let mut queue = lock(&self.queue);
        let mark = match queue.waiting.len() {
            0 => return None,
            1 => 0,
            _ => WAITING,
        };
        let mut word = self.word.load(Ordering::Relaxed);
        while out(word) < limit(word) {
            match self.replace(word, (word & !WAITING | mark) + PERMIT) {
                Ok(()) => return queue.waiting.pop_first().map(|(_, waker)| waker),
                Err(now) => word = now,
            }
        }
        None
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.word
            .compare_exchange_weak(old, new, Ordering::Acquire, Ordering::Relaxed)
            .map(drop)
    }
}

/// Whether a newcomer may have a permit. The mark makes the lower half greater than any limit, so one comparison says
/// "there is room and nobody waits". Both halves are even but for the lowest bit, which so makes no difference.
const fn is_free(word: u64) -> bool {
    (word as u32) < (word >> 32) as u32
}

const fn out(word: u64) -> u64 {
    (word & OUT) >> 1
}

const fn limit(word: u64) -> u64 {
    word >> LIMIT_SHIFT
}

fn clamp(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX).min(MAX_LIMIT)
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count().fmt(f)
    }
}

#[cfg(all(test, mesh_loom))]
mod loom_models;
#[cfg(all(test, not(mesh_loom)))]
mod tests;
