//! Follows the keys beneath a prefix by blocking queries.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures_util::stream;
use tower_mesh_core::{
    Key, KeyValueError, Prefix,
    kv::{Entry, Event, Listing, Watch},
};

use super::{failed, listing, tree};
use crate::{
    consul::Consul,
    error::ConsulError,
    places::Follower,
    turns::{Index, Pace},
};

/// One who follows a prefix. Consul says what there is, never what has happened: that is told from the difference.
pub(super) struct Watching {
    consul: Consul,
    follower: Follower,
    prefix: Prefix,
    from: u64,
    known: Known,
    events: VecDeque<Event>,
    index: Index,
    pace: Pace,
    pause: Duration,
}

/// What was told last; none before the first answer.
type Known = Option<Told>;

#[derive(Debug)]
struct Told {
    /// The revisions of the keys.
    keys: BTreeMap<Key, u64>,
    revision: u64,
}

impl Watching {
    pub(super) fn start(consul: Consul, prefix: Prefix, from: u64) -> Watch {
        let watching = Self {
            follower: consul.places.follower(),
            consul,
            prefix,
            from,
            known: None,
            events: VecDeque::new(),
            index: Index::default(),
            pace: Pace::default(),
            pause: Duration::ZERO,
        };
        Box::pin(stream::unfold(watching, |mut watching| async {
            let item = watching.next().await;
            Some((item, watching))
        }))
    }

    async fn next(&mut self) -> Result<Event, KeyValueError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if !self.pause.is_zero() {
                self.consul.clock.sleep(self.pause).await;
            }
            match self.ask().await {
                Ok(answered) => {
                    let (now, held) = answered;
                    self.events = events(&mut self.known, now, self.from);
                    let news = !self.events.is_empty();
                    self.pause = self.pace.answered(news, held, &self.consul.rng);
                }
                Err(error) => {
                    self.pause = self.consul.pause(&mut self.pace, &self.follower);
                    // Asked anew: another agent may know another index.
                    self.index.reset();
                    return Err(failed(error));
                }
            }
        }
    }

    /// What there is, and whether the agent has held the request for as long as it might.
    async fn ask(&mut self) -> Result<(Listing, bool), ConsulError> {
        let _place = self.follower.place().await;
        let wait = self.consul.crowd(&self.follower).held(self.consul.wait);
        let request = tree(&self.prefix).after(self.index.get(), wait);
        let began = self.consul.clock.now();
        let answer = self.consul.call(&request).await?;
        let held = request.is_held(self.consul.clock.now().since(began));
        let (now, index) = listing(answer, &self.prefix).await?;
        self.index.advance(index);
        Ok((now, held))
    }
}

/// What has happened between what is `known` and what there is `now`.
fn events(known: &mut Known, now: Listing, from: u64) -> VecDeque<Event> {
    let keys = now.entries.iter().map(|e| (e.key.clone(), e.revision));
    let told = Told {
        keys: keys.collect(),
        revision: now.revision,
    };
    let Some(old) = known.replace(told) else {
        // What was deleted since is not known, so all is said unless nothing has happened.
        return match from > 0 && from == now.revision {
            true => VecDeque::new(),
            false => VecDeque::from([Event::Reset(now)]),
        };
    };
    // The store has lost its state; or forgotten old deletions, and then it does no harm.
    let older = |entry: &Entry| {
        old.keys
            .get(&entry.key)
            .is_some_and(|r| *r > entry.revision)
    };
    if now.revision < old.revision || now.entries.iter().any(older) {
        return VecDeque::from([Event::Reset(now)]);
    }
    let Listing { entries, revision } = now;
    let there: BTreeMap<_, _> = entries.iter().map(|e| (&e.key, e.revision)).collect();
    let gone = old.keys.keys().filter(|key| !there.contains_key(key));
    let gone: Vec<_> = gone
        .map(|key| Event::Delete {
            key: key.clone(),
            revision,
        })
        .collect();
    let puts = entries
        .into_iter()
        .filter(|entry| old.keys.get(&entry.key) != Some(&entry.revision));
    let mut puts: Vec<_> = puts.collect();
    puts.sort_by_key(|entry| entry.revision);
    gone.into_iter()
        .chain(puts.into_iter().map(Event::Put))
        .collect()
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    fn listing(keys: &[(&str, u64)], revision: u64) -> Listing {
        let entries = keys.iter().map(|(key, revision)| Entry {
            key: Key::new(key).expect("a key"),
            value: "".into(),
            revision: *revision,
        });
        Listing {
            entries: entries.collect(),
            revision,
        }
    }

    fn told(known: &mut Known, now: Listing) -> Vec<String> {
        let events = events(known, now, 5);
        events
            .iter()
            .map(|event| match event {
                Event::Put(entry) => format!("{} is {}", entry.key, entry.revision),
                Event::Delete { key, revision } => format!("{key} went at {revision}"),
                Event::Reset(all) => format!("{} in all", all.entries.len()),
                _ => "?".into(),
            })
            .collect()
    }

    #[test]
    fn a_watch_tells_the_difference_and_all_where_there_is_none_to_tell() {
        let mut known = None;
        assert!(told(&mut known, listing(&[("a", 5)], 5)).is_empty());
        let now = listing(&[("a", 9), ("b", 7)], 9);
        assert_eq!(told(&mut known, now), ["b is 7", "a is 9"]);
        let now = listing(&[("b", 7)], 11);
        assert_eq!(told(&mut known, now), ["a went at 11"]);
        assert!(told(&mut known, listing(&[("b", 7)], 12)).is_empty());
        // Lost: by an older revision of a key, or of all.
        assert_eq!(told(&mut known, listing(&[("b", 3)], 13)), ["1 in all"]);
        assert_eq!(told(&mut known, listing(&[], 4)), ["0 in all"]);
        assert_eq!(told(&mut None, listing(&[("a", 6)], 6)), ["1 in all"]);
        assert_eq!(told(&mut None, listing(&[], 4)), ["0 in all"]);
    }
}
