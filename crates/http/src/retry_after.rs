//! The header `Retry-After`.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};

/// No server may silence its callers for longer; linkerd's and Envoy's bound.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// What the first valid `Retry-After` asks for, at most [`LONGEST`]; a date that has passed means now.
///
/// `now` is wall time and asked for only if there is a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: fn() -> SystemTime) -> Option<Duration> {
    headers
        .get_all(RETRY_AFTER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(|value| seconds(value).or_else(|| until(value, now)))
        .map(|after| after.min(LONGEST))
}

/// RFC 9110: `delay-seconds = 1*DIGIT`, so neither a sign nor a fraction.
fn seconds(value: &str) -> Option<Duration> {
    digits(value).map(Duration::from_secs)
}

fn until(value: &str, now: fn() -> SystemTime) -> Option<Duration> {
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now()).unwrap_or_default())
}

/// A number of digits and nothing else; what does not fit is as large as can be.
pub(crate) fn digits(value: &str) -> Option<u64> {
    let all_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| value.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// 21 October 2015, 07:28:00 GMT.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480)
    }

    fn read(values: &[&str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(RETRY_AFTER, value);
        }
        retry_after(&headers, now)
    }

    fn secs(secs: u64) -> Option<Duration> {
        Some(Duration::from_secs(secs))
    }

    // scenario 7, row 17
    #[test]
    fn seconds_and_dates_are_read_the_past_is_now_and_nothing_is_longer_than_five_minutes() {
        for (value, after) in [
            ("0", secs(0)),
            ("120", secs(120)),
            ("0007", secs(7)),
            ("301", secs(300)),
            ("1000000000000", secs(300)),
            ("99999999999999999999999999", secs(300)),
            ("Wed, 21 Oct 2015 07:28:42 GMT", secs(42)),
            ("Wednesday, 21-Oct-15 07:28:42 GMT", secs(42)),
            ("Wed Oct 21 07:28:42 2015", secs(42)),
            ("Wed, 21 Oct 2015 07:27:59 GMT", secs(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", secs(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", secs(300)),
        ] {
            assert_eq!(read(&[value]), after, "{value}");
        }
    }

    // row 17
    #[test]
    fn junk_is_ignored() {
        for junk in [
            "",
            "-1",
            "+5",
            "1.5",
            "5s",
            "0x5",
            "1e3",
            "5, 6",
            "soon",
            "ٔ5",
            "Wed, 21 Oct 2015",
            "Wed, 21 Oct 2015 07:28:42 CET",
            "Sun, 06 Nov 0000 08:49:37 GMT",
        ] {
            assert_eq!(read(&[junk]), None, "{junk:?}");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn of_several_the_first_valid_counts() {
        assert_eq!(read(&["soon", "7", "9"]), secs(7));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_wait_longer_than_five_minutes(
            value in prop::collection::vec(0x20u8..=0xff, 0..40),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
                prop_assert!(retry_after(&headers, now).is_none_or(|after| after <= LONGEST));
            }
        }
    }
}
