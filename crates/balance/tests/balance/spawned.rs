//! Flaw W14: a call of tower's buffer before its balancer that is made within another future cannot be spawned:
//! "implementation of `FnOnce` is not general enough".
//!
//! What the compiler asks of another future, to find out whether it is `Send`: it forgets the lifetimes that are spelt out
//! in the types of what is awaited within, and then what is awaited has to be a future whatever they are. The type of
//! tower's spells out `fn(BoxError) -> BoxError`, for which that does not hold. Ours spells out no error. (It cannot help it
//! when the endpoint's own type does; nor can tower's timeout.)

use std::{
    error::Error,
    future::{Future, Ready, ready},
    marker::PhantomData,
    task::{Context, Poll},
};

use futures_util::future::MapErr;
use tower::{Layer, Service, ServiceExt, balance::p2c, discover::ServiceList, load::Constant};
use tower_mesh_balance::{Balance, BalanceLayer};
use tower_mesh_core::{BoxError, Endpoints, Shared};

use crate::fleet::{endpoint, name};

/// An endpoint's service, as most are: its type names no error.
#[derive(Clone)]
struct Client;

impl Service<u64> for Client {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

type Towers = p2c::Balance<ServiceList<Vec<Constant<Client, u8>>>, u64>;

/// The type of a call's future with the lifetimes that it spells out.
trait Spelt {
    type Call<'a, 'b>;
}

impl Spelt for Balance<Client> {
    type Call<'a, 'b> = <Self as Service<u64>>::Future;
}

type Boxed<'e> = Box<dyn Error + Send + Sync + 'e>;

impl Spelt for Towers {
    type Call<'a, 'b> = MapErr<Ready<Result<u64, Boxed<'a>>>, fn(Boxed<'b>) -> BoxError>;
}

/// Whether a call is a future whatever the lifetimes: where it is not, the constant of the trait is found instead.
struct Call<S>(PhantomData<S>);

trait IsNoFuture {
    const WITHIN_ANOTHER: bool = false;
}

impl<S> IsNoFuture for Call<S> {}

impl<S: Spelt> Call<S>
where
    for<'a, 'b> S::Call<'a, 'b>: Future,
{
    const WITHIN_ANOTHER: bool = true;
}

#[test]
fn w14_a_call_within_another_future_is_a_future_still() {
    const {
        assert!(Call::<Balance<Client>>::WITHIN_ANOTHER);
        assert!(!Call::<Towers>::WITHIN_ANOTHER);
    }
    // That is how tower spells it, and with these very lifetimes it is a future.
    fn is<S: Service<u64, Future = S::Call<'static, 'static>> + Spelt>() {}
    is::<Towers>();
    is::<Balance<Client>>();
}

#[tokio::test]
#[allow(
    clippy::disallowed_methods,
    reason = "whether it can be spawned is the question"
)]
async fn w14_a_call_within_another_future_can_be_spawned() {
    let endpoints = Endpoints::fixed(name(), [endpoint(1)]);
    let service = BalanceLayer::new(endpoints).layer(Shared::new(Client));
    let spawned = tokio::spawn(async move { service.oneshot(7).await });
    assert_eq!(spawned.await.unwrap().unwrap(), 7);
}
