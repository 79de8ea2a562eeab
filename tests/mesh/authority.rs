//! One client for all services: the authority of a request says which.

use std::{error::Error as _, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};
use tower_mesh::{Body, Config, Endpoint, Mesh, MeshClient, Policy, core::Kind, discovery::Static};

use crate::{
    reload::{Backend, Client},
    support::{Server, dead_endpoint, name, until},
};

async fn mesh(services: Vec<(&str, Vec<Endpoint>)>) -> Mesh {
    let known = services
        .into_iter()
        .fold(Static::new(), |known, (service, endpoints)| {
            known.service(name(service), endpoints)
        });
    Mesh::builder("shop")
        .discovery(known)
        .start()
        .await
        .unwrap()
}

async fn text<B: http_body::Body<Error: std::fmt::Debug>>(response: http::Response<B>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn each_request_goes_to_the_service_that_it_names() {
    let orders = Server::answering(200, "orders").await;
    let users = Server::answering(200, "users").await;
    let mesh = mesh(vec![
        ("orders", vec![dead_endpoint().await, orders.endpoint()]),
        ("users", vec![users.endpoint()]),
    ])
    .await;
    let mut client: MeshClient = mesh.client();
    for _ in 0..10 {
        assert_eq!(
            text(client.get("http://orders/v1/items").await.unwrap()).await,
            "orders"
        );
        assert_eq!(
            text(client.get("http://users:80/42").await.unwrap()).await,
            "users"
        );
    }
    // As a tower service.
    let request = Request::post("http://orders/")
        .body(Body::from("x"))
        .unwrap();
    let answer = client.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(text(answer).await, "orders");
    assert_eq!(mesh.status().services.len(), 2);
    assert_eq!(
        mesh.status().services[0].calls,
        11,
        "the same state as by name"
    );
}

// row 11
#[tokio::test]
async fn what_names_no_service_reaches_nobody_and_is_told_what_to_do() {
    let inside = Server::answering(200, "secret").await;
    let address = inside.endpoint().address();
    let mesh = mesh(vec![("orders", vec![inside.endpoint()])]).await;
    let client = mesh.client();
    for (uri, says) in [
        (format!("http://{address}/"), "an address, not a service"),
        (
            format!("http://orders@{address}/"),
            "`authorization` header",
        ),
        (
            format!("http://localhost:{}/", address.port()),
            "leave it away",
        ),
        ("http://orders:8080/".to_owned(), "leave it away"),
        ("http://ORDERS/".to_owned(), "lower case"),
        ("https://orders/".to_owned(), "https was asked for"),
        ("/v1".to_owned(), "http://SERVICE/"),
    ] {
        let error = client.get(&uri).await.unwrap_err();
        let told = std::iter::successors(Some(&error as &dyn std::error::Error), |&e| e.source());
        let told: String = told.map(|error| format!("{error}\n")).collect();
        assert!(told.contains(says), "{uri}: {told}");
        assert_eq!(error.kind(), Some(Kind::ServiceNotFound), "{uri}");
        assert!(!error.maybe_sent(), "{uri}");
    }
    // A name like any other that the registry does not know.
    let error = client.get("http://localhost/").await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::ServiceNotFound), "{error}");
    assert!(!error.maybe_sent());
    assert_eq!(inside.hits(), 0);
}

#[tokio::test]
async fn a_host_outside_is_let_through_by_name_only_and_with_a_time_limit() {
    let outside = Server::answering(200, "outside").await;
    let hanging = Server::hanging().await;
    let mut policy = Policy::default();
    policy.timeout = Duration::from_millis(100);
    let mesh = Mesh::builder("shop")
        .defaults(policy)
        .start()
        .await
        .unwrap();
    let [host, slow] = [&outside, &hanging].map(|server| server.endpoint().address().to_string());
    let client = mesh.client();
    let error = client.get(&format!("http://{host}/")).await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::ServiceNotFound));

    // Whom a clone has called in vain as a service may be let through all the same.
    let named = format!("localhost:{}", outside.endpoint().address().port());
    let passing = client.clone().pass_through([&*named]);
    let answer = passing.get(&format!("http://{named}/")).await;
    assert_eq!(text(answer.unwrap()).await, "outside");

    let client = client.pass_through([&*host, &*slow]);
    let answer = client.get(&format!("http://{host}/a")).await.unwrap();
    assert_eq!(text(answer).await, "outside");
    let error = client.get(&format!("http://{slow}/")).await.unwrap_err();
    assert!(error.is_deadline_exceeded(), "{error}");
    let error = client.get("http://10.0.0.7/").await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::ServiceNotFound));
    let gone = dead_endpoint().await.address().to_string();
    let error = client
        .clone()
        .pass_through([&*gone])
        .get(&format!("http://{gone}/"))
        .await
        .unwrap_err();
    assert!(error.source().is_some(), "{error}");

    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(mesh.tasks(), 0);
    let error = client.get("http://orders/").await.unwrap_err();
    assert!(error.is_shutting_down(), "{error}");
}

/// A mesh of these services without sockets, whose time is paused.
async fn by_hand(services: impl Iterator<Item = String>) -> (Mesh, MeshClient<Client>, Backend) {
    let endpoint = || Endpoint::new(([127, 0, 0, 1], 80).into());
    let known = services.fold(Static::new(), |known, service| {
        known.service(name(&service), [endpoint()])
    });
    let mesh = Mesh::builder("shop")
        .discovery(known)
        .start()
        .await
        .unwrap();
    let backend = Backend::default();
    let client = mesh.client_over(backend.client());
    (mesh, client, backend)
}

fn used(mesh: &Mesh) -> Vec<String> {
    let services = mesh.status().services;
    services.into_iter().map(|service| service.name).collect()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_calls_any_more_is_let_go_and_one_that_is_held_or_called_is_not() {
    let names = ["called", "held", "idle", "streams"];
    let (mesh, client, _backend) = by_hand(names.map(str::to_owned).into_iter()).await;
    let held = mesh.service("held").unwrap();
    let mut streams = None;
    for name in names {
        streams = Some(client.get(&format!("http://{name}/")).await.unwrap());
    }
    for _ in 0..30 {
        client.get("http://called/").await.unwrap();
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(used(&mesh), ["called", "held", "streams"]);
    drop((held, streams));
    // And it is there again when somebody calls it.
    client.get("http://idle/").await.unwrap();
    assert!(used(&mesh).contains(&"idle".to_owned()));
    let tasks = mesh.tasks();
    drop(client);
    until("its sweeping ends with a client", || mesh.tasks() < tasks).await;
}

#[tokio::test(start_paused = true)]
async fn names_out_of_requests_fill_no_memory_and_those_that_do_not_exist_make_room() {
    let (mesh, client, _backend) = by_hand((0..1_030).map(|i| format!("s{i}-x"))).await;
    let ask = async |name: String| client.get(&format!("http://{name}/")).await.map(drop);
    for i in 0..1_023 {
        ask(format!("s{i}-x")).await.unwrap();
    }
    for i in 0..100 {
        let error = ask(format!("nobody{i}-x")).await.unwrap_err();
        assert!(error.is_service_not_found(), "{error}");
    }
    ask("s1023-x".to_owned()).await.unwrap();
    assert_eq!(used(&mesh).len(), 1_024);
    let error = ask("s1024-x".to_owned()).await.unwrap_err();
    assert!(error.is_overloaded(), "{error}");
    ask("s7-x".to_owned()).await.unwrap();
    // What was not called for a while makes room at once.
    tokio::time::sleep(11 * MINUTE).await;
    ask("s1024-x".to_owned()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_configuration_holds_for_services_that_were_called_before() {
    let (mesh, client, backend) = by_hand(["orders".to_owned()].into_iter()).await;
    client.get("http://orders/").await.unwrap();
    backend.hang();
    let config = Config::parse("defaults.timeout = \"1s\"\ndefaults.retry.attempts = 1").unwrap();
    mesh.reload(&config).unwrap();
    let began = tokio::time::Instant::now();
    let error = client.get("http://orders/").await.unwrap_err();
    assert!(error.is_deadline_exceeded(), "{error}");
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}
