//! What is said meanwhile, on stderr.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time;

use crate::{
    args::Args,
    counts::Counts,
    record::{Record, share},
    report::percent,
    script::{self, SERVERS},
};

/// Shows how it goes until dropped: a bar and a live line on a terminal, a line a second elsewhere.
pub(crate) async fn show(
    args: Args,
    mesh: &Record,
    round_robin: &Record,
    state: impl Fn() -> String,
) -> Infallible {
    let line = || {
        format!(
            "{}  {}  {}",
            way("mesh", mesh),
            way("round robin", round_robin),
            state()
        )
    };
    eprintln!(
        "{SERVERS} axum servers, {} calls/s each way for {} s\nservers   {}\nbreakers  {}\n",
        args.rate,
        args.seconds,
        script::LEGEND,
        Counts::LEGEND,
    );
    if io::stderr().is_terminal() {
        bar(args, line).await
    } else {
        lines(line).await
    }
}

async fn bar(args: Args, line: impl Fn() -> String) -> Infallible {
    let style = ProgressStyle::with_template("{bar:40.green} {percent:>3} % of {prefix}\n{msg}")
        .expect("the template is well-formed");
    let run = args.duration().as_millis() as u64;
    let bar = ProgressBar::new(run)
        .with_style(style)
        .with_prefix(format!("{} s", args.seconds));
    let mut ticks = time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        bar.set_message(line());
        bar.set_position(run.min(bar.elapsed().as_millis() as u64));
    }
}

async fn lines(line: impl Fn() -> String) -> Infallible {
    let second = Duration::from_secs(1);
    let mut ticks = time::interval(second);
    // The first tick comes at once, when there is nothing to say.
    ticks.tick().await;
    let mut seconds = 0;
    loop {
        ticks.tick().await;
        seconds += 1;
        eprintln!("{seconds:>4} s  {}", line());
    }
}

fn way(name: &str, record: &Record) -> String {
    let (calls, successes) = record.counts();
    format!("{name} {:>6} %", percent(share(successes, calls)))
}
