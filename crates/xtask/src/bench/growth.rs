//! What a mesh costs as it grows, as the binary `growth` measures it.

use serde_json::Value;

use super::measure::{Lab, number};

/// Memory, updates and status at so many endpoints and services, and the start of a mesh.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    pub(crate) start_us: Option<f64>,
    /// The same, for the first mesh of a process.
    pub(crate) first_start_us: Option<f64>,
    pub(crate) endpoints: Vec<AtEndpoints>,
    pub(crate) services: Vec<AtServices>,
    /// What one more endpoint takes, its connection aside.
    pub(crate) bytes_per_endpoint: Option<f64>,
}

/// One service with so many endpoints.
#[derive(Debug)]
pub(crate) struct AtEndpoints {
    pub(crate) number: u64,
    pub(crate) bytes: f64,
    pub(crate) patch_us: f64,
    /// All are named again, and one of them has moved.
    pub(crate) restate_us: f64,
    /// All have moved.
    pub(crate) replace_us: f64,
    pub(crate) status_us: f64,
}

/// So many services with ten endpoints each.
#[derive(Debug)]
pub(crate) struct AtServices {
    pub(crate) number: u64,
    pub(crate) bytes: f64,
    pub(crate) ready_us: f64,
    pub(crate) status_us: f64,
}

impl Growth {
    pub(crate) fn measure(lab: &Lab<'_>) -> Result<Self, String> {
        eprintln!("growing");
        Self::read(&lab.ask("growth", &[])?)
    }

    fn read(answer: &Value) -> Result<Self, String> {
        let mut endpoints = rows(&answer["endpoints"], |number_of, row| {
            Ok(AtEndpoints {
                number: number_of,
                bytes: number(row, "bytes")?,
                patch_us: number(row, "patch_us")?,
                restate_us: number(row, "restate_us")?,
                replace_us: number(row, "replace_us")?,
                status_us: number(row, "status_us")?,
            })
        })?;
        let mut services = rows(&answer["services"], |number_of, row| {
            Ok(AtServices {
                number: number_of,
                bytes: number(row, "bytes")?,
                ready_us: number(row, "ready_us")?,
                status_us: number(row, "status_us")?,
            })
        })?;
        endpoints.sort_unstable_by_key(|row| row.number);
        services.sort_unstable_by_key(|row| row.number);
        Ok(Self {
            start_us: Some(number(answer, "start_us")?),
            first_start_us: Some(number(answer, "first_start_us")?),
            bytes_per_endpoint: per_endpoint(&endpoints),
            endpoints,
            services,
        })
    }
}

fn rows<T>(
    object: &Value,
    row: impl Fn(u64, &Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let rows = object.as_object().ok_or("`growth` answered without rows")?;
    rows.iter()
        .map(|(at, figures)| {
            let number = at.parse().map_err(|_| format!("{at} is no number"))?;
            row(number, figures)
        })
        .collect()
}

/// Between the fewest endpoints and the most: what a service takes without any falls out.
#[allow(clippy::cast_precision_loss)] // Numbers of endpoints.
fn per_endpoint(rows: &[AtEndpoints]) -> Option<f64> {
    let (first, last) = (rows.first()?, rows.last()?);
    let more = last
        .number
        .checked_sub(first.number)
        .filter(|more| *more > 0)?;
    Some((last.bytes - first.bytes) / more as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_sorted_by_number_and_memory_is_what_one_more_endpoint_takes() {
        let row = |bytes: u32| json!({"bytes": bytes, "patch_us": 1, "restate_us": 1, "replace_us": 2, "status_us": 3});
        let service = json!({"bytes": 7, "ready_us": 1, "status_us": 2});
        let answer = json!({
            "start_us": 1.5,
            "first_start_us": 7_000.0,
            "endpoints": {"1000": row(100_500), "10": row(1_500)},
            "services": {"10": service},
        });
        let growth = Growth::read(&answer).expect("complete");
        let numbers: Vec<_> = growth.endpoints.iter().map(|row| row.number).collect();
        assert_eq!(numbers, [10, 1_000]);
        assert_eq!(growth.bytes_per_endpoint, Some(100.0));
        assert!(Growth::read(&json!({})).is_err());
    }
}
