//! Which server is bad when, and how.

use std::time::Duration;

/// One row is one part of the run, one letter a server: see [`Condition::letter`]. A short run plays the first rows only.
const SCRIPT: [&[u8; SERVERS]; 6] = [
    b"S.f.......",
    b".d.f......",
    b".r..sS....",
    b".....fds..",
    b"..s...r..f",
    b"f.......S.",
];

pub(crate) const SERVERS: usize = 10;

/// A part takes a second at least, so that a call meets the faults of at most two, but for runs that would then be
/// without one of the faults.
const SHORTEST: Duration = Duration::from_secs(1);
const ALL_FAULTS: usize = 3;

/// For so long after a change the servers of both rows are bad, so that a server that is slow to die leaves no moment
/// in which too few are.
const OVERLAP: Duration = Duration::from_millis(25);

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Well,
    /// Answers 400 ms late.
    Slow,
    /// Answers two seconds late: too late.
    Stuck,
    /// Answers 500, faster than any healthy server.
    Failing,
    /// Does not listen; its connections were closed with the requests on them.
    Dead,
    /// Listens on its old port again, but is cold: 100 ms late, and every second answer is 503.
    Reviving,
}

impl Condition {
    /// The letter for it in the script and in the line of state.
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Well => '.',
            Self::Slow => 's',
            Self::Stuck => 'S',
            Self::Failing => 'f',
            Self::Dead => 'd',
            Self::Reviving => 'r',
        }
    }

    const fn from_letter(letter: u8) -> Self {
        match letter {
            b's' => Self::Slow,
            b'S' => Self::Stuck,
            b'f' => Self::Failing,
            b'd' => Self::Dead,
            b'r' => Self::Reviving,
            _ => Self::Well,
        }
    }

    /// By how much later than a healthy server it answers.
    pub(crate) const fn delay(self) -> Duration {
        match self {
            Self::Slow => Duration::from_millis(400),
            Self::Stuck => Duration::from_secs(2),
            Self::Reviving => Duration::from_millis(100),
            Self::Well | Self::Failing | Self::Dead => Duration::ZERO,
        }
    }
}

/// What the letters mean.
pub(crate) const LEGEND: &str =
    "s +400 ms  S +2 s  f 500 at once  d dead  r back on its port, cold, every second answer 503";

/// What a server suffers in a run, from its first part to its last.
pub(crate) fn of_server(server: usize, run: Duration) -> String {
    let rows = rows(run).iter();
    rows.map(|row| row[server] as char).collect()
}

fn rows(run: Duration) -> &'static [&'static [u8; SERVERS]] {
    let most = (run.as_nanos() / SHORTEST.as_nanos()) as usize;
    &SCRIPT[..most.clamp(ALL_FAULTS, SCRIPT.len())]
}

/// From a point of the run on, a server is in another condition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) at: Duration,
    pub(crate) server: usize,
    pub(crate) condition: Condition,
}

/// How the servers are when the first call comes.
pub(crate) fn first() -> [Condition; SERVERS] {
    SCRIPT[0].map(Condition::from_letter)
}

/// All later changes of a run that takes `run`, in order.
pub(crate) fn changes(run: Duration) -> impl Iterator<Item = Change> {
    let rows = rows(run);
    let part = run / rows.len() as u32;
    (1u32..).zip(rows.windows(2)).flat_map(move |(i, rows)| {
        let (starts, recovers): (Vec<_>, Vec<_>) = (0..SERVERS)
            .filter(|&server| rows[0][server] != rows[1][server])
            .map(|server| (server, Condition::from_letter(rows[1][server])))
            .partition(|&(_, condition)| condition != Condition::Well);
        let at = part * i;
        let change = |at| {
            move |(server, condition)| Change {
                at,
                server,
                condition,
            }
        };
        let starts = starts.into_iter().map(change(at));
        let recovers = recovers.into_iter().map(change(at + OVERLAP.min(part / 2)));
        starts.chain(recovers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn at_any_time_at_least_a_fifth_of_the_servers_is_bad() {
        for run in [1, 3, 10, 3600].map(Duration::from_secs) {
            let mut now = first();
            let bad =
                |now: &[Condition; SERVERS]| now.iter().filter(|c| **c != Condition::Well).count();
            assert!(bad(&now) * 5 >= SERVERS);
            for change in changes(run) {
                now[change.server] = change.condition;
                assert!(bad(&now) * 5 >= SERVERS, "{now:?} after {change:?}");
                assert!(bad(&now) * 2 <= SERVERS, "{now:?} after {change:?}");
            }
        }
    }

    #[test]
    fn short_runs_have_fewer_parts_but_every_fault() {
        for (seconds, parts) in [(1, 3), (3, 3), (5, 5), (10, 6), (3600, 6)] {
            let rows = rows(Duration::from_secs(seconds));
            assert_eq!(rows.len(), parts);
            for letter in *b"sSfdr" {
                assert!(rows.iter().any(|row| row.contains(&letter)));
            }
        }
    }

    #[test]
    fn changes_are_in_order_and_within_the_run() {
        for run in [1, 3, 10].map(Duration::from_secs) {
            let times: Vec<_> = changes(run).map(|change| change.at).collect();
            assert!(times.is_sorted());
            assert!(times.iter().all(|at| *at < run));
        }
    }

    #[test]
    fn every_fault_moves_and_every_server_is_bad_once() {
        for letter in [b'f', b's', b'S', b'd', b'r'] {
            let servers = (0..SERVERS).filter(|&i| SCRIPT.iter().any(|row| row[i] == letter));
            assert!(servers.count() >= 2, "{}", letter as char);
        }
        for server in 0..SERVERS {
            assert!(SCRIPT.iter().any(|row| row[server] != b'.'), "{server}");
        }
    }

    #[test]
    fn the_dead_come_back_and_only_they() {
        for (rows, server) in SCRIPT
            .windows(2)
            .flat_map(|rows| (0..SERVERS).map(move |i| (rows, i)))
        {
            assert_eq!(rows[0][server] == b'd', rows[1][server] == b'r', "{server}");
        }
        let last = changes(LONG).last().expect("there are changes");
        assert_ne!(last.condition, Condition::Dead);
    }

    #[test]
    fn letters_are_read_as_they_are_written() {
        for letter in SCRIPT.into_iter().flatten().copied() {
            assert_eq!(Condition::from_letter(letter).letter(), letter as char);
        }
    }
}
