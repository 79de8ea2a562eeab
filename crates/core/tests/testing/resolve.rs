//! The suite for sources, on the registry in memory and on broken variants of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, future, stream};
use tower_mesh_core::{
    BoxFuture, Clock, Empties, Endpoint, ManualClock, MemoryRegistry, Resolve, ResolveError,
    ServiceName, Update, Updates, Weight,
    testing::conformance::{self, Harness, ResolveHarness},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    ShoutsItsName,
    BeginsWithAPatch,
    MissesTheSecondChange,
    ForgetsWeights,
    RepeatsItself,
    CallsEmptyAbsent,
    CallsAbsentEmpty,
    EndsAfterTheFirst,
    EmptiesWhenCut,
    EndsWhenCut,
}

/// The registry in memory behind a connection that can be cut, and with one fault.
#[derive(Clone)]
struct Source {
    registry: MemoryRegistry,
    clock: ManualClock,
    cut: Arc<AtomicBool>,
    fault: Fault,
}

fn source(fault: Fault) -> Source {
    let (clock, handle) = Clock::manual();
    Source {
        registry: MemoryRegistry::with_clock(clock),
        clock: handle,
        cut: Arc::default(),
        fault,
    }
}

type Item = Result<Update, ResolveError>;

impl Resolve for Source {
    fn resolve(&self, service: &ServiceName) -> Updates {
        let updates = self.registry.resolve(service);
        let this = self.clone();
        let mut count = 0;
        let faulty = updates.flat_map(move |update| {
            count += 1;
            stream::iter(this.spoil(count, update))
        });
        match self.fault {
            Fault::EndsAfterTheFirst => Box::pin(faulty.take(1)),
            _ => Box::pin(Disconnecting {
                inner: Box::pin(faulty),
                source: self.clone(),
                was_cut: false,
            }),
        }
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        if self.fault == Fault::ShoutsItsName {
            "The Source!"
        } else {
            "source"
        }
    }
}

impl Source {
    fn spoil(&self, count: u32, update: Item) -> Vec<Item> {
        match (self.fault, update) {
            (Fault::BeginsWithAPatch, Ok(Update::Replace(upsert))) if count == 1 => {
                vec![Ok(Update::Patch {
                    upsert,
                    remove: vec![],
                })]
            }
            (Fault::MissesTheSecondChange, _) if count == 2 => vec![],
            (Fault::ForgetsWeights, Ok(Update::Replace(all))) => {
                let all = all.into_iter().map(|e| e.with_weight(Weight::default()));
                vec![Ok(Update::Replace(all.collect()))]
            }
            (Fault::RepeatsItself, Ok(update)) => vec![Ok(update.clone()), Ok(update)],
            (Fault::CallsEmptyAbsent, Ok(Update::Replace(all))) if all.is_empty() => {
                vec![Ok(Update::Absent)]
            }
            (Fault::CallsAbsentEmpty, Ok(Update::Absent)) => vec![Ok(Update::Replace(vec![]))],
            (_, update) => vec![update],
        }
    }
}

/// Says once that the connection is lost, then nothing until it is back.
struct Disconnecting {
    inner: Updates,
    source: Source,
    was_cut: bool,
}

impl Stream for Disconnecting {
    type Item = Item;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Item>> {
        use std::task::Poll;
        if !self.source.cut.load(Ordering::Relaxed) {
            self.was_cut = false;
            return self.inner.as_mut().poll_next(cx);
        }
        if std::mem::replace(&mut self.was_cut, true) {
            return Poll::Pending;
        }
        match self.source.fault {
            Fault::EmptiesWhenCut => Poll::Ready(Some(Ok(Update::Replace(vec![])))),
            Fault::EndsWhenCut => Poll::Ready(None),
            _ => Poll::Ready(Some(Err(ResolveError::new("the connection is lost")))),
        }
    }
}

impl Harness for Source {
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(time);
        Box::pin(future::ready(()))
    }

    fn cut(&self) -> BoxFuture<'_, bool> {
        self.cut.store(true, Ordering::Relaxed);
        Box::pin(future::ready(true))
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        self.cut.store(false, Ordering::Relaxed);
        Box::pin(future::ready(()))
    }
}

impl ResolveHarness for Source {
    fn source(&self) -> Arc<dyn Resolve> {
        Arc::new(self.clone())
    }

    fn publish<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoints: Option<Vec<Endpoint>>,
    ) -> BoxFuture<'a, ()> {
        match endpoints {
            Some(endpoints) => self.registry.set(service, endpoints),
            None => self.registry.forget(service),
        }
        Box::pin(future::ready(()))
    }
}

fn broken_by(fault: Fault) -> Vec<&'static str> {
    match tokio_test::block_on(conformance::resolve(&source(fault))) {
        Ok(()) => vec![],
        Err(violations) => violations.rules(),
    }
}

#[test]
fn the_registry_in_memory_conforms() {
    tokio_test::block_on(conformance::resolve(&source(Fault::None))).unwrap();
}

#[test]
fn each_fault_breaks_the_rule_that_is_meant_for_it() {
    for (fault, rule) in [
        (Fault::ShoutsItsName, "a source has a word for itself"),
        (
            Fault::BeginsWithAPatch,
            "the first report says what there is",
        ),
        (Fault::MissesTheSecondChange, "each change is reported"),
        (Fault::ForgetsWeights, "the first report says what there is"),
        (Fault::RepeatsItself, "what has not changed is not reported"),
        (
            Fault::CallsEmptyAbsent,
            "a service without endpoints is empty",
        ),
        (Fault::CallsAbsentEmpty, "an unknown service is absent"),
        (
            Fault::EndsAfterTheFirst,
            "a service that appears or goes is reported",
        ),
        (
            Fault::EmptiesWhenCut,
            "a broken connection takes nothing away and ends nothing",
        ),
        (
            Fault::EndsWhenCut,
            "a broken connection takes nothing away and ends nothing",
        ),
    ] {
        let broken = broken_by(fault);
        assert!(broken.contains(&rule), "{fault:?} has broken {broken:?}");
    }
}

#[test]
fn a_violation_says_which_rule_was_broken_and_how() {
    let broken = tokio_test::block_on(conformance::resolve(&source(Fault::CallsAbsentEmpty)));
    let message = broken.unwrap_err().to_string();
    assert!(
        message.contains("- an unknown service is absent: it is reported as Replace([])"),
        "{message}"
    );
}
