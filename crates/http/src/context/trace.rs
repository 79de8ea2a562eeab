//! W3C's trace context.

use std::{
    fmt::{self, Write},
    num::{NonZeroU64, NonZeroU128},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::only;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-` 32 digits `-` 16 digits `-` 2 digits
const LENGTH: usize = 55;
/// A later version may say more. What it says so is not kept, so this bounds what is looked at.
const LONGEST: usize = 256;

/// W3C's bounds of `tracestate`: what everybody has to pass on, and how many members there may be.
const LONGEST_STATE: usize = 512;
const MOST_MEMBERS: usize = 32;

const SAMPLED: u8 = 1;
/// Of version 0 and its level 2: sampled, and that the id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// The trace that a request belongs to: W3C's `traceparent` and `tracestate`.
///
/// It prints as `traceparent`.
///
/// # Clone
///
/// A few words; `tracestate` is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: NonZeroU128,
    parent_id: NonZeroU64,
    flags: u8,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// The trace `trace_id`, in which `parent_id` is the span that a request is sent from.
    pub const fn new(trace_id: NonZeroU128, parent_id: NonZeroU64, sampled: bool) -> Self {
        Self {
            trace_id,
            parent_id,
            flags: sampled as u8,
            state: None,
        }
    }

    /// What the headers of a request say: nothing if `traceparent` is not there exactly once, or is not as W3C has it. A
    /// `tracestate` that is not, or has more than 512 bytes, is left out.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut trace = parent(only(headers, &TRACEPARENT)?.as_bytes())?;
        trace.state = state(headers);
        Some(trace)
    }

    /// Which trace it is.
    pub const fn trace_id(&self) -> NonZeroU128 {
        self.trace_id
    }

    /// The span that the request was sent from.
    pub const fn parent_id(&self) -> NonZeroU64 {
        self.parent_id
    }

    /// Whether the caller records it.
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Says it in `headers`, unless they name a trace already.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        if headers.contains_key(&TRACEPARENT) {
            return;
        }
        let mut text = Text {
            bytes: [0; LENGTH],
            length: 0,
        };
        write!(text, "{self}").expect("it has as many letters");
        let value = HeaderValue::from_bytes(&text.bytes).expect("digits and dashes are a value");
        headers.insert(TRACEPARENT, value);
        match &self.state {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            // Without its `traceparent` it means nothing.
            None => headers.remove(TRACESTATE),
        };
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            parent_id,
            flags,
            ..
        } = self;
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{flags:02x}")
    }
}

/// Where it is written without a `String`.
struct Text {
    bytes: [u8; LENGTH],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let to = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        to.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

fn parent(text: &[u8]) -> Option<TraceContext> {
    if text.len() > LONGEST {
        return None;
    }
    let (known, more) = text.split_at_checked(LENGTH)?;
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    let version = hex(&known[..2])?;
    let fits = match version {
        0 => more.is_empty(),
        // Forbidden, so that nobody takes a line of it for one.
        0xff => false,
        _ => more.first().is_none_or(|next| *next == b'-'),
    };
    if !dashes || !fits {
        return None;
    }
    Some(TraceContext {
        trace_id: NonZeroU128::new(hex(&known[3..35])?)?,
        parent_id: NonZeroU64::new(hex(&known[36..52])? as u64)?,
        flags: hex(&known[53..55])? as u8 & KNOWN_FLAGS,
        state: None,
    })
}

/// Small letters only, as W3C has it; at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// It may come in several headers, which are one list.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(TRACESTATE);
    let (mut bytes, mut members) = (0, 0);
    for value in &values {
        bytes += value.len() + usize::from(bytes > 0);
        if bytes > LONGEST_STATE {
            return None;
        }
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let member = member.trim_ascii();
            // An empty one is allowed, and nothing.
            if !member.is_empty() {
                members += 1;
                if members > MOST_MEMBERS || !is_member(member) {
                    return None;
                }
            }
        }
    }
    if members == 0 {
        return None;
    }
    let mut values = values.iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(first.clone());
    };
    let mut all = Vec::with_capacity(bytes);
    all.extend_from_slice(first.as_bytes());
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(all)).ok()
}

/// `key=value`: the key of a vendor, or of a tenant at a vendor.
fn is_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let (key, value) = (&member[..at], &member[at + 1..]);
    let of_key =
        |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let starts = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    // The commas are gone, and what is not printable no list may have.
    let of_value = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'=';
    (1..=256).contains(&key.len())
        && key.first().is_some_and(starts)
        && key.iter().all(of_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(of_value)
}
