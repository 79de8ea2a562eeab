//! How many permits are out, who waits for one, and who is next: a semaphore whose limit can move.

use std::{collections::BTreeMap, fmt, task::Waker};

use tower_mesh_core::sync::{AtomicU64, Mutex, Ordering, lock};

/// Permits out, limit and "somebody waits" change as one word, so a permit that is free at once costs one
/// compare-exchange. The queue is locked only when somebody waits.
///
/// Three rules keep it fair and awake:
/// - while somebody waits, only the queue hands out permits: nobody overtakes;
/// - the mark that somebody waits is set under the lock, together with the finding that no permit is free;
/// - whoever makes room (a release, a higher limit) and finds the mark hands out.
pub(super) struct Permits {
    /// Bits 0..31: permits out. Bit 31: somebody waits. Bits 32..63: the limit.
    word: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    /// In the order of arrival. Who is no longer in it has been given a permit.
    waiting: BTreeMap<Ticket, Waker>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What came of asking for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A permit was free.
    Admitted,
    /// It waits.
    Queued(Ticket),
    /// No permit is free and no place in the queue either.
    Full,
}

/// Numbers that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) limit: usize,
    pub(super) out: usize,
    pub(super) waiting: usize,
}

const WAITING: u64 = 1 << 31;
const LIMIT_SHIFT: u32 = 32;
/// The mark must not fit beneath any limit, see [`is_free`].
const MAX_LIMIT: u64 = WAITING - 1;

impl Permits {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            word: AtomicU64::new(clamp(limit) << LIMIT_SHIFT),
            queue: Mutex::new(Queue::default()),
        }
    }

    /// Takes a permit if one is free and nobody waits.
    #[inline]
    pub(super) fn try_acquire(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while is_free(word) {
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes a permit or a place in the queue, of which there are `places`.
    pub(super) fn enter(&self, waker: Waker, places: usize) -> Entry {
        // A waker that is not kept is dropped after the lock: it is user code.
        let mut queue = lock(&self.queue);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (next, entry) = if is_free(word) {
                (word + 1, Entry::Admitted)
            } else if queue.waiting.len() < places {
                (word | WAITING, Entry::Queued(Ticket(queue.next)))
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
    pub(super) fn is_turn(&self, ticket: Ticket, waker: Waker) -> bool {
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
    pub(super) fn leave(&self, ticket: Ticket) -> bool {
        let waker; // Declared before the lock, so dropped after it.
        let mut queue = lock(&self.queue);
        waker = queue.waiting.remove(&ticket);
        if queue.waiting.is_empty() {
            self.word.fetch_and(!WAITING, Ordering::Relaxed);
        }
        waker.is_some()
    }

    /// Gives a permit back.
    #[inline]
    pub(super) fn release(&self) {
        if self.word.fetch_sub(1, Ordering::Release) & WAITING != 0 {
            self.hand_out();
        }
    }

    /// Moves the limit. Permits that are out stay out.
    pub(super) fn resize(&self, limit: usize) {
        let limit = clamp(limit) << LIMIT_SHIFT;
        let mut word = self.word.load(Ordering::Relaxed);
        while let Err(now) = self.replace(word, limit | (word & (WAITING | MAX_LIMIT))) {
            word = now;
        }
        if word & WAITING != 0 {
            self.hand_out();
        }
    }

    pub(super) fn count(&self) -> Count {
        let queue = lock(&self.queue);
        let word = self.word.load(Ordering::Relaxed);
        Count {
            limit: limit(word) as usize,
            out: out(word) as usize,
            waiting: queue.waiting.len(),
        }
    }

    #[cold]
    fn hand_out(&self) {
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
            match self.replace(word, (word & !WAITING | mark) + 1) {
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
/// "there is room and nobody waits".
const fn is_free(word: u64) -> bool {
    (word as u32) < (word >> LIMIT_SHIFT) as u32
}

const fn out(word: u64) -> u64 {
    word & MAX_LIMIT
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
