//! The rules of [`Register`](crate::Register).

use std::time::Duration;

use super::{Finding, RegisterHarness, endpoint, ensure, followed::Followed, service, within};
use crate::{
    endpoint::{Endpoint, Health, Weight},
    name::ServiceName,
    register::{Instance, Registration},
    testing::violations::{Findings, Violations},
};

/// Checks a registry against the rules of [`Register`](crate::Register), looking through a source that follows it.
///
/// # Errors
///
/// [`Violations`] lists the rules that were broken.
pub async fn register(harness: &impl RegisterHarness) -> Result<(), Violations> {
    let h = harness;
    let mut found = Findings::default();
    found.note("what is registered is found", registered(h).await);
    found.note("registering again replaces", replaced(h).await);
    found.note("an older registration moves nothing", older(h).await);
    found.note("what is deregistered is not found", deregistered(h).await);
    found.note("what is dropped is deregistered", dropped(h).await);
    found.note("instances do not disturb each other", others(h).await);
    found.note("a heartbeat says how an instance feels", health(h).await);
    found.note(
        "heartbeats that change nothing are not reported",
        steady(h).await,
    );
    found.note(
        "a missed heartbeat counts against an instance",
        missed(h).await,
    );
    found.note("a time of zero is refused", zero(h).await);
    found.note("a heartbeat that does not arrive is an error", cut(h).await);
    found.result()
}

async fn enter(h: &impl RegisterHarness, instance: Instance) -> Result<Registration, String> {
    let registry = h.registry();
    let registering = registry.register(instance);
    match within(h, h.patience(), registering).await {
        Some(Ok(registration)) => Ok(registration),
        Some(Err(error)) => Err(format!("it could not be registered: {error}")),
        None => Err(format!("registering takes longer than {:?}", h.patience())),
    }
}

async fn leave(h: &impl RegisterHarness, registration: Registration) -> Finding {
    match within(h, h.patience(), registration.deregister()).await {
        Some(left) => left.map_err(|error| format!("it could not be deregistered: {error}")),
        None => Err(format!(
            "deregistering takes longer than {:?}",
            h.patience()
        )),
    }
}

async fn beat(h: &impl RegisterHarness, registration: &Registration, health: Health) -> Finding {
    match within(h, h.patience(), registration.heartbeat(health)).await {
        Some(beaten) => beaten.map_err(|error| format!("a heartbeat failed: {error}")),
        None => Err(format!("a heartbeat takes longer than {:?}", h.patience())),
    }
}

/// Somebody new who follows `service`, and knows the first answer.
async fn look(h: &impl RegisterHarness, service: &ServiceName) -> Result<Followed, String> {
    let mut followed = Followed::start(&*h.source(), service, true);
    followed.first(h).await?;
    Ok(followed)
}

fn is_gone(followed: &Followed) -> Finding {
    ensure(followed.is(None) || followed.is(Some(&[])), || {
        "it is still found".into()
    })
}

async fn registered(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "registered");
    let registration = enter(h, Instance::new(service.clone(), endpoint(1))).await?;
    look(h, &service).await?.holds(&endpoint(1))?;
    leave(h, registration).await
}

async fn replaced(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "replaced");
    let again = endpoint(1)
        .with_weight(Weight::new(50))
        .with_metadata("version", "2");
    let older = enter(h, Instance::new(service.clone(), endpoint(1))).await?;
    let newer = enter(h, Instance::new(service.clone(), again.clone())).await?;
    let followed = look(h, &service).await?;
    followed.holds(&again)?;
    ensure(followed.is(Some(&[again])), || "both are found".into())?;
    drop(older);
    leave(h, newer).await
}

async fn older(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "older");
    let instance = Instance::new(service.clone(), endpoint(1));
    let older = enter(h, instance.clone()).await?;
    let newer = enter(h, instance).await?;
    drop(older);
    let mut followed = look(h, &service).await?;
    followed.holds(&endpoint(1))?;
    followed.quiet(h, h.patience()).await?;
    leave(h, newer).await
}

async fn deregistered(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "deregistered");
    let registration = enter(h, Instance::new(service.clone(), endpoint(1))).await?;
    let mut earlier = look(h, &service).await?;
    leave(h, registration).await?;
    is_gone(&look(h, &service).await?)?;
    while is_gone(&earlier).is_err() {
        earlier.answer(h).await?;
    }
    Ok(())
}

async fn dropped(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "dropped");
    let registration = enter(h, Instance::new(service.clone(), endpoint(1))).await?;
    let mut followed = look(h, &service).await?;
    drop(registration);
    while is_gone(&followed).is_err() {
        followed.answer(h).await?;
    }
    Ok(())
}

async fn others(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "others");
    let one = enter(h, Instance::new(service.clone(), endpoint(1))).await?;
    let two = enter(h, Instance::new(service.clone(), endpoint(2))).await?;
    let both = look(h, &service).await?;
    both.holds(&endpoint(1))?;
    both.holds(&endpoint(2))?;
    leave(h, one).await?;
    let rest = look(h, &service).await?;
    ensure(rest.is(Some(&[endpoint(2)])), || {
        "not just the other is left".into()
    })?;
    leave(h, two).await
}

async fn health(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "health");
    let instance = Instance::new(service.clone(), endpoint(1)).with_ttl(h.ttl());
    let registration = enter(h, instance).await?;
    let mut followed = look(h, &service).await?;
    for health in [Health::Warning, Health::Critical, Health::Passing] {
        beat(h, &registration, health).await?;
        followed.until(h, Some(&[feeling(health)])).await?;
    }
    leave(h, registration).await
}

fn feeling(health: Health) -> Endpoint {
    endpoint(1).with_health(health)
}

async fn steady(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "steady");
    let instance = Instance::new(service.clone(), endpoint(1)).with_ttl(h.ttl());
    let registration = enter(h, instance).await?;
    let mut followed = look(h, &service).await?;
    followed.until(h, Some(&[endpoint(1)])).await?;
    for _ in 0..6 {
        followed.quiet(h, h.ttl() / 3).await?;
        beat(h, &registration, Health::Passing).await?;
    }
    leave(h, registration).await
}

async fn missed(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "missed");
    let instance = Instance::new(service.clone(), endpoint(1)).with_ttl(h.ttl());
    let registration = enter(h, instance).await?;
    let mut followed = look(h, &service).await?;
    followed.until(h, Some(&[endpoint(1)])).await?;
    let early = h.ttl() * 3 / 4;
    let too_soon = |why| {
        format!(
            "{early:?} after a heartbeat, with a ttl of {:?}: {why}",
            h.ttl()
        )
    };
    followed.quiet(h, early).await.map_err(too_soon)?;
    h.pass(h.ttl() - early + Duration::from_millis(1)).await;
    followed
        .until(h, Some(&[feeling(Health::Critical)]))
        .await?;
    beat(h, &registration, Health::Passing).await?;
    followed.until(h, Some(&[endpoint(1)])).await?;
    leave(h, registration).await
}

async fn zero(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "zero");
    let instance = Instance::new(service, endpoint(1)).with_ttl(Duration::ZERO);
    match enter(h, instance).await {
        Ok(_) => Err("an instance with a ttl of zero was registered".into()),
        Err(_) => Ok(()),
    }
}

async fn cut(h: &impl RegisterHarness) -> Finding {
    let service = service(h, "cut");
    let instance = Instance::new(service.clone(), endpoint(1)).with_ttl(h.ttl());
    let registration = enter(h, instance).await?;
    if h.cut().await {
        let lost = within(h, h.patience(), registration.heartbeat(Health::Passing)).await;
        h.mend().await;
        ensure(matches!(lost, Some(Err(_))), || {
            format!("without a connection a heartbeat comes to {lost:?}")
        })?;
        beat(h, &registration, Health::Passing).await?;
    }
    leave(h, registration).await
}
