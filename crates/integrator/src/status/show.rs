//! How a status prints.

use std::fmt;

use super::{CheckStatus, ComponentStatus, EndpointStatus, ErrorStatus, ServiceStatus, Status};

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {}, {}, up {:.0?}, {} tasks, configuration {}",
            self.name,
            self.lifecycle,
            if self.ready { "ready" } else { "not ready" },
            self.up,
            self.tasks,
            self.config.revision
        )?;
        if let Some(error) = &self.config.error {
            writeln!(f, "  a newer configuration was refused: {error}")?;
        }
        if let Some(error) = self.remember.as_ref().and_then(|it| it.error.as_ref()) {
            writeln!(f, "  the file of what is remembered: {error}")?;
        }
        for component in &self.components {
            let ComponentStatus {
                name,
                status,
                trend,
                last_error,
                ..
            } = component;
            write!(f, "  {name} is {status}, {trend}")?;
            match last_error {
                Some(error) => writeln!(f, "; last error: {error}")?,
                None => writeln!(f)?,
            }
        }
        self.services.iter().try_for_each(|service| service.fmt(f))
    }
}

impl fmt::Display for ServiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            discovery,
            retries,
            limit,
            ..
        } = self;
        write!(
            f,
            "\n{}: {} by {}",
            self.name, discovery.resolution, discovery.source
        )?;
        if let Some(age) = discovery.age {
            write!(f, ", {age:.0?} ago")?;
        }
        if discovery.suspect {
            write!(f, ", suspect: older endpoints are held")?;
        }
        if let Some(age) = discovery.remembered {
            write!(f, ", remembered from {age:.0?} ago")?;
        }
        if let Some(failing) = discovery.failing {
            write!(f, ", failing for {failing:.0?}")?;
        }
        if let Some(error) = &discovery.error {
            write!(f, ", last error: {error}")?;
        }
        if self.panic {
            write!(f, ", panic: too many endpoints are out to be believed")?;
        }
        writeln!(
            f,
            "\n  calls {}, in flight {} of {}, waiting {}, failed {}, refused {}, abandoned {}; retries {}, refused {}",
            self.calls,
            limit.in_use,
            limit.limit,
            limit.waiting,
            self.failed,
            self.refused,
            self.abandoned,
            retries.made,
            retries.refused
        )?;
        for error in &self.errors {
            let ErrorStatus {
                kind,
                count,
                last_ago,
                sample,
                ..
            } = error;
            writeln!(
                f,
                "  {kind} x {count}, the last {last_ago:.0?} ago: {sample}"
            )?;
        }
        writeln!(
            f,
            "  {:<24} {:>10} {:>9} {:>9} {:>8} {:>9}  gate",
            "endpoint", "in flight", "attempts", "failures", "success", "mean ms"
        )?;
        self.endpoints
            .iter()
            .try_for_each(|endpoint| endpoint.fmt(f))
    }
}

impl fmt::Display for EndpointStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = self
            .latency_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        write!(
            f,
            "  {:<24} {:>10} {:>9} {:>9} {:>7.1}% {:>9}  {}",
            self.id,
            self.in_flight,
            self.attempts,
            self.failures,
            self.success * 100.0,
            latency,
            self.gate
        )?;
        if let Some(check) = &self.check {
            write!(f, "; {check}")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(age) = self.age else {
            return f.write_str("not checked yet");
        };
        write!(f, "{} as of {age:.0?} ago", self.state)?;
        match &self.last_error {
            Some(error) if self.state != "healthy" => write!(f, ": {error}"),
            _ => Ok(()),
        }
    }
}
