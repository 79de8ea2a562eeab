//! The rules of watches.

use std::collections::BTreeMap;

use futures_util::StreamExt;

use super::{Finding, KeyValueHarness, ensure, key_value::At, within};
use crate::{
    kv::{Entry, Event, Key, Watch},
    testing::violations::Findings,
};

pub(super) async fn rules(h: &impl KeyValueHarness, found: &mut Findings) {
    let at = |name| At::new(h, name);
    found.note(
        "a watch begins with what there is",
        begins(&at("begins")).await,
    );
    found.note(
        "a watch goes on from a revision",
        goes_on(&at("goes-on")).await,
    );
    found.note(
        "a watch comes to what there is",
        follows(&at("follows")).await,
    );
    found.note("a watch keeps to its prefix", keeps(&at("keeps")).await);
    found.note(
        "a watch tells of keys that go with their lease",
        lease(&at("lease")).await,
    );
    found.note(
        "a watch from an unknown revision is reset",
        reset(&at("reset")).await,
    );
}

/// A watch, applied.
pub(super) struct Watched {
    watch: Watch,
    known: BTreeMap<Key, Entry>,
    /// The last revision that was told of each key since the last reset.
    told: BTreeMap<Key, u64>,
}

impl Watched {
    pub(super) fn start(at: &At<'_>, from: u64) -> Self {
        Self {
            watch: at.watch(from),
            known: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// The next event, applied.
    async fn next(&mut self, at: &At<'_>) -> Result<Event, String> {
        let watch = &mut self.watch;
        let event = async {
            loop {
                match watch.next().await {
                    Some(Ok(event)) => return Ok(event),
                    Some(Err(_)) => {}
                    None => return Err("the watch has ended".to_owned()),
                }
            }
        };
        let event = within(at.h, at.h.patience(), event).await;
        let event = event.ok_or_else(|| format!("nothing came within {:?}", at.h.patience()))??;
        self.apply(at, &event)?;
        Ok(event)
    }

    /// Waits until it knows these keys with these values, and no others.
    pub(super) async fn until(&mut self, at: &At<'_>, expected: &[(&Key, &str)]) -> Finding {
        while !self.is(expected) {
            self.next(at).await.map_err(|why| {
                format!(
                    "expected {expected:?}, was told {:?}, then: {why}",
                    self.known
                )
            })?;
        }
        Ok(())
    }

    fn is(&self, expected: &[(&Key, &str)]) -> bool {
        let known = self.known.values().map(|e| (&e.key, &*e.value));
        let expected: BTreeMap<_, _> = expected.iter().map(|(k, v)| (*k, v.as_bytes())).collect();
        known.eq(expected)
    }

    async fn quiet(&mut self, at: &At<'_>) -> Finding {
        match within(at.h, at.h.patience(), self.watch.next()).await {
            None | Some(Some(Err(_))) => Ok(()),
            other => Err(format!("nothing has happened, but it reports {other:?}")),
        }
    }

    fn apply(&mut self, at: &At<'_>, event: &Event) -> Finding {
        match event {
            Event::Put(entry) => {
                self.in_order(at, &entry.key, entry.revision)?;
                self.known.insert(entry.key.clone(), entry.clone());
            }
            Event::Delete { key, revision } => {
                self.in_order(at, key, *revision)?;
                self.known.remove(key);
            }
            Event::Reset(all) => {
                self.told.clear();
                for entry in &all.entries {
                    self.in_order(at, &entry.key, entry.revision)?;
                }
                let entries = all.entries.iter().map(|e| (e.key.clone(), e.clone()));
                self.known = entries.collect();
            }
        }
        Ok(())
    }

    fn in_order(&mut self, at: &At<'_>, key: &Key, revision: u64) -> Finding {
        ensure(at.prefix().covers(key), || {
            format!("{key} is not beneath {}", at.prefix())
        })?;
        let before = self.told.insert(key.clone(), revision);
        ensure(before <= Some(revision), || {
            format!("of {key} it reports revision {revision} after {before:?}")
        })
    }
}

fn is_reset(event: &Event) -> bool {
    matches!(event, Event::Reset(_))
}

async fn begins(at: &At<'_>) -> Finding {
    let (a, b) = (at.key("a"), at.key("b"));
    let nothing = Watched::start(at, 0).next(at).await?;
    ensure(
        matches!(&nothing, Event::Reset(all) if all.entries.is_empty()),
        || format!("of nothing it says {nothing:?}"),
    )?;
    at.put(&a, "1").await?;
    at.put(&b, "2").await?;
    let mut watched = Watched::start(at, 0);
    let first = watched.next(at).await?;
    at.delete(&a).await?;
    at.delete(&b).await?;
    ensure(is_reset(&first), || format!("it begins with {first:?}"))?;
    let begun = matches!(&first, Event::Reset(all) if all.entries.len() == 2);
    ensure(begun, || {
        format!("{a} and {b} are there, it says {first:?}")
    })
}

async fn goes_on(at: &At<'_>) -> Finding {
    let (a, b, c) = (at.key("a"), at.key("b"), at.key("c"));
    at.put(&a, "1").await?;
    at.put(&b, "1").await?;
    let listing = at.list().await?;
    at.put(&c, "1").await?;
    at.delete(&b).await?;
    let mut watched = Watched::start(at, listing.revision);
    watched.known = listing
        .entries
        .into_iter()
        .map(|e| (e.key.clone(), e))
        .collect();
    watched.until(at, &[(&a, "1"), (&c, "1")]).await?;
    let last = at.put(&a, "2").await?;
    watched.until(at, &[(&a, "2"), (&c, "1")]).await?;
    Watched::start(at, last).quiet(at).await?;
    at.delete(&a).await?;
    at.delete(&c).await?;
    watched.until(at, &[]).await
}

async fn follows(at: &At<'_>) -> Finding {
    let (a, b) = (at.key("a"), at.key("b"));
    let mut watched = Watched::start(at, 0);
    watched.until(at, &[]).await?;
    for value in ["1", "2", "3"] {
        at.put(&a, value).await?;
        watched.until(at, &[(&a, value)]).await?;
    }
    at.put(&b, "1").await?;
    at.delete(&a).await?;
    watched.until(at, &[(&b, "1")]).await?;
    // Nobody looks meanwhile; what counts is what it comes to.
    at.put(&a, "4").await?;
    at.delete(&b).await?;
    at.delete(&a).await?;
    at.put(&a, "5").await?;
    watched.until(at, &[(&a, "5")]).await?;
    at.delete(&a).await?;
    watched.until(at, &[]).await?;
    watched.quiet(at).await
}

async fn keeps(at: &At<'_>) -> Finding {
    let inside = at.key("a");
    let sibling = Key::new(&format!("{}-sibling/a", at.top)).map_err(|error| error.to_string())?;
    let mut watched = Watched::start(at, 0);
    watched.until(at, &[]).await?;
    at.put(&sibling, "1").await?;
    at.put(&at.top, "1").await?;
    at.put(&inside, "1").await?;
    watched.until(at, &[(&inside, "1")]).await?;
    for key in [&sibling, &at.top, &inside] {
        at.delete(key).await?;
    }
    watched.until(at, &[]).await?;
    watched.quiet(at).await
}

async fn lease(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let mut watched = Watched::start(at, 0);
    watched.until(at, &[]).await?;
    let lease = at.grant().await?;
    at.acquire(&key, &lease).await?;
    watched.until(at, &[(&key, "swapped")]).await?;
    at.h.pass(at.h.ttl() + at.h.grace()).await;
    watched.until(at, &[]).await
}

async fn reset(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let now = at.put(&key, "1").await?;
    let mut watched = Watched::start(at, now + 1_000_000_000);
    let first = watched.next(at).await;
    at.delete(&key).await?;
    let first = first?;
    ensure(is_reset(&first), || format!("it begins with {first:?}"))?;
    watched.until(at, &[]).await
}
