//! How single values are read: each refuses what it cannot be, so that the error carries its place in the file.

use std::{collections::BTreeMap, fmt, fmt::Display, marker::PhantomData, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use tower_mesh_balance::Strategy;
use tower_mesh_core::{Priority, Ratio, ServiceName};

use crate::{policy::Check, profile::Profile};

/// More is a slip of the unit.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads a text and understands it with `parse`.
fn text<'de, D, T, E>(de: D, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    E: Display,
{
    let text = String::deserialize(de)?;
    parse(&text).map_err(D::Error::custom)
}

/// A duration above zero.
pub(super) fn time<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Duration>, D::Error> {
    let time = duration(de)?;
    if time.is_zero() {
        return Err(D::Error::custom("a duration must be above zero"));
    }
    Ok(Some(time))
}

/// A duration that may be zero.
pub(super) fn time_or_zero<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Duration>, D::Error> {
    duration(de).map(Some)
}

fn duration<'de, D: Deserializer<'de>>(de: D) -> Result<Duration, D::Error> {
    text(de, |text| {
        let time = humantime::parse_duration(text).map_err(|error| {
            format!("{text:?} is no duration: {error}; write \"500ms\" or \"2s\"")
        })?;
        if time > LONGEST {
            return Err(format!("{text:?} is longer than a year"));
        }
        Ok(time)
    })
}

/// A share between 0 and 1.
pub(super) fn ratio<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Ratio>, D::Error> {
    let share = f64::deserialize(de)?;
    Ratio::new(share).map(Some).map_err(D::Error::custom)
}

/// A text, or a list of such.
pub(super) fn one_or_many<'de, D, T>(de: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            Ok(vec![T::deserialize(text.into_deserializer())?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(list))
        }
    }

    de.deserialize_any(OneOrMany(PhantomData)).map(Some)
}

/// The name of a service.
pub(super) fn name<'de, D: Deserializer<'de>>(de: D) -> Result<Option<ServiceName>, D::Error> {
    text(de, ServiceName::new).map(Some)
}

/// A table whose keys are names of services.
pub(super) fn names<'de, D, T>(de: D) -> Result<BTreeMap<ServiceName, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    BTreeMap::<String, T>::deserialize(de)?
        .into_iter()
        .map(|(name, value)| Ok((ServiceName::new(&name)?, value)))
        .collect::<Result<_, tower_mesh_core::InvalidName>>()
        .map_err(D::Error::custom)
}

/// What a balancing strategy is called.
const STRATEGIES: [(&str, Strategy); 6] = [
    ("best-of-three", Strategy::BestOfThree),
    ("peak-ewma", Strategy::PeakEwma),
    ("least-in-flight", Strategy::LeastInFlight),
    ("round-robin", Strategy::RoundRobin),
    ("weighted", Strategy::Weighted),
    ("reported", Strategy::Reported),
];

/// The name of a balancing strategy.
pub(super) fn strategy<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Strategy>, D::Error> {
    text(de, |text| one_of(&STRATEGIES, "strategy", text))
}

/// What `strategy` is called.
pub(crate) fn strategy_name(strategy: Strategy) -> &'static str {
    let mut named = STRATEGIES.iter();
    named
        .find(|(_, other)| *other == strategy)
        .map_or("unnamed", |(name, _)| name)
}

/// The name of a kind of check.
pub(super) fn check<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Check>, D::Error> {
    text(de, |text| one_of(&Check::NAMES, "check", text))
}

/// The name of a class of priority.
pub(super) fn priority<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Priority>, D::Error> {
    text(de, |text| one_of(&Priority::NAMES, "priority", text))
}

/// The name of a profile.
pub(super) fn profile<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Profile>, D::Error> {
    text(de, |text| one_of(&Profile::NAMES, "profile", text))
}

fn one_of<T: Copy>(names: &[(&str, T)], what: &str, text: &str) -> Result<Option<T>, String> {
    let found = names.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| Some(*value)).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is no {what}, but one of {}", names.join(", "))
    })
}

/// An HTTP method.
pub(super) fn method<'de, D: Deserializer<'de>>(de: D) -> Result<http::Method, D::Error> {
    text(de, |text| {
        text.parse::<http::Method>()
            .map_err(|_| format!("{text:?} is no HTTP method"))
    })
}

/// A path that starts with a slash, with or without a query.
pub(super) fn header<'de, D: Deserializer<'de>>(
    de: D,
) -> Result<Option<http::HeaderName>, D::Error> {
    text(de, |text| {
        text.parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is no name of a header"))
    })
}

pub(super) fn path<'de, D: Deserializer<'de>>(
    de: D,
) -> Result<Option<http::uri::PathAndQuery>, D::Error> {
    text(de, |text| {
        if !text.starts_with('/') {
            return Err(format!("{text:?} is no path: it must start with a slash"));
        }
        text.parse()
            .map(Some)
            .map_err(|error| format!("{text:?} is no path: {error}"))
    })
}
