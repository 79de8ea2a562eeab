//! The public suite, against a server of our own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{Record, RecordType},
};
use tower_mesh_core::{
    BoxFuture, Endpoint, Resolve, ServiceName,
    testing::conformance::{self, Harness, ResolveHarness},
};
use tower_mesh_dns::{Dns, Records};

use crate::{
    scene::pass,
    server::{Reply, Server, address, srv},
};

struct Zone {
    server: Server,
    dns: Dns,
    known: std::sync::Mutex<HashMap<String, Reply>>,
}

impl Zone {
    fn say(&self, broken: bool) {
        for (name, reply) in &*self.known.lock().unwrap() {
            let reply = match broken {
                true => Reply::Fail(ResponseCode::ServFail),
                false => reply.clone(),
            };
            self.server.says(name, RecordType::SRV, reply);
        }
    }
}

impl Harness for Zone {
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(pass(time))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn cut(&self) -> BoxFuture<'_, bool> {
        self.say(true);
        Box::pin(async { true })
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        self.say(false);
        Box::pin(async {})
    }
}

impl ResolveHarness for Zone {
    fn source(&self) -> Arc<dyn Resolve> {
        Arc::new(self.dns.clone())
    }

    fn publish<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoints: Option<Vec<Endpoint>>,
    ) -> BoxFuture<'a, ()> {
        let name = format!("{service}.example");
        let reply = match endpoints.as_deref() {
            None => Reply::Nothing(ResponseCode::NXDomain, None),
            Some([]) => Reply::Nothing(ResponseCode::NoError, None),
            Some(all) => {
                let target = |e: &Endpoint| format!("h{}.example", e.address().port());
                let record = |e: &Endpoint| -> Record {
                    let data = (e.priority().into(), e.weight().get(), e.address().port());
                    srv(&name, 0, data, &target(e))
                };
                let along = |e: &Endpoint| address(&target(e), 0, e.address().ip());
                Reply::Records(
                    all.iter().map(record).collect(),
                    all.iter().map(along).collect(),
                )
            }
        };
        self.known.lock().unwrap().insert(name, reply);
        self.say(false);
        Box::pin(async {})
    }

    fn describes(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn dns_conforms_as_a_source() {
    let server = Server::start();
    let short = Duration::from_millis(20);
    let records = Records::srv("{service}.example").unwrap();
    let zone = Zone {
        dns: server.dns().records(records).min_ttl(short).max_ttl(short),
        server,
        known: Default::default(),
    };
    conformance::resolve(&zone).await.expect("it conforms");
}
