//! One who follows a service in the files.

use std::{pin::pin, sync::Arc};

use futures_util::{future, stream};
use tokio::sync::watch;
use tower_mesh_core::{Endpoint, ResolveError, ServiceName, Update, Updates};

use super::{File, files::Told};

/// Tells one follower what has changed since it was told last, and looks at the files when it is time.
pub(super) struct Following {
    file: File,
    service: ServiceName,
    told: watch::Receiver<Told>,
    /// What it was told last: endpoints, or that there is no such service.
    known: Option<Option<Vec<Endpoint>>>,
    wrong: Option<Arc<str>>,
}

impl Following {
    pub(super) fn start(file: File, service: ServiceName) -> Updates {
        let following = Self {
            told: file.shared.told.subscribe(),
            file,
            service,
            known: None,
            wrong: None,
        };
        Box::pin(stream::unfold(following, |mut following| async {
            let item = following.next().await;
            Some((item, following))
        }))
    }

    async fn next(&mut self) -> Result<Update, ResolveError> {
        loop {
            // Marked as seen before looking: what changes in between wakes again.
            let told = self.told.borrow_and_update().clone();
            if let Some(update) = self.news(&told) {
                return Ok(update);
            }
            if let Some(error) = self.wrong(&told) {
                return Err(error);
            }
            let due = self.file.look_if_due();
            let timer = self.file.clock.sleep_until(due);
            future::select(pin!(self.told.changed()), pin!(timer)).await;
        }
    }

    fn news(&mut self, told: &Told) -> Option<Update> {
        let services = told.services.as_ref()?;
        let now = services.get(&self.service);
        // After an error an answer is news, whatever it says: the error is over.
        let mended = self.wrong.is_some() && told.wrong.is_none();
        let same = match (&self.known, now) {
            (Some(Some(old)), Some(new)) => same(old, new),
            (Some(None), None) => true,
            _ => false,
        };
        if same && !mended {
            return None;
        }
        // An answer says that all is well; if it is not, that has to be said again after it.
        self.wrong = None;
        self.known = Some(now.cloned());
        Some(match now {
            Some(endpoints) => Update::Replace(endpoints.clone()),
            None => Update::Absent,
        })
    }

    fn wrong(&mut self, told: &Told) -> Option<ResolveError> {
        if self.wrong == told.wrong {
            return None;
        }
        self.wrong.clone_from(&told.wrong);
        let wrong = self.wrong.as_deref()?;
        Some(ResolveError::new(wrong))
    }
}

fn same(old: &[Endpoint], new: &[Endpoint]) -> bool {
    let same = |(old, new): (&Endpoint, &Endpoint)| old == new && old.same_description(new);
    old.len() == new.len() && old.iter().zip(new).all(same)
}
