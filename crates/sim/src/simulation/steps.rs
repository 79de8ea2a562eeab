//! One thing after the other.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::Instant;
use tower_service::Service;

use crate::{
    calls::{Note, Woken},
    event::Event,
    policy::{Call, Policy},
    work::{duration, exponential, nanos},
};

use super::Simulation;

impl<P: Policy> Simulation<P> {
    /// Does what happens next, if that is before `end`, and answers whether it did.
    pub(super) fn step(&mut self, end: Instant) -> bool {
        let event = self.wire.lock().events.next();
        let timer = self.hand.next_timer();
        let Some(next) = event.into_iter().chain(timer).min() else {
            return false;
        };
        // A timer may be set for a time that has passed.
        let next = next.max(self.now);
        if next >= end {
            return false;
        }
        self.advance(next);
        let event = self.wire.lock().events.pop(next);
        if let Some(event) = event {
            self.happen(event);
        }
        self.poll_woken();
        true
    }

    /// Moves time on. What that wakes is polled after what happens then.
    pub(super) fn advance(&mut self, to: Instant) {
        if to == self.now {
            return;
        }
        self.policy.advance(to.since(self.now));
        self.now = to;
        self.wire.lock().now = to;
        self.hand.advance_to(to);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives => {
                if self.arriving {
                    self.arrive();
                    self.schedule_arrival();
                }
            }
            Event::Reaches { attempt } => self.wire.lock().reaches(attempt),
            Event::Leaves {
                server,
                attempt,
                epoch,
            } => self.wire.lock().leaves(server, attempt, epoch),
            Event::Answered { attempt } => {
                let waker = self.wire.lock().answered(attempt);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Event::Switches { server } => self.switch(server),
            Event::Freezes { pauses } => self.pause(pauses),
            Event::Thaws { server } => self.thaw(server),
        }
    }

    pub(super) fn schedule_arrival(&mut self) {
        let wait = exponential(&self.chance.arrivals, self.between);
        self.wire.lock().schedule(duration(wait), Event::Arrives);
    }

    fn arrive(&mut self) {
        let client = self.chance.clients.below(self.clients.len());
        let call = Call {
            nth: self.arrived,
            client,
        };
        let note = Note {
            begun: self.now,
            work: Some(self.scenario.work.draw(&self.chance.work)),
            generation: self.meter.generation,
        };
        self.arrived += 1;
        self.meter.calls += 1;
        self.meter.in_flight.add(self.now);
        self.clients[client].waiting.push_back((call, note));
        self.serve(client);
    }

    /// Hands waiting calls to a client's service as long as it is ready.
    fn serve(&mut self, nth: usize) {
        while let Some((_, note)) = self.clients[nth].waiting.front().copied() {
            let client = &mut self.clients[nth];
            let mut cx = Context::from_waker(client.alarm.heard());
            match client.service.poll_ready(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => self.begin(nth),
                Poll::Ready(Err(_)) => {
                    client.waiting.pop_front();
                    self.ended(note, false);
                }
            }
        }
    }

    fn begin(&mut self, nth: usize) {
        let client = &mut self.clients[nth];
        let (call, mut note) = client.waiting.pop_front().expect("looked at before");
        // An attempt may be sent by `call` already.
        self.wire.lock().current = note.work.take();
        let future = client.service.call(call);
        note.work = self.wire.lock().current.take();
        let place = self.calls.add(future, note);
        self.poll(place);
    }

    fn poll_woken(&mut self) {
        loop {
            let mut woken = std::mem::take(&mut self.woken);
            self.ready.take(&mut woken);
            for who in &woken {
                match *who {
                    Woken::Call(place) => self.poll(place),
                    Woken::Client(nth) => self.serve(nth),
                }
            }
            let none = woken.is_empty();
            woken.clear();
            self.woken = woken;
            if none {
                return;
            }
        }
    }

    fn poll(&mut self, place: usize) {
        let Some(note) = self.calls.note(place) else {
            return;
        };
        let work = note.work.take();
        // A call has one piece of work, so that all policies are given the same; what it does beyond is drawn.
        self.wire.lock().current = work;
        let polled = self.calls.poll(place);
        let left = self.wire.lock().current.take();
        match polled {
            Poll::Ready((note, result)) => self.ended(note, result.is_ok()),
            Poll::Pending => {
                if let Some(note) = self.calls.note(place) {
                    note.work = left;
                }
            }
        }
    }

    fn ended(&mut self, note: Note, answered: bool) {
        self.meter.in_flight.remove(self.now);
        if note.generation != self.meter.generation {
            return;
        }
        if answered {
            let latency = self.now.since(note.begun);
            self.meter.latencies.push(latency.as_nanos() as u64);
        } else {
            self.meter.failed += 1;
        }
    }

    pub(super) fn begin_faults(&mut self) {
        for server in 0..self.scenario.servers.len() {
            self.schedule_switch(server);
        }
        for pauses in 0..self.scenario.pauses.len() {
            self.schedule_pause(pauses);
        }
    }

    pub(super) fn schedule_switch(&mut self, server: usize) {
        if let Some(antagonists) = self.scenario.antagonists {
            let wait = exponential(&self.chance.faults, nanos(antagonists.every));
            let switches = Event::Switches { server };
            self.wire.lock().schedule(duration(wait), switches);
        }
    }

    fn switch(&mut self, server: usize) {
        let Some(antagonists) = self.scenario.antagonists else {
            return;
        };
        let there = self.chance.faults.unit() < antagonists.share;
        let left = if there { antagonists.speed } else { 1.0 };
        let mut wire = self.wire.lock();
        wire.change(server, |speeds| *speeds.neighbours = left);
        drop(wire);
        self.schedule_switch(server);
    }

    fn schedule_pause(&mut self, pauses: usize) {
        let every: Duration = self.scenario.pauses[pauses].every;
        self.wire.lock().schedule(every, Event::Freezes { pauses });
    }

    fn pause(&mut self, pauses: usize) {
        let server = self.chance.faults.below(self.scenario.servers.len());
        let length = self.scenario.pauses[pauses].length;
        self.freeze(server);
        self.wire.lock().schedule(length, Event::Thaws { server });
        self.schedule_pause(pauses);
    }
}
