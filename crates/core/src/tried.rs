//! What was tried in vain, told to who serves the request it was tried for.
//!
//! Not by what the call ends with: its last attempt may have brought a response like any other, and who made the call may
//! say something else in its place.

use std::cell::Cell;

thread_local! {
    static TRIED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that a call has failed and is not tried again, for whoever runs this [`within`].
pub fn note() {
    TRIED.set(true);
}

/// Runs `step`, a poll say, and sets `tried` if a call has failed in it that is not tried again. It is told to nobody else:
/// after it, also on panic, things are for those around it as before.
pub fn within<T>(tried: &mut bool, step: impl FnOnce() -> T) -> T {
    struct Restore<'a> {
        tried: &'a mut bool,
        before: bool,
    }

    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            *self.tried |= TRIED.replace(self.before);
        }
    }

    let before = TRIED.replace(false);
    let _restore = Restore { tried, before };
    step()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_to_the_innermost_that_runs_it_and_to_nobody_else_also_if_that_panics() {
        let (mut outer, mut inner, mut later) = (false, false, false);
        within(&mut outer, || {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                within(&mut inner, || {
                    note();
                    panic!()
                })
            }));
            assert!(panicked.is_err());
        });
        assert!(inner && !outer);
        note();
        within(&mut later, || ());
        assert!(!later, "what was noted before is somebody else's");
        within(&mut later, note);
        within(&mut later, || ());
        assert!(later, "it stays");
    }
}
