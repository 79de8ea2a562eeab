//! One who follows a service, and knows what it was told.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;

use super::{Harness, ensure, within};
use crate::{
    endpoint::Endpoint,
    name::ServiceName,
    resolve::{Resolve, ResolveError, Update, Updates},
};

/// The updates of one service, applied.
pub(super) struct Followed {
    updates: Updates,
    known: Option<BTreeMap<Box<str>, Endpoint>>,
    /// Whether descriptions count, or addresses only.
    describes: bool,
}

impl Followed {
    pub(super) fn start(source: &dyn Resolve, service: &ServiceName, describes: bool) -> Self {
        Self {
            updates: source.resolve(service),
            known: None,
            describes,
        }
    }

    /// The next report.
    pub(super) async fn next(
        &mut self,
        harness: &(impl Harness + ?Sized),
    ) -> Result<Result<Update, ResolveError>, String> {
        match within(harness, harness.patience(), self.updates.next()).await {
            Some(Some(item)) => Ok(item),
            Some(None) => Err("the stream has ended".into()),
            None => Err(format!("nothing has come within {:?}", harness.patience())),
        }
    }

    /// The first answer, applied.
    pub(super) async fn first(
        &mut self,
        harness: &(impl Harness + ?Sized),
    ) -> Result<Update, String> {
        let update = self.answer(harness).await?;
        match update {
            Update::Patch { .. } => Err("the first report is a patch of nothing".into()),
            first => Ok(first),
        }
    }

    /// The next report that is no error, applied.
    pub(super) async fn answer(
        &mut self,
        harness: &(impl Harness + ?Sized),
    ) -> Result<Update, String> {
        loop {
            if let Ok(update) = self.next(harness).await? {
                self.apply(&update);
                return Ok(update);
            }
        }
    }

    /// Waits until it has been told of `expected` and nothing else; none is a service that does not exist.
    pub(super) async fn until(
        &mut self,
        harness: &(impl Harness + ?Sized),
        expected: Option<&[Endpoint]>,
    ) -> Result<(), String> {
        while !self.is(expected) {
            self.answer(harness).await.map_err(|why| {
                format!(
                    "expected {expected:?}, was told {:?}, then: {why}",
                    self.known
                )
            })?;
        }
        Ok(())
    }

    /// Makes sure that nothing is reported while `time` passes, apart from errors.
    pub(super) async fn quiet(
        &mut self,
        harness: &(impl Harness + ?Sized),
        time: Duration,
    ) -> Result<(), String> {
        let updates = &mut self.updates;
        let report = async {
            loop {
                match updates.next().await {
                    Some(Err(_)) => {}
                    other => return other,
                }
            }
        };
        match within(harness, time, report).await {
            None => Ok(()),
            Some(None) => Err("the stream has ended".into()),
            Some(report) => Err(format!("nothing has changed, but it reports {report:?}")),
        }
    }

    pub(super) fn is(&self, expected: Option<&[Endpoint]>) -> bool {
        match (&self.known, expected) {
            (None, None) => true,
            (Some(known), Some(expected)) if !self.describes => {
                let mut known: Vec<_> = known.values().map(Endpoint::address).collect();
                let mut expected: Vec<_> = expected.iter().map(Endpoint::address).collect();
                known.sort_unstable();
                expected.sort_unstable();
                known == expected
            }
            (Some(known), Some(expected)) => {
                let is_known = |e: &Endpoint| {
                    let known = known.get(e.id());
                    known.is_some_and(|known| known == e && known.same_description(e))
                };
                known.len() == expected.len() && expected.iter().all(is_known)
            }
            _ => false,
        }
    }

    /// The endpoint with this address, as it was described last.
    pub(super) fn find(&self, endpoint: &Endpoint) -> Result<&Endpoint, String> {
        let mut all = self.known.iter().flat_map(BTreeMap::values);
        all.find(|e| e.address() == endpoint.address())
            .ok_or_else(|| format!("{endpoint:?} is not among {:?}", self.known))
    }

    /// What is known holds `endpoint`, described just so.
    pub(super) fn holds(&self, endpoint: &Endpoint) -> Result<(), String> {
        let found = self.find(endpoint)?;
        ensure(
            found == endpoint && found.same_description(endpoint),
            || {
                format!(
                    "{} is described as {}",
                    described(endpoint),
                    described(found)
                )
            },
        )
    }

    fn apply(&mut self, update: &Update) {
        match update {
            Update::Absent => self.known = None,
            Update::Replace(endpoints) => self.known = Some(by_id(endpoints).collect()),
            Update::Patch { upsert, remove } => {
                let known = self.known.get_or_insert_default();
                known.retain(|id, _| !remove.contains(id));
                known.extend(by_id(upsert));
            }
        }
    }
}

fn by_id(endpoints: &[Endpoint]) -> impl Iterator<Item = (Box<str>, Endpoint)> {
    endpoints.iter().map(|e| (e.id().into(), e.clone()))
}

fn described(e: &Endpoint) -> String {
    let tags: Vec<_> = e.tags().collect();
    let metadata: Vec<_> = e.all_metadata().collect();
    format!(
        "{} at {}, weight {}, zone {:?}, priority {}, {:?}, tags {tags:?}, metadata {metadata:?}",
        e.id(),
        e.address(),
        e.weight().get(),
        e.zone(),
        e.priority(),
        e.health(),
    )
}
