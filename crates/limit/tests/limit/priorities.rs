//! Who is let in when there is too much to do.

use tokio_test::task::Spawn;
use tower_layer::Layer;
use tower_mesh_core::{Clock, ManualClock, Priority};
use tower_mesh_limit::{Bulkhead, BulkheadFuture, BulkheadLayer, PerCall, PerCallFuture};

use crate::{Ask, Inner, MS, Now, OVERLOADED, bulkhead, call, poll};

type Call = Spawn<BulkheadFuture<PerCallFuture<Inner, Ask>, tower::load::CompleteOnResponse>>;

/// So many permits, and two places for critical calls that wait 20 ms at most.
fn by_priority(limit: usize) -> (BulkheadLayer, ManualClock) {
    let (clock, time) = Clock::manual();
    let layer = bulkhead(limit).clock(clock).max_wait(20 * MS);
    (layer.by_priority(2), time)
}

/// Begins a call of this class.
fn begin(service: &mut Bulkhead<PerCall<Inner>>, priority: Priority, ask: Ask) -> (Call, Now) {
    let mut call = call(service, ask);
    let now = priority.within(|| poll(&mut call));
    (call, now)
}

use Priority::{Critical, Default, Sheddable};

#[test]
fn who_matters_less_is_let_in_while_three_quarters_are_not_in_use() {
    let (layer, _time) = by_priority(4);
    let mut service = layer.layer(Inner::default());
    let mut running: Vec<_> = (0..3)
        .map(|_| begin(&mut service, Sheddable, Ask::Later(1)))
        .collect();
    assert!(running.iter().all(|(_, now)| *now == Now::Pending));
    assert_eq!(begin(&mut service, Sheddable, Ask::Answer).1, OVERLOADED);
    assert_eq!(begin(&mut service, Default, Ask::Answer).1, Now::Answered);
    let (mut first, _) = running.swap_remove(0);
    assert_eq!(poll(&mut first), Now::Answered);
    assert_eq!(begin(&mut service, Sheddable, Ask::Answer).1, Now::Answered);
    assert_eq!(layer.handle().snapshot().refused, 1);
}

#[test]
fn the_critical_wait_and_go_before_all_others_which_are_refused_at_once() {
    let (layer, _time) = by_priority(1);
    let mut service = layer.layer(Inner::default());
    let (mut running, _) = begin(&mut service, Default, Ask::Later(1));
    let (mut first, now) = begin(&mut service, Critical, Ask::Answer);
    assert_eq!(now, Now::Pending);
    let (mut second, now) = begin(&mut service, Critical, Ask::Answer);
    assert_eq!(now, Now::Pending);
    for priority in [Critical, Default, Sheddable] {
        let (_, now) = begin(&mut service, priority, Ask::Answer);
        assert_eq!(now, OVERLOADED, "two may wait, and only such");
    }
    assert_eq!(poll(&mut running), Now::Answered);
    assert_eq!(begin(&mut service, Default, Ask::Answer).1, OVERLOADED);
    assert_eq!(poll(&mut first), Now::Answered);
    assert_eq!(poll(&mut second), Now::Answered);
    assert_eq!(begin(&mut service, Sheddable, Ask::Answer).1, Now::Answered);
}

#[test]
fn a_critical_call_waits_no_longer_than_it_may() {
    let (layer, time) = by_priority(1);
    let mut service = layer.layer(Inner::default());
    let (_running, _) = begin(&mut service, Default, Ask::Never);
    let (mut waiting, _) = begin(&mut service, Critical, Ask::Answer);
    time.advance(20 * MS);
    assert!(waiting.is_woken());
    assert_eq!(poll(&mut waiting), OVERLOADED);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.timed_out, snapshot.waiting), (1, 0));
}

#[test]
fn in_a_queue_for_all_the_critical_go_first() {
    let (layer, _time) = by_priority(1);
    let layer = layer.queue(1);
    let mut service = layer.layer(Inner::default());
    let (mut running, _) = begin(&mut service, Default, Ask::Later(1));
    let (mut waiting, now) = begin(&mut service, Default, Ask::Answer);
    assert_eq!(now, Now::Pending);
    let (mut critical, now) = begin(&mut service, Critical, Ask::Answer);
    assert_eq!(now, Now::Pending);
    assert_eq!(begin(&mut service, Default, Ask::Answer).1, OVERLOADED);
    assert_eq!(poll(&mut running), Now::Answered);
    assert_eq!(poll(&mut waiting), Now::Pending, "it is not its turn");
    assert_eq!(poll(&mut critical), Now::Answered);
    assert_eq!(poll(&mut waiting), Now::Answered);
}

#[test]
fn unless_asked_for_all_calls_are_the_same() {
    let layer = bulkhead(1);
    let mut service = layer.layer(Inner::default());
    let (_running, now) = begin(&mut service, Sheddable, Ask::Never);
    assert_eq!(now, Now::Pending);
    assert_eq!(begin(&mut service, Critical, Ask::Answer).1, OVERLOADED);
}
