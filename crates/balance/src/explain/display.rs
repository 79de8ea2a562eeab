//! An explanation in words.

use super::{Duration, EndpointNow, Explanation, JudgeKind, LevelNow, Takes, fmt};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, known) = (&self.service, self.endpoints.len());
        writeln!(f, "{service}: {known} endpoints by {:?}", self.strategy)?;
        for (nth, level) in self.levels.iter().enumerate() {
            writeln!(f, "{level}")?;
            let mut here: Vec<_> = self.of_level(Some(nth)).collect();
            // Those that are not compared come last, in discovery's order.
            here.sort_by_key(|of| of.rank.unwrap_or(usize::MAX));
            for of in here {
                writeln!(f, "  {of}")?;
            }
        }
        self.of_level(None).try_for_each(|of| writeln!(f, "{of}"))
    }
}

impl Explanation {
    fn of_level(&self, level: Option<usize>) -> impl Iterator<Item = &EndpointNow> {
        self.endpoints.iter().filter(move |of| of.level == level)
    }
}

impl fmt::Display for LevelNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "priority {}", self.priority)?;
        if self.distance > 0 {
            write!(f, ", distance {}", self.distance)?;
        }
        let percent = self.share.get() * 100.0;
        write!(
            f,
            ": {} endpoints, {percent:.0} % of the calls",
            self.endpoints
        )?;
        match self.is_panicking {
            true => f.write_str(", in a panic"),
            false => Ok(()),
        }
    }
}

impl fmt::Display for EndpointNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint.id(), self.takes)?;
        if let Some(rank) = self.rank {
            write!(f, ", number {rank}")?;
        }
        if let Some(cost) = self.cost {
            write!(f, ", cost {cost:.0}")?;
        }
        match self.latency {
            Some(latency) => write!(f, " ({:.1} ms", latency.as_secs_f64() * 1e3)?,
            None => f.write_str(" (no answer yet")?,
        }
        write!(f, ", {} in flight", self.in_flight)?;
        write!(f, ", {:.0} % succeed)", self.success * 100.0)?;
        if self.weight != 1 {
            write!(f, ", weight {}", self.weight)?;
        }
        if self.slow_start < 1.0 {
            let percent = self.slow_start * 100.0;
            write!(f, ", begins with {percent:.0} % of its weight")?;
        }
        Ok(())
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls => f.write_str("takes calls"),
            Self::Probes => f.write_str("takes probes"),
            Self::CallsInPanic(by) => write!(f, "takes calls in a panic, although {}", judged(*by)),
            Self::ProbesInPanic(by) => {
                write!(f, "takes probes in a panic, although {}", judged(*by))
            }
            Self::Shut(by, back_in) => {
                write!(f, "out, {}", judged(*by))?;
                back_in.map_or(Ok(()), |time: Duration| {
                    write!(f, " for another {time:.1?}")
                })
            }
            Self::Weightless => f.write_str("out, its weight is 0"),
            Self::NotInSubset => f.write_str("left to other clients"),
        }
    }
}

fn judged(by: JudgeKind) -> &'static str {
    match by {
        JudgeKind::Breaker => "its breaker is open",
        JudgeKind::Outlier => "it is ejected as an outlier",
        JudgeKind::Health => "it fails health checks",
        JudgeKind::Drain => "it drains",
        _ => "its gate is shut",
    }
}
