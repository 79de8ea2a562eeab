//! What is known not to hold.

use super::{
    Run, Size, Storm,
    figure::{Bar, Figure},
};

/// What is said of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not hold, which is known, and it is no worse than it was.
    Known,
    /// It does not hold.
    Fails,
}

/// A figure that does not hold: it may not become worse, and it leaves this table once it holds.
struct Exceeded {
    storm: Storm,
    size: Size,
    /// What the figure's name begins with.
    what: &'static str,
    /// How bad it may be.
    at: f64,
}

const fn of(storm: Storm, size: Size, what: &'static str, at: f64) -> Exceeded {
    Exceeded {
        storm,
        size,
        what,
        at,
    }
}

const EXCEEDED: &[Exceeded] = &[
    // Most of it is what is sent before the first call has run out of time, and cannot be taken back; a small fleet pays
    // more for finding out how much is too much.
    of(Storm::Slow, Size::Small, "work for callers", 0.063),
    of(Storm::Slow, Size::Small, "calls answered", 0.89),
    // The study's bar, of what all can do, is held; this is the stricter reading of it. It is 4.8 attempts for each of the
    // 500 clients, and to find within two seconds the only one of ten that is back (S9) takes a client five.
    of(
        Storm::Herd,
        Size::Full,
        "attempts in the first second to the fifth",
        4.1,
    ),
    of(
        Storm::Herd,
        Size::Small,
        "attempts in the first second to the fifth",
        4.3,
    ),
    // Of 5,000 attempts: a matter of chance.
    of(Storm::Newcomer, Size::Small, "its share", 0.75),
    // Nine tenths of the fleet have to do all of the work: at 85 % load those who are left run at 94 %. A fleet that never had
    // those that flap has the same p99 at that load (1.00 times it, with four seeds), so no judgement could do better. That
    // it is no worse than such a fleet is held, and noticed where nobody judges (`blind`: 1.51).
    of(
        Storm::Flapping,
        Size::Full,
        "the others' p99 to what it was",
        1.17,
    ),
    of(
        Storm::Flapping,
        Size::Small,
        "the others' p99 to what it was",
        1.6,
    ),
    // Beside "no endpoint", "overloaded" where servers say that they are.
    of(Storm::Total, Size::Small, "kinds of refusal", 2.0),
    // Now and then the limit goes too far, and what runs then is late, whatever its class: on few servers that is more of it.
    of(Storm::Priorities, Size::Small, "critical requests", 0.985),
];

/// What is said of `figure`, which came of `run`.
pub(super) fn judge(run: &Run, figure: &Figure) -> Verdict {
    if figure.holds() {
        return Verdict::Holds;
    }
    let mut exceeded = EXCEEDED.iter();
    let known = exceeded.find(|known| {
        known.storm == run.storm && known.size == run.size && figure.what.starts_with(known.what)
    });
    let worst = known.map(|known| match figure.bar {
        Bar::AtMost(_) => Bar::AtMost(known.at),
        Bar::AtLeast(_) => Bar::AtLeast(known.at),
    });
    match worst {
        Some(worst) if worst.holds(figure.value) && run.mutant.is_none() => Verdict::Known,
        _ => Verdict::Fails,
    }
}
