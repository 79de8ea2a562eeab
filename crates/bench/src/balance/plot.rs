//! Plots as SVG, by hand: a few rectangles, lines and words need no library.

use std::fmt::Write;

use super::{
    contender::Contender,
    fleet::Fleet,
    output::{Results, in_order, p99, percent},
};

/// Colours that can be told apart without seeing red or green (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#999999"];

const LABELS: f64 = 190.0;
const WIDTH: f64 = 900.0;
const BAR: f64 = 16.0;
const GAP: f64 = 18.0;
const TOP: f64 = 70.0;

/// The p99 of each contender on each fleet at 85 %: bars on a logarithmic scale.
pub fn bars(results: &Results) -> String {
    let fleets = in_order(results, |cell| cell.fleet);
    let shown: Vec<(Fleet, Vec<(Contender, f64)>)> = fleets
        .into_iter()
        .map(|fleet| (fleet, at_85(results, fleet)))
        .filter(|(_, bars)| bars.len() > 1)
        .collect();
    let longest = shown.iter().flat_map(|(_, bars)| bars);
    let longest = longest.map(|(_, p99)| *p99).fold(100.0, f64::max);
    let scale = Scale::new(10.0, longest, LABELS, WIDTH - 140.0);
    let bars: usize = shown.iter().map(|(_, bars)| bars.len()).sum();
    let bottom = TOP + bars as f64 * BAR + shown.len() as f64 * GAP;
    let mut svg = page(WIDTH, bottom + 40.0, "p99 at a utilisation of 85 %, ms");
    grid(&mut svg, &scale, bottom);
    let mut y = TOP;
    for (fleet, bars) in &shown {
        text(&mut svg, 10.0, y + BAR, "start", fleet.name());
        for (contender, p99) in bars {
            bar(&mut svg, &scale, y, *contender, *p99);
            y += BAR;
        }
        y += GAP;
    }
    svg + "</svg>\n"
}

fn at_85(results: &Results, fleet: Fleet) -> Vec<(Contender, f64)> {
    let of = |contender| Some((contender, p99(results, fleet, contender, 85)?));
    Contender::COMPARED.into_iter().filter_map(of).collect()
}

fn bar(svg: &mut String, scale: &Scale, y: f64, contender: Contender, p99: f64) {
    let (x, width) = (scale.left, scale.at(p99) - scale.left);
    let (height, colour) = (BAR - 2.0, colour(contender));
    let _ = writeln!(
        svg,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height}" fill="{colour}"/>"#
    );
    let label = format!("{} {p99:.0}", contender.name());
    text(svg, x + width + 4.0, y + BAR - 5.0, "start", &label);
}

/// The p99 over utilisation, a panel for each fleet that was measured at several.
pub fn lines(results: &Results) -> Option<String> {
    let fleets = in_order(results, |cell| cell.fleet);
    let mut loads = in_order(results, |cell| percent(cell.utilisation));
    loads.sort_unstable();
    let at_two = |fleet: &Fleet| {
        let at = |load: &&u32| p99(results, *fleet, Contender::LeastInFlight, **load).is_some();
        loads.iter().filter(at).count() > 1
    };
    let fleets: Vec<Fleet> = fleets.into_iter().filter(at_two).collect();
    if fleets.is_empty() {
        return None;
    }
    let rows = fleets.len().div_ceil(3);
    let mut svg = page(
        WIDTH,
        90.0 + rows as f64 * 230.0,
        "p99 over utilisation, ms",
    );
    for (nth, contender) in Contender::COMPARED.into_iter().enumerate() {
        let x = 20.0 + nth as f64 * 150.0;
        let colour = colour(contender);
        let _ = writeln!(
            svg,
            r#"<rect x="{x}" y="42" width="12" height="12" fill="{colour}"/>"#
        );
        text(&mut svg, x + 18.0, 52.0, "start", contender.name());
    }
    for (nth, fleet) in fleets.into_iter().enumerate() {
        let (x, y) = ((nth % 3) as f64 * 295.0, 80.0 + (nth / 3) as f64 * 230.0);
        panel(&mut svg, results, fleet, &loads, (x, y));
    }
    Some(svg + "</svg>\n")
}

fn panel(svg: &mut String, results: &Results, fleet: Fleet, loads: &[u32], (x, y): (f64, f64)) {
    let up = Scale::new(50.0, 12_000.0, 0.0, 175.0);
    let across = |load: u32| x + 60.0 + f64::from(load.saturating_sub(70)) * 8.0;
    let height = |p99: f64| y + 190.0 - up.at(p99);
    text(svg, x + 60.0, y + 10.0, "start", fleet.name());
    for tick in [50.0, 200.0, 1_000.0, 5_000.0] {
        let (from, to, at) = (x + 55.0, x + 270.0, height(tick));
        let _ = writeln!(
            svg,
            r##"<line x1="{from}" y1="{at:.1}" x2="{to}" y2="{at:.1}" stroke="#ddd"/>"##
        );
        text(svg, x + 50.0, at + 4.0, "end", &tick.to_string());
    }
    for load in loads.iter().filter(|load| **load >= 70) {
        text(
            svg,
            across(*load),
            y + 206.0,
            "middle",
            &format!("{load} %"),
        );
    }
    for contender in Contender::COMPARED {
        let at = |load: &u32| {
            let p99 = p99(results, fleet, contender, *load)?;
            Some(format!("{:.1},{:.1}", across(*load), height(p99)))
        };
        let points: Vec<String> = loads.iter().filter_map(at).collect();
        let (points, colour) = (points.join(" "), colour(contender));
        let _ = writeln!(
            svg,
            r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#
        );
    }
}

fn colour(contender: Contender) -> &'static str {
    let nth = Contender::COMPARED
        .iter()
        .position(|known| *known == contender);
    COLOURS[nth.unwrap_or(COLOURS.len() - 1)]
}

/// A logarithmic scale.
struct Scale {
    from: f64,
    to: f64,
    left: f64,
    right: f64,
}

impl Scale {
    fn new(from: f64, to: f64, left: f64, right: f64) -> Self {
        Self {
            from,
            to,
            left,
            right,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.from).ln() / (self.to / self.from).ln();
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }
}

fn grid(svg: &mut String, scale: &Scale, bottom: f64) {
    for tick in [10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0] {
        if tick > scale.to {
            break;
        }
        let (x, top) = (scale.at(tick), TOP - 8.0);
        let _ = writeln!(
            svg,
            r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#ddd"/>"##
        );
        text(svg, x, bottom + 16.0, "middle", &tick.to_string());
    }
}

fn page(width: f64, height: f64, title: &str) -> String {
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
"##
    );
    text(&mut svg, 10.0, 26.0, "start", title);
    svg
}

/// Words from here only: none of them needs escaping.
fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="#222">{words}</text>"##
    );
}
