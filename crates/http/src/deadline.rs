//! What is left of a call's deadline, on the wire.
//!
//! gRPC has its own header, `grpc-timeout`; for all else it is [`TIMEOUT_HEADER`], `x-request-timeout-ms`. Both say how long
//! is left and not until when, so the two ends need not agree on the time of day. The unit is in the name and the value
//! nothing but digits, which every language reads in one line; the name is nobody's own, as Envoy's is, which an Envoy on
//! the way would take for itself.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header::Entry};

use crate::grpc::is_grpc;

/// What is left of the deadline of a request that is not gRPC: whole milliseconds, at most eight digits.
pub const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// gRPC's bound, and here that of both headers: 27 hours in milliseconds. What is longer is no deadline.
const DIGITS: usize = 8;
const LARGEST: u64 = 99_999_999;

/// How long the sender of a request still waits, if it says so: `grpc-timeout` of a gRPC request, [`TIMEOUT_HEADER`] of
/// any other. Zero means that its time is up.
///
/// # Errors
///
/// [`InvalidTimeout`] if the header is there twice, or is anything but one to eight digits (for gRPC with one of the units
/// `H`, `M`, `S`, `m`, `u`, `n` behind them): a sign, a fraction, a space, 10^18. To ignore it would give a request all the
/// time in the world whose sender has said that it has little.
pub fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, InvalidTimeout> {
    if is_grpc(headers) {
        only(headers.get_all(&GRPC_TIMEOUT).iter(), grpc)
    } else {
        only(headers.get_all(&TIMEOUT_HEADER).iter(), millis)
    }
}

/// Says in `headers` that the sender waits `left` from now, unless they say less already. It is rounded down: the other
/// side never has more time than there is.
///
/// Costs one allocation, and what the map needs for one more header.
pub fn set_timeout(headers: &mut HeaderMap, left: Duration) {
    if is_grpc(headers) {
        let (number, unit) = in_unit(left);
        say(headers, GRPC_TIMEOUT, grpc, left, || text(number, &[unit]));
    } else {
        let number = in_units_of(left, 1_000).min(LARGEST);
        say(headers, TIMEOUT_HEADER, millis, left, || text(number, &[]));
    }
}

/// One look-up tells what is said, and where to say it.
fn say(
    headers: &mut HeaderMap,
    name: HeaderName,
    read: fn(&[u8]) -> Option<Duration>,
    left: Duration,
    value: impl FnOnce() -> HeaderValue,
) {
    match headers.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(value());
        }
        Entry::Occupied(mut entry) => {
            let said = only(entry.iter(), read).ok().flatten();
            if said.is_none_or(|said| said > left) {
                entry.insert(value());
            }
        }
    }
}

/// The finest unit in which it fits.
fn in_unit(left: Duration) -> (u64, u8) {
    let seconds = left.as_secs();
    [
        (in_units_of(left, 1_000_000_000), b'n'),
        (in_units_of(left, 1_000_000), b'u'),
        (in_units_of(left, 1_000), b'm'),
        (seconds, b'S'),
        (seconds / 60, b'M'),
    ]
    .into_iter()
    .find(|(number, _)| *number <= LARGEST)
    .unwrap_or_else(|| ((seconds / 3600).min(LARGEST), b'H'))
}

/// In units of which a second has so many; what does not fit is more than anybody can say.
fn in_units_of(left: Duration, in_a_second: u32) -> u64 {
    let whole = left.as_secs().saturating_mul(in_a_second.into());
    whole.saturating_add((left.subsec_nanos() / (1_000_000_000 / in_a_second)).into())
}

/// Not `HeaderValue::from` the number: that allocates twice.
fn text(number: u64, unit: &[u8]) -> HeaderValue {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let mut text = [0; DIGITS + 1];
    let length = digits.len() + unit.len();
    text[..digits.len()].copy_from_slice(digits);
    text[digits.len()..length].copy_from_slice(unit);
    HeaderValue::from_bytes(&text[..length]).expect("digits and a letter are a value")
}

/// What the header says, if it is there, and there once.
fn only<'a>(
    mut values: impl Iterator<Item = &'a HeaderValue>,
    read: fn(&[u8]) -> Option<Duration>,
) -> Result<Option<Duration>, InvalidTimeout> {
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (read(value.as_bytes()), values.next()) {
        (Some(timeout), None) => Ok(Some(timeout)),
        _ => Err(InvalidTimeout(())),
    }
}

fn grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let number = number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

fn millis(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

/// One to eight digits and nothing else: no multiplication of it overflows.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
    )
}

/// The header with the time that is left is there, but nobody can tell what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTimeout(());

impl fmt::Display for InvalidTimeout {
    /// Without the value: it comes from outside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the header with the time that is left is none, or there twice")
    }
}

impl std::error::Error for InvalidTimeout {}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;

    use super::*;

    fn grpc_headers() -> HeaderMap {
        let grpc = HeaderValue::from_static("application/grpc+proto");
        HeaderMap::from_iter([(CONTENT_TYPE, grpc)])
    }

    fn read(
        mut headers: HeaderMap,
        name: HeaderName,
        values: &[&[u8]],
    ) -> Result<Option<Duration>, InvalidTimeout> {
        for value in values {
            headers.append(&name, HeaderValue::from_bytes(value).unwrap());
        }
        timeout_of(&headers)
    }

    fn read_grpc(value: &str) -> Result<Option<Duration>, InvalidTimeout> {
        read(grpc_headers(), GRPC_TIMEOUT, &[value.as_bytes()])
    }

    fn read_http(value: &str) -> Result<Option<Duration>, InvalidTimeout> {
        read(HeaderMap::new(), TIMEOUT_HEADER, &[value.as_bytes()])
    }

    const INVALID: Result<Option<Duration>, InvalidTimeout> = Err(InvalidTimeout(()));

    #[test]
    fn each_unit_of_grpc_is_read_to_eight_digits() {
        for (value, timeout) in [
            ("1n", Duration::from_nanos(1)),
            ("20u", Duration::from_micros(20)),
            ("0300m", Duration::from_millis(300)),
            ("0m", Duration::ZERO),
            ("00000000S", Duration::ZERO),
            ("5S", Duration::from_secs(5)),
            ("2M", Duration::from_secs(120)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(read_grpc(value), Ok(Some(timeout)), "{value}");
        }
    }

    // row 33: zero, negative, 10^18, junk
    #[test]
    fn what_is_no_timeout_is_an_error_and_not_all_the_time_in_the_world() {
        for value in [
            "",
            "m",
            "5",
            "5s",
            "5ms",
            "5 m",
            " 5m",
            "+5m",
            "-5m",
            "1.5S",
            "0x5m",
            "1e3m",
            "100000000n",
            "1000000000000000000m",
            "18446744073709551616n",
            "5m5m",
            "5,6m",
            "5h",
            "\u{665}m",
        ] {
            assert_eq!(read_grpc(value), INVALID, "{value:?}");
        }
        for value in [
            "",
            "-1",
            "+1",
            "1.5",
            "5m",
            "5ms",
            " 5",
            "5 ",
            "0x5",
            "1e3",
            "100000000",
            "1000000000000000000",
            "5, 6",
        ] {
            assert_eq!(read_http(value), INVALID, "{value:?}");
        }
    }

    #[test]
    fn milliseconds_are_read_and_each_protocol_has_its_own_header() {
        assert_eq!(read_http("0"), Ok(Some(Duration::ZERO)));
        assert_eq!(read_http("250"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(
            read_http("99999999"),
            Ok(Some(Duration::from_millis(99_999_999)))
        );
        assert_eq!(timeout_of(&HeaderMap::new()), Ok(None));
        let foreign = read(HeaderMap::new(), GRPC_TIMEOUT, &[b"junk"]);
        assert_eq!(foreign, Ok(None));
        let foreign = read(grpc_headers(), TIMEOUT_HEADER, &[b"junk"]);
        assert_eq!(foreign, Ok(None));
    }

    #[test]
    fn twice_is_once_too_often_also_if_both_say_the_same() {
        assert_eq!(
            read(HeaderMap::new(), TIMEOUT_HEADER, &[b"5", b"5"]),
            INVALID
        );
        assert_eq!(read(grpc_headers(), GRPC_TIMEOUT, &[b"5m", b"6m"]), INVALID);
    }

    #[test]
    fn it_is_written_in_the_finest_unit_that_fits_and_rounded_down() {
        for (left, grpc, http) in [
            (Duration::ZERO, "0n", "0"),
            (Duration::from_nanos(999_999), "999999n", "0"),
            (Duration::from_nanos(100_000_001), "100000u", "100"),
            (
                Duration::from_micros(99_999_999_999),
                "99999999m",
                "99999999",
            ),
            (Duration::from_secs(100_000), "100000S", "99999999"),
            (Duration::from_secs(100_000_059), "1666667M", "99999999"),
            (Duration::MAX, "99999999H", "99999999"),
        ] {
            let mut headers = grpc_headers();
            set_timeout(&mut headers, left);
            assert_eq!(headers[GRPC_TIMEOUT], grpc, "{left:?}");
            let mut headers = HeaderMap::new();
            set_timeout(&mut headers, left);
            assert_eq!(headers[TIMEOUT_HEADER], http, "{left:?}");
            assert_eq!(headers.len(), 1);
        }
    }

    #[test]
    fn what_a_request_says_already_is_only_made_less_and_junk_is_replaced() {
        let second = Duration::from_secs(1);
        for (said, written) in [
            ("300", "300"),
            ("1000", "1000"),
            ("5000", "1000"),
            ("junk", "1000"),
        ] {
            let mut headers =
                HeaderMap::from_iter([(TIMEOUT_HEADER, HeaderValue::from_static(said))]);
            set_timeout(&mut headers, second);
            assert_eq!(headers[TIMEOUT_HEADER], written, "{said}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TIMEOUT_HEADER, HeaderValue::from_static("1"));
        twice.append(TIMEOUT_HEADER, HeaderValue::from_static("2"));
        set_timeout(&mut twice, second);
        assert_eq!(timeout_of(&twice), Ok(Some(second)));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_never_longer(nanos in any::<u64>(), shift in 0..64) {
            let left = Duration::from_nanos(nanos >> shift);
            for mut headers in [HeaderMap::new(), grpc_headers()] {
                set_timeout(&mut headers, left);
                let read = timeout_of(&headers).unwrap().unwrap();
                prop_assert!(read <= left);
            }
        }

        #[test]
        fn no_header_makes_it_panic(value in prop::collection::vec(0x20u8..=0xff, 0..20)) {
            if HeaderValue::from_bytes(&value).is_ok() {
                let _ = read(grpc_headers(), GRPC_TIMEOUT, &[&value]);
                let _ = read(HeaderMap::new(), TIMEOUT_HEADER, &[&value]);
            }
        }
    }
}
