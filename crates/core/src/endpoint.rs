//! One address that answers for a service.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use crate::vitals::Vitals;

/// One address that answers for a service: what the registry says of it, and the state that calls have left.
///
/// Its identity is its id and its address: two endpoints are equal if both are. Weight, zone, priority, health, tags
/// and metadata may change without a reconnect. Gate and load ([`Vitals`]) stay with the identity across updates,
/// see [`keeping`](Self::keeping).
///
/// # Clone
///
/// A clone is the same endpoint and allocates nothing.
///
/// # Example
///
/// ```
/// use tower_mesh_core::{Endpoint, Weight};
///
/// let endpoint = Endpoint::new(([127, 0, 0, 1], 8080).into())
///     .with_zone("eu-1")
///     .with_weight(Weight::new(3))
///     .with_metadata("version", "1.2.3");
/// assert_eq!(endpoint.id(), "127.0.0.1:8080");
/// ```
#[derive(Clone)]
pub struct Endpoint {
    spec: Arc<Spec>,
    vitals: Arc<Vitals>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    id: Arc<str>,
    address: SocketAddr,
    weight: Weight,
    zone: Option<Arc<str>>,
    priority: u8,
    health: Health,
    /// Apart, since many endpoints have none; there only once there is one.
    labels: Option<Box<Labels>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Labels {
    tags: Vec<Box<str>>,
    metadata: BTreeMap<Box<str>, Box<str>>,
}

/// What the registry says of an endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Health {
    /// All its checks pass, or it has none.
    #[default]
    Passing,
    /// A check warns; it still answers.
    Warning,
    /// A check fails.
    Critical,
}

/// An endpoint's share of the traffic relative to its peers, 0 to 65,535; 1 unless said.
///
/// Zero means no new calls; if all endpoints have zero they count as equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// The weight `weight`.
    pub const fn new(weight: u16) -> Self {
        Self(weight)
    }

    /// A weight out of a registry: what is no number or negative is refused, what is too large is cut off, and a
    /// fraction above zero never becomes zero.
    ///
    /// # Errors
    ///
    /// [`InvalidWeight`] for NaN, infinities and negative numbers.
    pub fn from_f64(weight: f64) -> Result<Self, InvalidWeight> {
        if !weight.is_finite() || weight < 0.0 {
            return Err(InvalidWeight(weight));
        }
        // `as` saturates.
        Ok(Self(weight.ceil() as u16))
    }

    /// The weight as a number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// A number is no [`Weight`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InvalidWeight(f64);

impl fmt::Display for InvalidWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is no weight: it must be finite and not negative",
            self.0
        )
    }
}

impl std::error::Error for InvalidWeight {}

impl Endpoint {
    /// An endpoint at `address`, whose id is the address until [`with_id`](Self::with_id) says otherwise.
    pub fn new(address: SocketAddr) -> Self {
        let spec = Arc::new(Spec {
            id: address.to_string().into(),
            address,
            weight: Weight::default(),
            zone: None,
            priority: 0,
            health: Health::default(),
            labels: None,
        });
        Self {
            vitals: fresh_vitals(&spec),
            spec,
        }
    }

    pub(crate) fn from_parts(spec: Arc<Spec>, vitals: Arc<Vitals>) -> Self {
        Self { spec, vitals }
    }

    fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(Arc::make_mut(&mut self.spec));
        self
    }

    /// Sets the id under which the registry knows it. It becomes another endpoint, with no history.
    #[must_use]
    pub fn with_id(self, id: &str) -> Self {
        let mut this = self.with(|spec| spec.id = id.into());
        this.vitals = fresh_vitals(&this.spec);
        this
    }

    /// Sets its share of the traffic.
    #[must_use]
    pub fn with_weight(self, weight: Weight) -> Self {
        self.with(|spec| spec.weight = weight)
    }

    /// Sets the zone it runs in.
    #[must_use]
    pub fn with_zone(self, zone: &str) -> Self {
        self.with(|spec| spec.zone = Some(zone.into()))
    }

    /// Sets its priority: 0 is used first.
    #[must_use]
    pub fn with_priority(self, priority: u8) -> Self {
        self.with(|spec| spec.priority = priority)
    }

    /// Sets what the registry says of its health.
    #[must_use]
    pub fn with_health(self, health: Health) -> Self {
        self.with(|spec| spec.health = health)
    }

    /// Adds a tag.
    #[must_use]
    pub fn with_tag(self, tag: &str) -> Self {
        self.with(|spec| {
            let tags = &mut spec.labels.get_or_insert_default().tags;
            if !tags.iter().any(|t| **t == *tag) {
                tags.push(tag.into());
            }
        })
    }

    /// Sets a metadata value.
    #[must_use]
    pub fn with_metadata(self, key: &str, value: &str) -> Self {
        self.with(|spec| {
            let labels = spec.labels.get_or_insert_default();
            labels.metadata.insert(key.into(), value.into());
        })
    }

    /// The id under which the registry knows it.
    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// The id for who keeps it: a share of the endpoint's own, which takes no memory.
    pub fn share_id(&self) -> Arc<str> {
        Arc::clone(&self.spec.id)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.spec.address
    }

    /// Its share of the traffic.
    pub fn weight(&self) -> Weight {
        self.spec.weight
    }

    /// The zone it runs in, if known.
    pub fn zone(&self) -> Option<&str> {
        self.spec.zone.as_deref()
    }

    /// Its priority: 0 is used first.
    pub fn priority(&self) -> u8 {
        self.spec.priority
    }

    /// What the registry says of its health.
    pub fn health(&self) -> Health {
        self.spec.health
    }

    /// Its tags, in the registry's order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.labels()
            .flat_map(|labels| labels.tags.iter().map(|tag| &**tag))
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|t| t == tag)
    }

    /// A metadata value.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let labels = self.spec.labels.as_ref()?;
        labels.metadata.get(key).map(|value| &**value)
    }

    /// All its metadata, by key.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels()
            .flat_map(|labels| labels.metadata.iter().map(|(k, v)| (&**k, &**v)))
    }

    fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.spec.labels.as_deref().into_iter()
    }

    /// The state that calls have left: gate and load.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// This endpoint as the registry describes it now, with the gate and the load that `old` has collected.
    ///
    /// Discovery calls it for an endpoint that an update brings again.
    #[must_use]
    pub fn keeping(mut self, old: &Self) -> Self {
        debug_assert_eq!(&self, old, "state belongs to an identity");
        self.vitals = Arc::clone(&old.vitals);
        self
    }

    /// This endpoint with no history: a gate and a load of its own.
    ///
    /// Discovery calls it for an endpoint that an update adds: what other holders of the same endpoint have seen, or
    /// what was drained before it left, is not what it begins with.
    #[must_use]
    pub fn forgetting(mut self) -> Self {
        self.forget();
        self
    }

    /// As [`forgetting`](Self::forgetting), in place: no memory is taken if nobody else holds its state.
    pub fn forget(&mut self) {
        match Arc::get_mut(&mut self.vitals) {
            Some(own) => *own = Vitals::new(own.key(), Some(Arc::clone(&self.spec))),
            None => self.vitals = fresh_vitals(&self.spec),
        }
    }

    /// Whether the registry says the same of both, beyond their identity.
    pub fn same_description(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec
    }
}

fn fresh_vitals(spec: &Arc<Spec>) -> Arc<Vitals> {
    let key = key(&spec.id, spec.address);
    Arc::new(Vitals::new(key, Some(Arc::clone(spec))))
}

/// A short name for an identity, the same in each run: FNV-1a.
fn key(id: &str, address: SocketAddr) -> u32 {
    struct Fnv(u64);

    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }

    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    id.hash(&mut hash);
    address.hash(&mut hash);
    let key = (hash.finish() ^ (hash.finish() >> 32)) as u32;
    key.max(1) // Zero means "no endpoint" where keys are kept in an array.
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.spec.id == other.spec.id && self.spec.address == other.spec.address
    }
}

impl Eq for Endpoint {}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.id.hash(state);
        self.spec.address.hash(state);
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.spec.id)
            .field("address", &self.spec.address)
            .field("weight", &self.spec.weight.0)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn identity_is_id_and_address_alone() {
        assert_eq!(
            endpoint(1),
            endpoint(1).with_weight(Weight::new(7)).with_zone("a")
        );
        assert_ne!(endpoint(1), endpoint(2));
        assert_ne!(endpoint(1), endpoint(1).with_id("one"));
        assert!(!endpoint(1).same_description(&endpoint(1).with_zone("a")));
    }

    #[test]
    fn a_changed_description_keeps_the_state_of_calls() {
        let old = endpoint(1);
        old.vitals().load().begin();
        let new = endpoint(1).with_weight(Weight::new(9)).keeping(&old);
        assert_eq!(new.vitals().load().in_flight(), 1);
        assert_eq!(new.weight().get(), 9);
    }

    #[test]
    fn an_endpoint_that_comes_back_has_no_history() {
        let old = endpoint(1);
        old.vitals().gate().set_draining(true);
        let new = old.clone().forgetting();
        assert_eq!(new, old);
        assert_eq!(new.vitals().key(), old.vitals().key());
        assert!(new.vitals().gate().is_open());
        assert!(!old.vitals().gate().is_open(), "others keep what they hold");
        let mut alone = endpoint(2).with_tag("new");
        alone.vitals().gate().set_draining(true);
        alone.vitals().load().begin();
        alone.forget();
        assert!(alone.vitals().gate().is_open());
        assert_eq!(alone.vitals().load().attempts(), 0);
        let described = alone.vitals().endpoint();
        assert!(described.is_some_and(|described| described.has_tag("new")));
    }

    #[test]
    fn its_state_knows_whose_it_is() {
        let endpoint = endpoint(1).with_id("one").with_weight(Weight::new(9));
        let owner = endpoint.vitals().endpoint();
        assert_eq!(owner.as_ref(), Some(&endpoint));
        assert!(owner.is_some_and(|owner| Arc::ptr_eq(owner.vitals(), endpoint.vitals())));
        assert_eq!(Vitals::detached().endpoint(), None);
    }

    #[test]
    fn weights_out_of_a_registry_are_refused_or_cut_off_never_misread() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            assert!(Weight::from_f64(bad).is_err(), "{bad}");
        }
        for (number, weight) in [(0.0, 0), (-0.0, 0), (0.2, 1), (3.0, 3), (1e308, u16::MAX)] {
            assert_eq!(
                Weight::from_f64(number),
                Ok(Weight::new(weight)),
                "{number}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_number_is_a_weight_or_refused_and_order_is_kept(a in any::<f64>(), b in 0.0..100_000.0) {
            let refused = a.is_nan() || a.is_infinite() || a < 0.0;
            prop_assert_eq!(Weight::from_f64(a).is_err(), refused);
            if let Ok(weight) = Weight::from_f64(a) {
                prop_assert_eq!(weight.get() == 0, a == 0.0);
                let other = Weight::from_f64(b).unwrap();
                let in_order = if a <= b { weight <= other } else { weight >= other };
                prop_assert!(in_order, "{a} and {b} became {weight:?} and {other:?}");
            }
        }

        #[test]
        fn a_weight_comes_back_as_it_was(weight in any::<u16>()) {
            prop_assert_eq!(Weight::from_f64(f64::from(weight)), Ok(Weight::new(weight)));
        }
    }

    #[test]
    fn keys_tell_endpoints_apart_and_are_never_zero() {
        let keys: std::collections::HashSet<_> = (1..2_000)
            .map(|port| endpoint(port).vitals().key())
            .collect();
        assert_eq!(keys.len(), 1_999);
        assert!(!keys.contains(&0));
    }
}
