//! A directory, a clock that is moved by hand, and one who follows `orders`.

use std::{fs, path::PathBuf, pin::pin, time::Duration};

use futures_util::{
    StreamExt,
    future::{self, Either},
};
use tempfile::TempDir;
use tower_mesh_core::{Clock, ManualClock, Resolve, ResolveError, Update, Updates};
use tower_mesh_discovery::File;

use crate::script::orders;

/// How often files are looked at here.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// Runs a test with one thread for what blocks, so that what it is given is done in order.
pub(super) fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(test);
}

pub(super) struct Scene {
    directory: TempDir,
    clock: Clock,
    hands: ManualClock,
}

impl Scene {
    pub(super) fn new() -> Self {
        let (clock, hands) = Clock::manual();
        Self {
            directory: TempDir::new().unwrap(),
            clock,
            hands,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub(super) fn file(&self, name: &str) -> File {
        File::new(self.path(name))
            .every(EVERY)
            .clock(self.clock.clone())
    }

    pub(super) fn follow(&self, name: &str) -> Seen<'_> {
        self.follow_in(&self.file(name))
    }

    pub(super) fn follow_in(&self, file: &File) -> Seen<'_> {
        Seen {
            scene: self,
            updates: file.resolve(&orders()),
        }
    }

    /// Lets time pass in such steps that no look is left out, each look done before the next.
    pub(super) async fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(EVERY / 4);
            left -= step;
            self.hands.advance(step);
            for _ in 0..2 {
                tokio::task::yield_now().await;
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    }
}

/// One who follows `orders`.
pub(super) struct Seen<'a> {
    scene: &'a Scene,
    updates: Updates,
}

impl Seen<'_> {
    async fn within(&mut self, looks: u32) -> Option<Result<Update, ResolveError>> {
        let next = self.updates.next();
        let pass = self.scene.pass(EVERY * looks);
        match future::select(pin!(next), pin!(pass)).await {
            Either::Left((item, _)) => Some(item.expect("it never ends")),
            Either::Right(_) => None,
        }
    }

    async fn next(&mut self) -> Result<Update, ResolveError> {
        self.within(20).await.expect("a report")
    }

    pub(super) async fn ports(&mut self) -> Vec<u16> {
        match self.next().await {
            Ok(Update::Replace(all)) => all.iter().map(|e| e.address().port()).collect(),
            other => panic!("expected endpoints, found {other:?}"),
        }
    }

    pub(super) async fn absent(&mut self) {
        let next = self.next().await;
        assert!(matches!(next, Ok(Update::Absent)), "{next:?}");
    }

    pub(super) async fn error(&mut self) -> String {
        self.next()
            .await
            .expect_err("something is wrong")
            .to_string()
    }

    /// One look and a half, for one that has begun to settle.
    pub(super) async fn step(&mut self) {
        let next = self.updates.next();
        let pass = self.scene.pass(EVERY / 4);
        if let Either::Left((item, _)) = future::select(pin!(next), pin!(pass)).await {
            panic!("nothing is whole yet, but it reports {item:?}");
        }
    }

    pub(super) async fn nothing_for(&mut self, looks: u32) {
        let item = self.within(looks).await;
        assert!(
            item.is_none(),
            "nothing has happened, but it reports {item:?}"
        );
    }
}
