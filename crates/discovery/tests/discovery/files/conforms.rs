//! The suite that every source passes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tower_mesh_core::{
    BoxFuture, Endpoint, Resolve, ServiceName,
    testing::conformance::{self, Harness, ResolveHarness},
};
use tower_mesh_discovery::File;

use super::scene::{Scene, run};

/// A file that is exchanged with each change; without it the connection is cut.
struct Exchanged {
    scene: Scene,
    file: File,
    services: Mutex<BTreeMap<ServiceName, Value>>,
    there: Mutex<&'static str>,
}

const THERE: &str = "endpoints.json";
const AWAY: &str = ".away";

impl Exchanged {
    fn write(&self) {
        let services = self.services.lock().unwrap();
        let text: BTreeMap<_, _> = services.iter().map(|(n, e)| (n.as_str(), e)).collect();
        self.scene.write(".next", &json!(text).to_string());
        self.scene.rename(".next", *self.there.lock().unwrap());
    }
}

impl Harness for Exchanged {
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.scene.pass(time))
    }

    fn cut(&self) -> BoxFuture<'_, bool> {
        self.scene.rename(THERE, AWAY);
        *self.there.lock().unwrap() = AWAY;
        Box::pin(async { true })
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        self.scene.rename(AWAY, THERE);
        *self.there.lock().unwrap() = THERE;
        Box::pin(async {})
    }
}

impl ResolveHarness for Exchanged {
    fn source(&self) -> Arc<dyn Resolve> {
        Arc::new(self.file.clone())
    }

    fn publish<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoints: Option<Vec<Endpoint>>,
    ) -> BoxFuture<'a, ()> {
        let mut services = self.services.lock().unwrap();
        match endpoints {
            Some(all) => services.insert(service.clone(), all.iter().map(described).collect()),
            None => services.remove(service),
        };
        drop(services);
        self.write();
        Box::pin(async {})
    }
}

fn described(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address().to_string(),
        "id": endpoint.id(),
        "weight": endpoint.weight().get(),
        "priority": endpoint.priority(),
        "zone": endpoint.zone(),
        "tags": endpoint.tags().collect::<Vec<_>>(),
        "metadata": endpoint.all_metadata().collect::<BTreeMap<_, _>>(),
    })
}

#[test]
fn a_file_conforms() {
    run(async {
        let scene = Scene::new();
        let exchanged = Exchanged {
            file: scene.file(THERE),
            scene,
            services: Mutex::default(),
            there: Mutex::new(THERE),
        };
        exchanged.write();
        conformance::resolve(&exchanged).await.expect("it conforms");
    });
}
