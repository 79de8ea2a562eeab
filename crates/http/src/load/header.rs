//! The header in which a server says it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tower_mesh_core::Report;

use crate::retry_after::digits;

/// How busy the server is: `x-mesh-load: rif=7, us=2500, err=0.01`.
///
/// | field | says | bounds |
/// |---|---|---|
/// | `rif` | calls that are being served, this one aside | digits |
/// | `us` | microseconds that each of the calls takes that are served at once, see [`Report::new`] | digits, at most an hour |
/// | `err` | the share of calls that failed lately; none if it is not there | `0`, `1`, or a fraction between |
///
/// Why not the `endpoint-load-metrics` of ORCA? It speaks of shares of a capacity, of processor and memory. A server that is
/// a Rust process knows none; what it has is in none of ORCA's fields, so that nobody else would understand ours.
pub const LOAD_HEADER: HeaderName = HeaderName::from_static("x-mesh-load");

/// A header of ours is half as long.
const LONGEST: usize = 64;

/// What a call may take: an hour.
const MOST_US: u64 = 3_600_000_000;

/// Says in `headers` how busy the server is, instead of what they say already.
pub fn set_load(headers: &mut HeaderMap, report: Report) {
    let us = report.each().as_micros().min(u128::from(MOST_US));
    let mut text = format!("rif={}, us={us}", report.in_flight());
    if report.failing() > 0.0 {
        text.push_str(&format!(", err={:.3}", report.failing()));
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        headers.insert(LOAD_HEADER, value);
    }
}

/// How busy the server is, if it says so in exactly one header as [`LOAD_HEADER`] has it. A field that is not known is
/// passed over; one that is not as it should be, or comes twice, makes all of it void.
pub fn load_of(headers: &HeaderMap) -> Option<Report> {
    let mut values = headers.get_all(LOAD_HEADER).iter();
    let value = values.next()?;
    if values.next().is_some() || value.len() > LONGEST {
        return None;
    }
    read(value.to_str().ok()?)
}

fn read(text: &str) -> Option<Report> {
    let (mut rif, mut us, mut err) = (None, None, None);
    for field in text.split(',') {
        let (name, value) = field.trim_matches(' ').split_once('=')?;
        let before = match name {
            "rif" => rif.replace(digits(value)?).map(drop),
            "us" => us.replace(digits(value)?).map(drop),
            "err" => err.replace(share(value)?).map(drop),
            _ => None,
        };
        if before.is_some() {
            return None;
        }
    }
    let rif = u32::try_from(rif?).unwrap_or(u32::MAX);
    let each = Duration::from_micros(us?.min(MOST_US));
    Some(Report::new(rif, each).with_failing(err.unwrap_or(0.0)))
}

/// Digits with a point or without, at most 1: `f32` would take signs, exponents and `nan`, too.
fn share(value: &str) -> Option<f32> {
    let plain = value
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let share: f32 = value.parse().ok().filter(|_| plain)?;
    (share <= 1.0).then_some(share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(values: &[&str]) -> Option<Report> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                LOAD_HEADER,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        load_of(&headers)
    }

    fn report(in_flight: u32, us: u64, failing: f32) -> Option<Report> {
        Some(Report::new(in_flight, Duration::from_micros(us)).with_failing(failing))
    }

    #[test]
    fn what_is_said_is_read_in_any_order_and_what_is_new_is_passed_over() {
        for (value, read) in [
            ("rif=7, us=2500, err=0.01", report(7, 2_500, 0.01)),
            ("us=2500,rif=7", report(7, 2_500, 0.0)),
            ("rif=0, us=0, err=1", report(0, 0, 1.0)),
            ("rif=7, cpu=nan, us=1", report(7, 1, 0.0)),
            ("rif=99999999999999999999, us=1", report(u32::MAX, 1, 0.0)),
            ("rif=1, us=99999999999999999999", report(1, MOST_US, 0.0)),
        ] {
            assert_eq!(said(&[value]), read, "{value}");
        }
    }

    // row 34
    #[test]
    fn what_is_not_as_it_should_be_says_nothing() {
        for junk in [
            "",
            "rif=7",
            "us=2500",
            "rif=7, us=2500,",
            "rif=-7, us=2500",
            "rif=7, us=-1",
            "rif=7, us=2.5",
            "rif=7, us=nan",
            "rif=inf, us=1",
            "rif=, us=1",
            "rif=7, us=1, us=1",
            "rif=7, rif=0, us=1",
            "rif=7, us=1, err=nan",
            "rif=7, us=1, err=-0.1",
            "rif=7, us=1, err=1.01",
            "rif=7, us=1, err=1e-3",
            "rif=7, us=1, err=.",
            "RIF=7, us=1",
            "rif=7; us=1",
            "rif=7, us=1, padding=0123456789012345678901234567890123456789012345",
            "rif=٧, us=1",
        ] {
            assert_eq!(said(&[junk]), None, "{junk:?}");
        }
        assert_eq!(said(&[]), None);
        assert_eq!(said(&["rif=0, us=1", "rif=7, us=2500"]), None, "which one?");
    }

    #[test]
    fn what_was_said_before_is_replaced() {
        let mut headers = HeaderMap::new();
        set_load(&mut headers, Report::new(7, Duration::from_millis(1)));
        set_load(&mut headers, Report::new(8, Duration::from_millis(2)));
        assert_eq!(headers[LOAD_HEADER], "rif=8, us=2000");
        assert_eq!(headers.len(), 1);
    }

    proptest! {
        #[test]
        fn what_one_says_the_other_reads(
            in_flight in any::<u32>(),
            us in 0..=MOST_US,
            thousandths in 0u16..=1_000,
        ) {
            let failing = f32::from(thousandths) / 1e3;
            let report = Report::new(in_flight, Duration::from_micros(us)).with_failing(failing);
            let mut headers = HeaderMap::new();
            set_load(&mut headers, report);
            prop_assert_eq!(load_of(&headers), Some(report));
        }

        #[test]
        fn no_header_makes_it_panic(value in prop::collection::vec(0x20u8..=0xff, 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(LOAD_HEADER, value)]);
                let said = load_of(&headers);
                prop_assert!(said.is_none_or(|said| said.each().as_secs() <= 3_600));
            }
        }
    }
}
