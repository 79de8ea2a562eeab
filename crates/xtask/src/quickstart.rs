//! The quickstart stage: the example that the README starts with, run for real and for three seconds.

use serde_json::Value;

use crate::process::Keep;
use crate::summary::Outcome;
use crate::test::Run;

/// What scripts may rely on in its last line.
const KEYS: [&str; 6] = [
    "calls",
    "success",
    "round_robin_success",
    "p50_ms",
    "p99_ms",
    "retries",
];

pub(crate) fn stage(run: &Run<'_>) -> Outcome {
    let mut command = run
        .workspace
        .cargo(["run", "--release", "--package", "tower-mesh-examples"]);
    command.args(["--example", "quickstart", "--", "--seconds", "3", "--json"]);
    let output = match run.execute(&mut command, Keep::Stdout) {
        Ok(output) => output,
        Err(failed) => return failed.outcome,
    };
    match check(&output) {
        Ok(()) => Outcome::passed(),
        Err(why) => Outcome::failed(why),
    }
}

/// The last line has to be one JSON object with all of [`KEYS`].
fn check(output: &str) -> Result<(), String> {
    let last = output.lines().last().ok_or("it printed nothing")?;
    let value: Value = serde_json::from_str(last)
        .map_err(|error| format!("its last line is not JSON: {error}"))?;
    let object = value
        .as_object()
        .ok_or("its last line is not a JSON object")?;
    let missing: Vec<_> = KEYS
        .into_iter()
        .filter(|key| !object.contains_key(*key))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("its last line lacks {}", missing.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"calls":9,"success":1.0,"round_robin_success":0.9,"p50_ms":1,"p99_ms":2,"retries":0}"#;

    #[test]
    fn only_the_last_line_counts() {
        assert_eq!(check(&format!("orders is up\n{GOOD}\n")), Ok(()));
        assert!(check(&format!("{GOOD}\nbye\n")).is_err());
        assert!(check("").is_err());
        assert!(check("[]\n").is_err());
    }

    #[test]
    fn missing_keys_are_named() {
        let error =
            check(r#"{"calls":9,"success":1.0,"p50_ms":1,"p99_ms":2}"#).expect_err("incomplete");
        assert_eq!(error, "its last line lacks round_robin_success, retries");
    }
}
