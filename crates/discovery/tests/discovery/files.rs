//! Real files in a real directory, on a clock that the test moves.

mod conforms;
mod scene;

use std::num::NonZeroUsize;

use tower_mesh_core::{Clock, Resolution};
use tower_mesh_discovery::{Discovery, File};

use self::scene::{Scene, run};
use crate::script::{orders, ports, start, status_of};

const ONE: &str = r#"orders = [{ address = "127.0.0.1:1" }]"#;
const TWO: &str = r#"orders = [{ address = "127.0.0.1:2" }]"#;

#[test]
fn a_change_is_seen_however_it_was_written() {
    run(async {
        let scene = Scene::new();
        scene.write("endpoints.toml", ONE);
        let mut seen = scene.follow("endpoints.toml");
        assert_eq!(seen.ports().await, [1]);

        // In place, and as long as before; not seen by the second reading of what was there.
        seen.nothing_for(3).await;
        scene.write("endpoints.toml", TWO);
        assert_eq!(seen.ports().await, [2]);

        // Another file put in its place.
        scene.write(".next", ONE);
        scene.rename(".next", "endpoints.toml");
        assert_eq!(seen.ports().await, [1]);
        seen.nothing_for(10).await;
    });
}

#[cfg(unix)]
#[test]
fn a_directory_that_kubernetes_exchanges_behind_a_link_is_seen() {
    run(async {
        let scene = Scene::new();
        for (version, text) in [("..1", ONE), ("..2", TWO)] {
            std::fs::create_dir(scene.path(version)).unwrap();
            scene.write(&format!("{version}/endpoints.toml"), text);
        }
        let link = |from: &str, to: &str| {
            std::os::unix::fs::symlink(from, scene.path(to)).unwrap();
        };
        link("..1", "..data");
        link("..data/endpoints.toml", "endpoints.toml");
        let mut file = scene.follow("endpoints.toml");
        let mut directory = scene.follow(".");
        assert_eq!(
            (file.ports().await, directory.ports().await),
            (vec![1], vec![1])
        );
        // The second reading, when it has settled, is not what sees the exchange.
        file.nothing_for(3).await;
        directory.nothing_for(3).await;
        link("..2", "..data_tmp");
        scene.rename("..data_tmp", "..data");
        assert_eq!(
            (file.ports().await, directory.ports().await),
            (vec![2], vec![2])
        );
    });
}

#[test]
fn a_file_that_is_still_being_written_is_left_until_it_is_whole() {
    run(async {
        let scene = Scene::new();
        scene.write("endpoints.toml", ONE);
        let mut seen = scene.follow("endpoints.toml");
        assert_eq!(seen.ports().await, [1]);
        seen.nothing_for(3).await;
        for end in [5, 10, 20, TWO.len()] {
            scene.write("endpoints.toml", &TWO[..end]);
            seen.step().await;
        }
        // No error came meanwhile: this is the next report of any kind.
        assert_eq!(seen.ports().await, [2]);
    });
}

#[test]
fn a_file_that_cannot_be_understood_keeps_the_last_good_and_says_where_it_is_wrong() {
    run(async {
        let scene = Scene::new();
        scene.write("endpoints.toml", ONE);
        let mut seen = scene.follow("endpoints.toml");
        assert_eq!(seen.ports().await, [1]);
        scene.write(
            "endpoints.toml",
            "orders = [\n  { address = \"127.0.0.1:2\", weight = -1 },\n]",
        );
        let error = seen.error().await;
        for word in ["endpoints.toml", "line 2", "`orders[0].weight`", "stays"] {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
        seen.nothing_for(10).await;
        // The old text again is an answer, or nobody would know that all is well.
        scene.write("endpoints.toml", ONE);
        assert_eq!(seen.ports().await, [1]);
    });
}

#[test]
fn a_file_that_vanishes_takes_nothing_away_and_an_empty_list_does() {
    run(async {
        let scene = Scene::new();
        scene.write("endpoints.toml", ONE);
        let mut seen = scene.follow("endpoints.toml");
        assert_eq!(seen.ports().await, [1]);
        scene.remove("endpoints.toml");
        let error = seen.error().await;
        assert!(
            error.contains("has vanished; what it said stays"),
            "{error}"
        );
        seen.nothing_for(10).await;
        scene.write("endpoints.toml", "orders = []");
        assert!(seen.ports().await.is_empty());
        scene.write("endpoints.toml", "carts = []");
        seen.absent().await;
    });
}

#[test]
fn a_file_that_is_not_there_yet_is_an_error_until_it_is() {
    run(async {
        let scene = Scene::new();
        let mut seen = scene.follow("later/endpoints.toml");
        let error = seen.error().await;
        assert!(error.contains("cannot read"), "{error}");
        seen.nothing_for(10).await;
        std::fs::create_dir(scene.path("later")).unwrap();
        scene.write("later/endpoints.toml", ONE);
        assert_eq!(seen.ports().await, [1]);
    });
}

#[test]
fn the_files_of_a_directory_are_one_in_the_order_of_their_names() {
    run(async {
        let scene = Scene::new();
        scene.write("b.json", r#"{ "orders": [{ "address": "127.0.0.1:2" }] }"#);
        scene.write("a.toml", ONE);
        scene.write(".hidden.toml", "no toml");
        scene.write("notes.txt", "no toml");
        let mut seen = scene.follow(".");
        assert_eq!(seen.ports().await, [1, 2]);
        // One that is wrong does not keep the others from being heard.
        scene.write("a.toml", "orders = 1");
        assert!(seen.error().await.contains("a.toml, line 1, `orders`"));
        scene.write("b.json", r#"{ "orders": [{ "address": "127.0.0.1:3" }] }"#);
        assert_eq!(seen.ports().await, [1, 3]);
        assert!(seen.error().await.contains("a.toml"), "it is still wrong");
        scene.remove("b.json");
        assert!(seen.error().await.contains("(and 1 more)"));
    });
}

#[test]
fn what_is_too_large_is_refused_and_the_last_good_stays() {
    run(async {
        let scene = Scene::new();
        scene.write("endpoints.toml", ONE);
        let most = NonZeroUsize::new(2).unwrap();
        let file = scene
            .file("endpoints.toml")
            .max_bytes(200)
            .max_endpoints(most);
        let mut seen = scene.follow_in(&file);
        assert_eq!(seen.ports().await, [1]);
        let three = ["{ address = \"127.0.0.1:1\" }"; 3].join(",");
        scene.write("endpoints.toml", &format!("orders = [{three}]"));
        assert!(seen.error().await.contains("max_endpoints"));
        scene.write("endpoints.toml", &format!("{TWO}\n#{}", "x".repeat(200)));
        assert!(seen.error().await.contains("max_bytes"));
        seen.nothing_for(10).await;
        scene.write("endpoints.toml", TWO);
        assert_eq!(seen.ports().await, [2]);
    });
}

/// Rows 4, 5 and 8 of reference/performance.md (f).
#[test]
fn duplicates_and_addresses_at_which_nothing_listens_are_dropped_and_counted() {
    run(async {
        let scene = Scene::new();
        let text = r#"orders = [
            { address = "127.0.0.1:1", id = "a" },
            { address = "127.0.0.1:2", id = "a" },
            { address = "127.0.0.1:3", weight = 0 },
            { address = "0.0.0.0:4" },
            { address = "224.0.0.1:5" },
            { address = "127.0.0.1:0" },
        ]"#;
        scene.write("endpoints.toml", text);
        let file = File::new(scene.path("endpoints.toml")).clock(Clock::tokio());
        let discovery = start(Discovery::builder(file));
        let endpoints = discovery.endpoints(&orders());
        assert_eq!(endpoints.resolved().await, Resolution::Found);
        assert_eq!(ports(&endpoints), [2, 3], "of two with one id the last");
        assert_eq!(endpoints.current().endpoints()[1].weight().get(), 0);
        assert_eq!(status_of(&discovery, &orders()).dropped, 4);
    });
}
