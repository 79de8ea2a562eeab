//! Who may depend on whom (ARCHITECTURE.md, "A leaf depends on core alone").

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// What each crate may use of the others, dev-dependencies aside.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("tower-mesh-core", &[]),
    ("tower-mesh-discovery", &["tower-mesh-core"]),
    ("tower-mesh-balance", &["tower-mesh-core"]),
    ("tower-mesh-breaker", &["tower-mesh-core"]),
    ("tower-mesh-retry", &["tower-mesh-core"]),
    ("tower-mesh-limit", &["tower-mesh-core"]),
    ("tower-mesh-health", &["tower-mesh-core"]),
    ("tower-mesh-http", &["tower-mesh-core"]),
    ("tower-mesh-consul", &["tower-mesh-core"]),
    ("tower-mesh-dns", &["tower-mesh-core"]),
    ("tower-mesh-sim", &["tower-mesh-core"]),
    (
        "tower-mesh",
        &[
            "tower-mesh-balance",
            "tower-mesh-breaker",
            "tower-mesh-consul",
            "tower-mesh-core",
            "tower-mesh-discovery",
            "tower-mesh-dns",
            "tower-mesh-health",
            "tower-mesh-http",
            "tower-mesh-limit",
            "tower-mesh-retry",
        ],
    ),
    ("xtask", &[]),
    ("tower-mesh-examples", &["tower-mesh"]),
];

/// Crates that know HTTP; for all others its packages are out of bounds.
const KNOW_HTTP: [&str; 3] = ["tower-mesh-http", "tower-mesh-consul", "tower-mesh"];
const HTTP: [&str; 7] = [
    "http",
    "http-body",
    "http-body-util",
    "hyper",
    "hyper-util",
    "axum",
    "tonic",
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// What each package of the workspace depends on, dev-dependencies aside.
fn dependencies(metadata: &Value) -> BTreeMap<&str, Vec<&str>> {
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let used = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .filter_map(|dependency| dependency["name"].as_str())
                .collect();
            (package["name"].as_str().unwrap(), used)
        })
        .collect()
}

/// The edges that are not allowed, each as a sentence.
fn violations(dependencies: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, used) in dependencies {
        let allowed = ALLOWED.iter().find(|(crate_, _)| crate_ == name);
        for other in used
            .iter()
            .filter(|other| dependencies.contains_key(*other))
        {
            if allowed.is_some_and(|(_, allowed)| !allowed.contains(other)) {
                found.push(format!("{name} must not use {other}"));
            }
        }
        let knows_http =
            KNOW_HTTP.contains(name) || !name.starts_with("tower-mesh-") || allowed.is_none();
        for other in used
            .iter()
            .filter(|other| !knows_http && HTTP.contains(other))
        {
            if *name != "tower-mesh-examples" {
                found.push(format!("{name} must not know HTTP, but uses {other}"));
            }
        }
    }
    found
}

#[test]
fn no_crate_uses_what_it_must_not() {
    let metadata = metadata();
    let dependencies = dependencies(&metadata);
    for (name, _) in ALLOWED {
        assert!(
            dependencies.contains_key(name),
            "{name} is gone: mend this table"
        );
    }
    assert_eq!(violations(&dependencies), Vec::<String>::new());
}

#[test]
fn every_library_crate_has_its_edges_in_the_table() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let unpublished = package["publish"].as_array().is_some_and(Vec::is_empty);
        assert!(
            unpublished || ALLOWED.iter().any(|(known, _)| *known == name),
            "{name} is new: say what it may use"
        );
    }
}

#[test]
fn a_leaf_that_used_its_sibling_or_http_would_be_found() {
    let broken = BTreeMap::from([
        ("tower-mesh-core", vec![]),
        ("tower-mesh-balance", vec![]),
        (
            "tower-mesh-retry",
            vec!["tower-mesh-core", "tower-mesh-balance", "http"],
        ),
    ]);
    assert_eq!(
        violations(&broken),
        [
            "tower-mesh-retry must not use tower-mesh-balance",
            "tower-mesh-retry must not know HTTP, but uses http"
        ]
    );
}
