//! Leases, which Consul calls sessions.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_mesh_core::{KeyValueError, Lease, kv::KeyValueErrorKind};

use super::failed;
use crate::{consul::Consul, request::Request};

/// Consul's least and most.
const LEAST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    name: &'static str,
    #[serde(rename = "TTL")]
    ttl: String,
    /// Keys go with their lease.
    behavior: &'static str,
    lock_delay: String,
    /// None: an agent that is thought dead for a moment must not end the leases made through it.
    checks: [&'static str; 0],
    node_checks: [&'static str; 0],
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
struct Renewed {
    #[serde(rename = "TTL", default)]
    ttl: String,
}

const NEEDS: &str = "session:write on the agent's node";

pub(super) async fn grant(consul: &Consul, ttl: Duration) -> Result<Lease, KeyValueError> {
    let refuse = |why: &str| {
        Err(KeyValueError::new(
            KeyValueErrorKind::Refused,
            why.to_owned(),
        ))
    };
    if ttl.is_zero() {
        return refuse("a lease of no time");
    }
    if ttl > MOST {
        return refuse("a lease of more than 24 h, Consul's most");
    }
    let ttl = ttl.max(LEAST);
    let create = Create {
        name: "tower-mesh",
        ttl: format!("{}ms", ttl.as_nanos().div_ceil(1_000_000)),
        behavior: "delete",
        lock_delay: format!("{}ms", consul.lock_delay.as_millis()),
        checks: [],
        node_checks: [],
    };
    let request = Request::put(&["session", "create"], NEEDS);
    let request = request.json(&create).map_err(failed)?;
    // It is believed from now, not from when the answer comes.
    let sent = consul.clock.now();
    let answer = consul.call(&request).await.map_err(failed)?;
    let created: Created = answer.json().await.map_err(failed)?;
    Ok(Lease::new(created.id, ttl, sent))
}

pub(super) async fn renew(consul: &Consul, lease: &Lease) -> Result<Lease, KeyValueError> {
    let request = Request::put(&["session", "renew", lease.id()], NEEDS);
    let sent = consul.clock.now();
    let answer = consul.call(&request).await.map_err(failed)?;
    if answer.is_missing() {
        return Err(KeyValueError::lease_gone(lease));
    }
    let renewed: Vec<Renewed> = answer.json().await.map_err(failed)?;
    // Under load Consul gives more; less than was asked for it never gives.
    let told = renewed.first().and_then(|renewed| duration(&renewed.ttl));
    Ok(lease.renewed(told.unwrap_or(lease.ttl()).max(lease.ttl()), sent))
}

pub(super) async fn revoke(consul: &Consul, lease: &Lease) -> Result<(), KeyValueError> {
    let request = Request::put(&["session", "destroy", lease.id()], NEEDS);
    consul.call(&request).await.map(drop).map_err(failed)
}

/// A duration as Go writes it, such as `1m30s` or `10000ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let number: u32 = number.parse().ok()?;
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(number)?)?;
        rest = next;
    }
    Some(total)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("10000ms", 10_000),
            ("1h0m0s", 3_600_000),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for bad in ["10", "s", "1.5s", "-1s", "1y", "99999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
