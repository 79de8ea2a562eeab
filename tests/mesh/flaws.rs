//! Every test that `tests/FLAWS.md` names exists.

use std::fs;

const TABLE: &str = include_str!("../FLAWS.md");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The rows of the table: the flaw, and the files and names of its tests.
fn rows(table: &str) -> impl Iterator<Item = (&str, Vec<(&str, &str)>)> {
    table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let [flaw, _, _, tests] = cells[..] else {
            return None;
        };
        let tests = tests
            .trim_end_matches(['|', ' '])
            .split("<br>")
            .filter_map(|test| {
                let mut parts = test.split('`').filter(|part| !part.trim().is_empty());
                Some((parts.next()?, parts.next().unwrap_or_default()))
            });
        flaw.ends_with(|c: char| c.is_ascii_digit())
            .then(|| (flaw, tests.collect()))
    })
}

/// The tests of the table that do not exist.
fn missing(table: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (flaw, tests) in rows(table) {
        if tests.is_empty() {
            missing.push(format!("{flaw}: no test"));
        }
        for (file, name) in tests {
            let text = fs::read_to_string(format!("{ROOT}/{file}")).unwrap_or_default();
            if name.is_empty() || !text.contains(&format!("fn {name}(")) {
                missing.push(format!("{flaw}: {name} in {file}"));
            }
        }
    }
    missing
}

#[test]
fn every_flaw_of_the_table_has_its_test() {
    assert!(rows(TABLE).count() >= 40, "the table was not understood");
    assert_eq!(missing(TABLE), Vec::<String>::new());
}

#[test]
fn a_test_that_does_not_exist_would_be_found() {
    let table =
        "| X1 | peer | wrong | `tests/mesh/flaws.rs` `no_such_test` |\n| X2 | peer | wrong |  |\n";
    assert_eq!(
        missing(table),
        ["X1: no_such_test in tests/mesh/flaws.rs", "X2: no test"]
    );
}
