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

/// Locks `mutex` also when a panic has poisoned it: state kept by this project is valid between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> + '_ {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
