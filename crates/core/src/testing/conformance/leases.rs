//! The rules of leases.

use std::time::Duration;

use super::{
    Finding, KeyValueHarness, ensure,
    key_value::{At, failed},
};
use crate::{
    kv::{Expect, FencingToken, Key, KeyValueErrorKind, Lease},
    testing::violations::Findings,
};

pub(super) async fn rules(h: &impl KeyValueHarness, found: &mut Findings) {
    let at = |name| At::new(h, name);
    found.note(
        "a lease is believed from when it was asked for",
        asked(&at("asked")).await,
    );
    found.note(
        "keys stay while their lease is renewed",
        renewed(&at("renewed")).await,
    );
    found.note("keys go with their lease", over(&at("over")).await);
    found.note(
        "a lease that is revoked is gone",
        revoked(&at("revoked")).await,
    );
    found.note(
        "a key belongs to the lease of its last write",
        moved(&at("moved")).await,
    );
    found.note(
        "a newer owner has a greater token",
        fenced(&at("fenced")).await,
    );
    found.note("a lease of no time is refused", zero(&at("zero")).await);
}

async fn asked(at: &At<'_>) -> Finding {
    let lag = at.h.ttl() / 4;
    let slow = at.h.slow_down(lag);
    let clock = at.h.clock();
    let before = clock.now();
    let granted = at.grant().await;
    let between = clock.now();
    let renewed = match &granted {
        Ok(lease) => at.renew(lease).await,
        Err(error) => Err(error.clone()),
    };
    at.h.slow_down(Duration::ZERO);
    let (granted, renewed) = (granted?, renewed?);
    at.revoke(&renewed).await?;
    // What passes between these readings and the sending is no lag.
    let slack = if slow { lag / 2 } else { lag };
    for (lease, sent, what) in [(granted, before, "granted"), (renewed, between, "renewed")] {
        let latest = sent + lease.ttl() + slack;
        ensure(lease.ttl() >= at.h.ttl(), || {
            format!("{what} for {:?} only", lease.ttl())
        })?;
        ensure(lease.valid_until() <= latest, || {
            let late = lease.valid_until().since(sent + lease.ttl());
            format!(
                "{what} for {:?}, but believed {late:?} longer than from the asking",
                lease.ttl()
            )
        })?;
        ensure(lease.is_valid(sent), || format!("{what}, but over at once"))?;
    }
    Ok(())
}

async fn renewed(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let mut lease = at.grant().await?;
    at.acquire(&key, &lease).await?;
    for round in 1..=6 {
        at.h.pass(at.h.ttl() / 2).await;
        ensure(at.get(&key).await?.is_some(), || {
            format!("it was renewed {} times and is gone", round - 1)
        })?;
        lease = at.renew(&lease).await?;
    }
    at.revoke(&lease).await
}

/// Lets the time of a lease pass; it may live on for a while.
async fn pass(at: &At<'_>, lease: &Lease, key: &Key) -> Finding {
    let step = at.h.ttl() / 10;
    let over = lease.valid_until() + at.h.grace() + at.h.patience();
    loop {
        // Read before looking: what is gone now must not have been believed in then.
        let now = at.h.clock().now();
        let there = at.get(key).await?.is_some();
        let early = !there && lease.is_valid(at.h.clock().now());
        ensure(!early, || {
            "its key is gone while the lease is still believed".into()
        })?;
        if !there {
            return Ok(());
        }
        ensure(now <= over, || {
            let since = now.since(lease.valid_until());
            format!("{since:?} after the end of its lease a key is still there")
        })?;
        at.h.pass(step).await;
    }
}

async fn over(at: &At<'_>) -> Finding {
    let (key, free) = (at.key("a"), at.key("b"));
    at.put(&free, "free").await?;
    let lease = at.grant().await?;
    at.acquire(&key, &lease).await?;
    pass(at, &lease, &key).await?;
    ensure(at.get(&free).await?.is_some(), || {
        "a key without a lease has gone as well".into()
    })?;
    gone(at, &lease).await?;
    at.delete(&free).await.map(drop)
}

/// Nothing can be done with a lease that has ended.
async fn gone(at: &At<'_>, lease: &Lease) -> Finding {
    let key = at.key("after");
    let renewed = at.wait("renew", at.store.renew(lease)).await?;
    failed(
        "renewing a lease that has ended",
        KeyValueErrorKind::LeaseGone,
        renewed,
    )?;
    let swapped = at.cas(&key, Expect::Absent, Some(lease)).await?;
    failed(
        "a swap under a lease that has ended",
        KeyValueErrorKind::LeaseGone,
        swapped,
    )?;
    ensure(at.get(&key).await?.is_none(), || {
        "it has written all the same".into()
    })
}

async fn revoked(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let lease = at.grant().await?;
    at.acquire(&key, &lease).await?;
    at.revoke(&lease).await?;
    ensure(at.get(&key).await?.is_none(), || {
        "its key is still there".into()
    })?;
    gone(at, &lease).await?;
    at.revoke(&lease)
        .await
        .map_err(|why| format!("the second time: {why}"))
}

async fn moved(at: &At<'_>) -> Finding {
    let (put, swapped, taken) = (at.key("put"), at.key("swapped"), at.key("taken"));
    let (one, two) = (at.grant().await?, at.grant().await?);
    at.acquire(&put, &one).await?;
    at.put(&put, "free").await?;
    for (key, lease) in [(&swapped, None), (&taken, Some(&two))] {
        let revision = at.acquire(key, &one).await?;
        let swap = at.cas(key, Expect::Revision(revision), lease).await?;
        swap.map_err(|error| format!("a key could not be swapped: {error}"))?;
    }
    at.revoke(&one).await?;
    for key in [&put, &swapped, &taken] {
        ensure(at.get(key).await?.is_some(), || {
            format!("{key} was written anew, but has gone with the lease of the write before")
        })?;
    }
    at.revoke(&two).await?;
    ensure(at.get(&taken).await?.is_none(), || {
        format!("{taken} has not gone with the lease of its last write")
    })?;
    at.delete(&put).await?;
    at.delete(&swapped).await.map(drop)
}

async fn fenced(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let lease = at.grant().await?;
        let token = FencingToken::acquire(&*at.store, &key, "owner".into(), &lease);
        let token = at.wait("acquire", Box::pin(token)).await?;
        tokens.push(token.map_err(|error| format!("a free key could not be acquired: {error}"))?);
        at.revoke(&lease).await?;
    }
    ensure(tokens.is_sorted_by(|a, b| a < b), || {
        format!("one after the other got {tokens:?}")
    })
}

async fn zero(at: &At<'_>) -> Finding {
    let granted = at.wait("grant", at.store.grant(Duration::ZERO)).await?;
    failed("a lease of no time", KeyValueErrorKind::Refused, granted)
}
