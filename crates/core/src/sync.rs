//! The atomics and locks of the path of a call: std's, or loom's when the models run (`--cfg mesh_loom`).
//!
//! Only what the models swap is here. `Arc` stays std's: loom's cannot be a method receiver.

#[cfg(not(mesh_loom))]
pub use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(mesh_loom)]
pub use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

/// Keeps `T` on cache lines of its own, two of them: processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// A small number for this thread: threads count up in the order in which they first ask. What is spread over shards
/// takes the one of this number, modulo how many there are.
pub fn thread_number() -> usize {
    use std::{cell::Cell, sync::atomic};

    static NEXT: atomic::AtomicUsize = atomic::AtomicUsize::new(0);
    const UNKNOWN: usize = usize::MAX;

    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(UNKNOWN) };
    }

    NUMBER.with(|number| {
        if number.get() == UNKNOWN {
            number.set(NEXT.fetch_add(1, atomic::Ordering::Relaxed));
        }
        number.get()
    })
}

/// Locks `mutex` also when a panic has poisoned it: state kept by this project is valid between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> + '_ {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
