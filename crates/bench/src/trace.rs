//! Calls of one thread, then of another, for an instrument that sees every store but not who makes it.

use std::{
    io::{self, Write},
    ptr,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use tokio::runtime::Runtime;
use tower::BoxError;

use crate::{Client, client::calls};

/// Stored to when the calls of a thread begin and when they have ended: four times in all.
static MARK: AtomicU64 = AtomicU64::new(0);

/// Prints where the mark is, waits for a line, and calls: both threads live until the end, so that neither is given the
/// other's stack or heap.
pub(crate) fn run<C: Client>(runtime: &Runtime, client: &C, number: u64) -> Result<(), BoxError> {
    println!("{:x}", ptr::from_ref(&MARK).addr());
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            let (turn, turns) = channel();
            let (done, is_done) = channel();
            let client = client.clone();
            scope.spawn(move || caller(runtime, client, number, &turns, &done));
            (turn, is_done)
        });
        // First both make themselves at home, then each calls, then both may go.
        for _ in 0..2 {
            for (turn, is_done) in &threads {
                turn.send(())?;
                is_done.recv()??;
            }
        }
        Ok(())
    })
}

/// Calls a few times, and on its second turn between two marks.
fn caller<C: Client>(
    runtime: &Runtime,
    client: C,
    number: u64,
    turns: &Receiver<()>,
    done: &Sender<Result<(), BoxError>>,
) {
    for measured in [false, true] {
        if turns.recv().is_err() {
            return;
        }
        let mark = || {
            if measured {
                MARK.fetch_add(1, Ordering::SeqCst);
            }
        };
        // Within the runtime: what a thread does to enter it is no call's.
        let called = runtime.block_on(async {
            mark();
            let called = calls(client.clone(), number).await;
            mark();
            called
        });
        if done.send(called).is_err() {
            return;
        }
    }
    // Until the other one is done as well.
    let _ = turns.recv();
}
