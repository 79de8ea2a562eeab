//! Several sources in order of preference, on paused time.

use tower_mesh_core::{Empties, Endpoints, Resolution, Resolve, Update};
use tower_mesh_discovery::{Discovery, Preferred};

use crate::script::{Say, Script, endpoint, moment, orders, pass, ports, secs, start, status_of};

struct Scene {
    first: Script,
    second: Script,
    discovery: Discovery,
    endpoints: Endpoints,
}

/// Whom the scripts have told something already.
async fn scene(first: &Script, second: &Script) -> Scene {
    let sources = Preferred::new(first.clone()).or(second.clone());
    let discovery = start(Discovery::builder(sources));
    let endpoints = discovery.endpoints(&orders());
    moment().await;
    Scene {
        first: first.clone(),
        second: second.clone(),
        discovery,
        endpoints,
    }
}

impl Scene {
    fn ports(&self) -> Vec<u16> {
        ports(&self.endpoints)
    }

    fn error(&self) -> Option<String> {
        let status = status_of(&self.discovery, &orders());
        status.last_error.map(|error| error.to_string())
    }
}

/// Two that know the service: the first at port 1, the second at port 2.
async fn both() -> Scene {
    let (first, second) = (Script::new(), Script::new());
    first.replace(&orders(), &[endpoint(1)]);
    second.replace(&orders(), &[endpoint(2)]);
    scene(&first, &second).await
}

#[tokio::test(start_paused = true)]
async fn the_first_is_used_and_the_second_is_silent() {
    let scene = both().await;
    assert_eq!(scene.ports(), [1]);
    scene.second.replace(&orders(), &[endpoint(3)]);
    pass(secs(60)).await;
    assert_eq!((scene.ports(), scene.error()), (vec![1], None));
    scene
        .first
        .patch(&orders(), &[endpoint(4)], &["127.0.0.1:1"]);
    moment().await;
    assert_eq!(scene.ports(), [4]);
}

#[tokio::test(start_paused = true)]
async fn what_the_first_does_not_know_or_cannot_say_the_second_does() {
    for say in [
        Say::Update(Update::Absent),
        Say::Fail("away"),
        Say::Panic,
        Say::End,
    ] {
        let (first, second) = (Script::new(), Script::new());
        first.say(&orders(), say);
        second.replace(&orders(), &[endpoint(2)]);
        let scene = scene(&first, &second).await;
        assert_eq!(scene.ports(), [2]);
        let error = scene.error().expect("it is not the best that is used");
        assert!(error.contains("script cannot be used"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_that_is_silent_is_waited_for_for_two_seconds() {
    let (first, second) = (Script::new(), Script::new());
    second.replace(&orders(), &[endpoint(2)]);
    let scene = scene(&first, &second).await;
    pass(secs(1)).await;
    assert!(scene.ports().is_empty());
    pass(secs(1)).await;
    assert_eq!(scene.ports(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_first_that_fails_is_left_after_ten_seconds_and_used_again_ten_after_it_is_back() {
    let scene = both().await;
    scene.first.say(&orders(), Say::Fail("away"));
    pass(secs(9)).await;
    assert_eq!(scene.ports(), [1], "what it said last is good for so long");
    pass(secs(2)).await;
    assert_eq!(scene.ports(), [2]);
    assert!(scene.error().is_some_and(|error| error.contains("away")));
    scene.first.replace(&orders(), &[endpoint(1)]);
    pass(secs(9)).await;
    assert_eq!(scene.ports(), [2]);
    pass(secs(2)).await;
    assert_eq!((scene.ports(), scene.error()), (vec![1], None));
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_and_goes_draws_nobody_to_and_fro() {
    let scene = both().await;
    scene.first.say(&orders(), Say::Fail("away"));
    pass(secs(11)).await;
    for _ in 0..20 {
        assert_eq!(scene.ports(), [2]);
        scene.first.replace(&orders(), &[endpoint(1)]);
        pass(secs(8)).await;
        scene.first.say(&orders(), Say::Fail("away"));
        pass(secs(8)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_what_was_used_last_stays() {
    let scene = both().await;
    scene.first.say(&orders(), Say::Fail("away"));
    scene.second.say(&orders(), Say::Fail("away, too"));
    pass(secs(600)).await;
    assert_eq!(scene.ports(), [1]);
    assert!(scene.error().is_some_and(|error| error.contains("away")));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_an_authoritys_word_and_a_suspects_failure() {
    let scene = both().await;
    scene.first.replace(&orders(), &[]);
    pass(secs(60)).await;
    assert!(scene.ports().is_empty());
    assert_eq!(scene.endpoints.current().resolution(), Resolution::Found);

    let (first, second) = (Script::suspect(), Script::new());
    first.replace(&orders(), &[]);
    second.replace(&orders(), &[endpoint(2)]);
    let sources = Preferred::new(first.clone()).or(second.clone());
    assert_eq!(sources.empties(), Empties::Suspect);
    assert_eq!(self::scene(&first, &second).await.ports(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_knows_does_not_exist() {
    let (first, second) = (Script::new(), Script::new());
    first.say(&orders(), Say::Update(Update::Absent));
    second.say(&orders(), Say::Update(Update::Absent));
    let scene = scene(&first, &second).await;
    assert_eq!(scene.endpoints.current().resolution(), Resolution::Absent);
    // Who knows it first is used, without waiting.
    scene.second.replace(&orders(), &[endpoint(2)]);
    moment().await;
    assert_eq!(scene.ports(), [2]);
}
