//! Flaws of other discoveries, and this one under the same answers of the same source. The peers are broken variants, a few
//! lines each, that do what volo and ginepro do.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{FutureExt, StreamExt};
use tower::discover::Change;
use tower_mesh_core::{Endpoint, Resolve, ServiceName, Update};
use tower_mesh_discovery::Discovery;

use crate::script::{Script, endpoint, moment, orders, pass, ports, secs, start};

fn ports_of(endpoints: &[Endpoint]) -> Vec<u16> {
    endpoints.iter().map(|e| e.address().port()).collect()
}

fn answer(update: Update) -> Vec<Endpoint> {
    match update {
        Update::Replace(endpoints) => endpoints,
        _ => Vec::new(),
    }
}

/// Caches as volo does: who looks up first puts the answer into the cache when he has it; a watch puts each change into
/// it, if it knows the service by then.
#[derive(Clone, Default)]
struct Volo(Arc<Mutex<HashMap<ServiceName, Vec<Endpoint>>>>);

impl Volo {
    async fn follow(self, source: Script) {
        let mut updates = source.resolve(&orders());
        let Some(Ok(first)) = updates.next().await else {
            return;
        };
        // What has changed since the source has answered, and before the answer is in the cache.
        while let Some(Some(Ok(change))) = updates.next().now_or_never() {
            self.change(change);
        }
        self.0.lock().unwrap().insert(orders(), answer(first));
        while let Some(Ok(change)) = updates.next().await {
            self.change(change);
        }
    }

    fn change(&self, change: Update) {
        if let Some(known) = self.0.lock().unwrap().get_mut(&orders()) {
            *known = answer(change);
        }
    }

    fn ports(&self) -> Vec<u16> {
        let known = self.0.lock().unwrap();
        ports_of(known.get(&orders()).map_or(&[], Vec::as_slice))
    }
}

/// What is served when the endpoint has changed from 1 to 2 during the first look-up: soon, and an hour later.
async fn served_after_an_early_change(
    script: Script,
    served: impl Fn() -> Vec<u16>,
) -> [Vec<u16>; 2] {
    script.replace(&orders(), &[endpoint(1)]);
    script.replace(&orders(), &[endpoint(2)]);
    moment().await;
    let soon = served();
    pass(secs(3_600)).await;
    [soon, served()]
}

#[tokio::test(start_paused = true)]
async fn v1_a_change_during_the_first_look_up_is_served() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    let ours = served_after_an_early_change(script, || ports(&endpoints)).await;
    assert_eq!(ours, [[2], [2]]);

    let (script, volo) = (Script::new(), Volo::default());
    tokio::spawn(volo.clone().follow(script.clone()));
    let theirs = served_after_an_early_change(script.clone(), || volo.ports()).await;
    assert_eq!(theirs, [[1], [1]]);
    // It does hear of changes, once it knows the service.
    script.replace(&orders(), &[endpoint(3)]);
    moment().await;
    assert_eq!(volo.ports(), [3]);
}

/// Follows answers as ginepro does: what an answer has not is removed, be it all; what it has is known from then on,
/// whether a client could be made for it or not.
#[derive(Default)]
struct Ginepro {
    known: BTreeSet<u16>,
    clients: BTreeMap<u16, ()>,
}

impl Ginepro {
    fn hear(&mut self, answer: &[u16], mut dial: impl FnMut(u16) -> Option<()>) {
        let new: BTreeSet<u16> = answer.iter().copied().collect();
        self.clients.retain(|port, ()| new.contains(port));
        for port in new.difference(&self.known) {
            self.clients
                .extend(dial(*port).map(|client| (*port, client)));
        }
        self.known = new;
    }

    async fn follow(this: Arc<Mutex<Self>>, source: Script) {
        let mut updates = source.resolve(&orders());
        while let Some(Ok(update)) = updates.next().await {
            let ports = ports_of(&answer(update));
            this.lock().unwrap().hear(&ports, |_| Some(()));
        }
    }

    fn ports(&self) -> Vec<u16> {
        self.clients.keys().copied().collect()
    }
}

/// What is served 29 seconds after a source that may err has said that there is nothing any more.
async fn served_after_an_empty_answer(script: Script, served: impl Fn() -> Vec<u16>) -> Vec<u16> {
    script.replace(&orders(), &[1, 2, 3].map(endpoint));
    moment().await;
    assert_eq!(served(), [1, 2, 3]);
    script.replace(&orders(), &[]);
    pass(secs(29)).await;
    served()
}

#[tokio::test(start_paused = true)]
async fn g1_an_empty_answer_does_not_remove_every_endpoint() {
    let script = Script::suspect();
    let discovery = start(Discovery::builder(script.clone()));
    let endpoints = discovery.endpoints(&orders());
    let ours = served_after_an_empty_answer(script, || ports(&endpoints)).await;
    assert_eq!(ours, [1, 2, 3]);

    let (script, ginepro) = (Script::suspect(), Arc::<Mutex<Ginepro>>::default());
    tokio::spawn(Ginepro::follow(Arc::clone(&ginepro), script.clone()));
    let served = || ginepro.lock().unwrap().ports();
    let theirs = served_after_an_empty_answer(script, served).await;
    assert_eq!(theirs, [0u16; 0]);
}

/// Makes a client of an endpoint; the first that it is asked for it cannot make.
#[derive(Clone, Default)]
struct Dial(Arc<AtomicBool>);

impl Dial {
    fn make(&self, _: u16) -> Option<()> {
        self.0.swap(true, Ordering::Relaxed).then_some(())
    }
}

/// Who has a client after a few looks at the same two endpoints.
fn clients_after_a_few_looks(mut look: impl FnMut(&mut BTreeSet<u16>)) -> BTreeSet<u16> {
    let mut clients = BTreeSet::new();
    (0..4).for_each(|_| look(&mut clients));
    clients
}

#[tokio::test(start_paused = true)]
async fn g1_an_endpoint_that_could_not_be_dialled_is_dialled_again() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()));
    let dial = Dial::default();
    let mut changes = discovery.changes(&orders(), move |endpoint: &Endpoint| {
        let client = dial.make(endpoint.address().port());
        client.expect("no socket left")
    });
    script.replace(&orders(), &[endpoint(1), endpoint(2)]);
    moment().await;
    let ours = clients_after_a_few_looks(|clients| {
        let look = || {
            while let Some(Some(Ok(change))) = changes.next().now_or_never() {
                if let Change::Insert(endpoint, ()) = change {
                    clients.insert(endpoint.address().port());
                }
            }
        };
        let _ = catch_unwind(AssertUnwindSafe(look));
    });
    assert_eq!(ours, [1, 2].into());

    let (dial, mut ginepro) = (Dial::default(), Ginepro::default());
    let theirs = clients_after_a_few_looks(|clients| {
        ginepro.hear(&[1, 2], |port| dial.make(port));
        clients.extend(ginepro.ports());
    });
    assert_eq!(theirs, [2].into());
}
