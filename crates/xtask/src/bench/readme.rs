//! The excerpt of the table that the README shows.

use std::fmt::Write as _;

use super::cases;
use super::measure::Results;
use super::report::row;

/// What the README shows of it: a column each, with its heading.
const EXCERPT: [(&str, &str); 7] = [
    ("mesh, 1,000", "tower-mesh, all of it"),
    ("mesh, 1,000, pending once", "when it has to wait"),
    ("stack, numbers", "its layers, with numbers"),
    ("tower: buffer, balance, 1,000", "tower: buffer, balance"),
    (
        "tower: timeout, retry, budget, limit",
        "tower: timeout, retry, budget, limit",
    ),
    (
        "tower-resilience: breaker, retry, timeout, bulkhead",
        "tower-resilience: breaker, retry, timeout, bulkhead",
    ),
    (
        "seatbelt: timeout, retry, breaker",
        "seatbelt: timeout, retry, breaker",
    ),
];

const BEGIN: &str = "<!-- cargo xtask bench: begin -->\n";
const END: &str = "<!-- cargo xtask bench: end -->";

/// `readme` with the excerpt between its markers.
pub(crate) fn into_readme(readme: &str, results: &Results) -> Result<String, String> {
    let (before, rest) = readme
        .split_once(BEGIN)
        .ok_or_else(|| format!("README.md lacks {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .ok_or_else(|| format!("README.md lacks {END}"))?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", excerpt(results)))
}

fn excerpt(results: &Results) -> String {
    let rows = EXCERPT.map(|(name, _)| row(cases::named(name), results));
    let headings = EXCERPT.map(|(_, heading)| heading).join(" | ");
    let mut text = format!("| | {headings} |\n|---|{}\n", "---:|".repeat(EXCERPT.len()));
    for (heading, column) in [
        ("instructions", 0),
        ("allocations", 1),
        ("two threads over one", 7),
    ] {
        let figures: Vec<_> = rows.iter().map(|row| row[column].as_str()).collect();
        let _ = writeln!(text, "| {heading} | {} |", figures.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Figures;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let readme = format!("# A\n{BEGIN}old\n{END}\n# B\n");
        let figures = Figures {
            instructions: Some(1_000.4),
            ..Figures::default()
        };
        let results = Results::default().with("mesh, 1,000", figures).with(
            "bare, http",
            Figures {
                instructions: Some(0.0),
                ..Figures::default()
            },
        );
        let new = into_readme(&readme, &results).expect("has markers");
        assert!(
            new.starts_with(&format!("# A\n{BEGIN}| | tower-mesh")),
            "{new}"
        );
        assert!(new.contains("| instructions | 1,000 | – |"), "{new}");
        assert!(new.ends_with(&format!("{END}\n# B\n")), "{new}");
        assert!(into_readme("# A\n", &results).is_err());
    }

    #[test]
    fn the_excerpt_names_cases_that_exist() {
        EXCERPT
            .into_iter()
            .for_each(|(name, _)| assert_eq!(cases::named(name).name, name));
    }
}
