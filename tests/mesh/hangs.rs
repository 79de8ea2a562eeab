//! Few endpoints, some of which stand still for ten seconds and are back then: what that costs by the default policy, and how
//! soon calls are as before.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::watch;
use tower::{service_fn, util::BoxCloneSyncService};
use tower_mesh::{Body, Endpoint, Mesh, MeshService, core::Rng, discovery::Static};

use crate::{reload::Client, support::name};

const BEFORE: usize = 5;
const HANG: usize = 10;
const AFTER: usize = 20;
/// Calls a second, each of which takes 5 ms.
const RATE: u64 = 100;

/// What became of the calls that began within one second, and who answered them.
#[derive(Clone, Debug, Default)]
struct Second {
    answered: u64,
    by: HashMap<u16, u64>,
}

/// So many endpoints, of which the first `hanging` stand still for a while; what became of each second's calls.
async fn seconds(endpoints: u16, hanging: u16) -> Vec<Second> {
    let all = (1..=endpoints).map(|port| Endpoint::new(([127, 0, 0, 1], port).into()));
    let mesh = Mesh::builder("shop")
        .discovery(Static::new().service(name("orders"), all))
        .rng(Rng::seeded(1))
        .start()
        .await
        .unwrap();
    let (still, stands_still) = watch::channel(false);
    let orders = mesh
        .layer("orders")
        .unwrap()
        .over(move |endpoint: &Endpoint| {
            let (port, still) = (endpoint.address().port(), stands_still.clone());
            BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
                let mut still = still.clone();
                async move {
                    if port <= hanging {
                        let _ = still.wait_for(|still| !still).await;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Ok::<_, Infallible>(Response::new(Full::from(port.to_string())))
                }
            }))
        });
    let seen = Arc::new(Mutex::new(vec![Second::default(); BEFORE + HANG + AFTER]));
    for nth in 0..BEFORE + HANG + AFTER {
        still.send_replace((BEFORE..BEFORE + HANG).contains(&nth));
        for _ in 0..RATE {
            tokio::spawn(call(orders.clone(), Arc::clone(&seen), nth));
            tokio::time::sleep(Duration::from_millis(1_000 / RATE)).await;
        }
    }
    // As long as a call may take.
    tokio::time::sleep(Duration::from_secs(11)).await;
    std::mem::take(&mut seen.lock().unwrap())
}

async fn call(orders: MeshService<Client>, seen: Arc<Mutex<Vec<Second>>>, nth: usize) {
    let Ok(response) = orders.get("/").await else {
        return;
    };
    let body = http_body_util::BodyExt::collect(response.into_body());
    let port = body.await.unwrap().to_bytes();
    let port = std::str::from_utf8(&port).unwrap().parse().unwrap();
    let second = &mut seen.lock().unwrap()[nth];
    second.answered += 1;
    *second.by.entry(port).or_default() += 1;
}

/// How many seconds after the hang 95 % of the calls are answered, and are for three.
fn recovers(seconds: &[Second]) -> usize {
    let after = &seconds[BEFORE + HANG..];
    let well = |second: &Second| 100 * second.answered >= 95 * RATE;
    let found = after.windows(3).position(|three| three.iter().all(well));
    found.expect("it recovers")
}

/// How many seconds after it all that stood still have been called again, and have answered.
fn are_called(seconds: &[Second], hanging: u16) -> usize {
    let first = |port| {
        let called = |second: &Second| second.by.contains_key(&port);
        seconds[BEFORE + HANG..].iter().position(called)
    };
    let firsts = (1..=hanging).map(|port| first(port).expect("it is called"));
    firsts.max().expect("some stood still")
}

#[tokio::test(start_paused = true)]
async fn after_a_hang_few_endpoints_are_as_before_within_seconds_by_the_default_policy() {
    for (endpoints, hanging) in [(1, 1), (2, 1), (3, 1), (10, 3)] {
        let seconds = seconds(endpoints, hanging).await;
        let answered = |range: std::ops::Range<usize>| -> u64 {
            seconds[range].iter().map(|second| second.answered).sum()
        };
        let what = format!("{hanging} of {endpoints}: {seconds:?}");
        assert_eq!(answered(0..BEFORE), BEFORE as u64 * RATE, "{what}");
        if hanging < endpoints {
            // Also of the first second none is lost: what stands still is tried again elsewhere after 3 s.
            let meanwhile = answered(BEFORE..BEFORE + HANG);
            assert!(meanwhile >= 99 * RATE * HANG as u64 / 100, "{what}");
        }
        assert!(recovers(&seconds) <= 1, "{what}");
        // Of ten, one whose last answer took seconds may wait longer: seven idle ones are faster, and enough.
        if endpoints < 10 {
            let called = are_called(&seconds, hanging);
            assert!(called <= 10, "after {called} s: {what}");
        }
    }
}
