//! The rules of [`Resolve`](crate::Resolve).

use super::{Finding, ResolveHarness, endpoint, ensure, followed::Followed, service};
use crate::{
    endpoint::{Endpoint, Weight},
    name::ServiceName,
    resolve::Update,
    testing::violations::{Findings, Violations},
};

/// Checks a source against the rules of [`Resolve`](crate::Resolve).
///
/// # Errors
///
/// [`Violations`] lists the rules that were broken.
pub async fn resolve(harness: &impl ResolveHarness) -> Result<(), Violations> {
    let h = harness;
    let mut found = Findings::default();
    found.note("a source has a word for itself", word(h));
    found.note("the first report says what there is", first(h).await);
    found.note("each change is reported", changes(h).await);
    found.note("what has not changed is not reported", unchanged(h).await);
    found.note("a service without endpoints is empty", emptied(h).await);
    found.note("an unknown service is absent", unknown(h).await);
    found.note(
        "a service that appears or goes is reported",
        appears(h).await,
    );
    found.note("followers do not disturb each other", followers(h).await);
    found.note(
        "a broken connection takes nothing away and ends nothing",
        cut(h).await,
    );
    found.result()
}

fn word(h: &impl ResolveHarness) -> Finding {
    let source = h.source();
    let name = source.name();
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure(!name.is_empty() && name.chars().all(is_word), || {
        format!("{name:?} is no lower-case word for status and logs")
    })
}

/// Publishes `endpoints` of a service and follows it.
async fn start(
    h: &impl ResolveHarness,
    name: &str,
    endpoints: Option<&[Endpoint]>,
) -> (ServiceName, Followed) {
    let service = service(h, name);
    h.publish(&service, endpoints.map(<[_]>::to_vec)).await;
    let followed = Followed::start(&*h.source(), &service, h.describes());
    (service, followed)
}

async fn first(h: &impl ResolveHarness) -> Finding {
    let all = [endpoint(1), endpoint(2)];
    let (service, mut followed) = start(h, "first", Some(&all)).await;
    let update = followed.first(h).await?;
    h.publish(&service, None).await;
    ensure(followed.is(Some(&all)), || {
        format!("there are {all:?}, it says {update:?}")
    })
}

async fn changes(h: &impl ResolveHarness) -> Finding {
    let [a, b, c] = [1, 2, 3].map(endpoint);
    let heavier = b.clone().with_weight(Weight::new(100));
    let (service, mut followed) = start(h, "changes", Some(&[a.clone(), b.clone()])).await;
    let steps = [
        vec![a.clone(), b.clone()],
        vec![a.clone(), b.clone(), c.clone()],
        vec![b, c.clone()],
        vec![heavier.clone(), c],
        vec![a, heavier],
    ];
    for step in steps {
        h.publish(&service, Some(step.clone())).await;
        followed.until(h, Some(&step)).await?;
    }
    h.publish(&service, None).await;
    Ok(())
}

async fn unchanged(h: &impl ResolveHarness) -> Finding {
    let all = [endpoint(1), endpoint(2)];
    let (service, mut followed) = start(h, "unchanged", Some(&all)).await;
    followed.until(h, Some(&all)).await?;
    h.publish(&service, Some(all.to_vec())).await;
    followed.quiet(h, h.patience()).await?;
    h.publish(&service, None).await;
    Ok(())
}

async fn emptied(h: &impl ResolveHarness) -> Finding {
    let all = [endpoint(1)];
    let (service, mut followed) = start(h, "emptied", Some(&all)).await;
    followed.until(h, Some(&all)).await?;
    h.publish(&service, Some(vec![])).await;
    gone(h, &mut followed, Some(&[])).await?;
    let first = Followed::start(&*h.source(), &service, h.describes())
        .first(h)
        .await?;
    h.publish(&service, None).await;
    let empty = matches!(&first, Update::Replace(none) if none.is_empty());
    let either = !h.tells_absent() && matches!(first, Update::Absent);
    ensure(empty || either, || {
        format!("a new follower is told {first:?}")
    })
}

/// Waits for `nothing`, which is one of two words for it; a source that does not tell them apart may use either.
async fn gone(
    h: &impl ResolveHarness,
    followed: &mut Followed,
    nothing: Option<&[Endpoint]>,
) -> Finding {
    if h.tells_absent() {
        return followed.until(h, nothing).await;
    }
    while !followed.is(None) && !followed.is(Some(&[])) {
        followed.answer(h).await?;
    }
    Ok(())
}

async fn unknown(h: &impl ResolveHarness) -> Finding {
    let (_, mut followed) = start(h, "unknown", None).await;
    let first = followed.first(h).await?;
    let absent = matches!(first, Update::Absent);
    let either = !h.tells_absent() && followed.is(Some(&[]));
    ensure(absent || either, || format!("it is reported as {first:?}"))
}

async fn appears(h: &impl ResolveHarness) -> Finding {
    let all = [endpoint(1), endpoint(2)];
    let (service, mut followed) = start(h, "appears", None).await;
    followed.first(h).await?;
    h.publish(&service, Some(all.to_vec())).await;
    followed.until(h, Some(&all)).await?;
    h.publish(&service, None).await;
    gone(h, &mut followed, None).await
}

async fn followers(h: &impl ResolveHarness) -> Finding {
    let (before, after) = ([endpoint(1)], [endpoint(1), endpoint(2)]);
    let (service, mut one) = start(h, "followers", Some(&before)).await;
    let mut two = Followed::start(&*h.source(), &service, h.describes());
    one.until(h, Some(&before)).await?;
    two.until(h, Some(&before)).await?;
    drop(one);
    h.publish(&service, Some(after.to_vec())).await;
    two.until(h, Some(&after)).await?;
    h.publish(&service, None).await;
    Ok(())
}

async fn cut(h: &impl ResolveHarness) -> Finding {
    let (before, after) = ([endpoint(1), endpoint(2)], [endpoint(2), endpoint(3)]);
    let (service, mut followed) = start(h, "cut", Some(&before)).await;
    followed.until(h, Some(&before)).await?;
    if h.cut().await {
        let quiet = followed.quiet(h, h.patience()).await;
        h.publish(&service, Some(after.to_vec())).await;
        h.mend().await;
        quiet?;
        followed.until(h, Some(&after)).await?;
    }
    h.publish(&service, None).await;
    Ok(())
}
