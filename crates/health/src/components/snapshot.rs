//! How the components are, for a person or a dashboard.

use std::{sync::Arc, time::Duration};

use crate::components::{
    status::{Criticality, Status},
    trend::Trend,
};

/// How all components are, of one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ComponentsSnapshot {
    /// How they are together: as the worst of the critical ones; what is optional makes it degraded at worst.
    pub status: Status,
    /// Whether the process can do its work: no critical component is unhealthy.
    pub ready: bool,
    /// Each of them, by name.
    pub components: Vec<ComponentSnapshot>,
}

/// How one component is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ComponentSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// Whether the process can do without.
    pub criticality: Criticality,
    /// How it is; unhealthy until it has said otherwise, as nobody knows that it works.
    pub status: Status,
    /// Where it is going.
    pub trend: Trend,
    /// How old its last report is; nothing before the first.
    pub age: Option<Duration>,
    /// For how long it has been in this status.
    pub since: Duration,
    /// Why it was last no better than it was, cut to 256 bytes; stays when it recovers.
    pub last_error: Option<Arc<str>>,
    /// How old that is.
    pub last_error_age: Option<Duration>,
}
