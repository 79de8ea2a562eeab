use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    components::{
        board::{Ask, Orders, Shared},
        status::Report,
    },
    schedule::{Ended, Schedule},
};

/// Asks the components that are [checked](crate::Components::check).
///
/// Spawn it, or poll it beside other work; nobody is asked until then. It ends when every
/// [`Components`](crate::Components) is gone. A check that panics or hangs has failed, and holds up no other.
///
/// # Cancel safety
///
/// When it is dropped, checks that are under way are dropped; what was last known stays, and its age grows.
#[must_use = "nobody is asked until the driver is polled"]
pub struct ComponentsDriver {
    shared: Arc<Shared>,
    schedule: Schedule<u64, Report>,
    asked: HashMap<u64, Ask>,
}

impl ComponentsDriver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (clock, rng) = (shared.clock.clone(), shared.rng.clone());
        Self {
            schedule: Schedule::new(clock, rng, shared.pace),
            shared,
            asked: HashMap::new(),
        }
    }

    fn obey(&mut self, orders: Orders) {
        for (id, ask) in orders.new {
            self.asked.insert(id, ask);
            self.schedule.add(id);
        }
        for id in orders.gone {
            self.schedule.remove(id);
            self.asked.remove(&id);
        }
    }
}

impl Future for ComponentsDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let Some(orders) = this.shared.orders(cx.waker()) else {
                return Poll::Ready(());
            };
            this.obey(orders);
            let asked = &this.asked;
            let ended = this.schedule.poll(cx, |id| match asked.get(&id) {
                Some(ask) => ask(),
                None => unreachable!("only what is asked is scheduled"),
            });
            if ended.is_empty() {
                return Poll::Pending;
            }
            for Ended { key, answer, .. } in ended {
                let report = answer.unwrap_or_else(|failure| Report::unhealthy(&failure.why));
                this.shared.report(key, report);
            }
        }
    }
}

impl fmt::Debug for ComponentsDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentsDriver")
            .field("asked", &self.asked.len())
            .finish_non_exhaustive()
    }
}
