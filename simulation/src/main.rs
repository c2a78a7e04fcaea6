//! Runs seeds: `simulation --seed N [--trace]`, `simulation --seeds A..B`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headwater_simulation::draw::Mode;
use headwater_simulation::mongo::cluster::ClusterDraw;
use headwater_simulation::planted;
use headwater_simulation::run::{Options, Outcome, run};

const USAGE: &str = "\
usage: simulation --seed N [--trace]
       simulation --seeds A..B | --hours H [--threads T]
options: --lite           worlds without faults
         --sharded        only the seeds with a sharded cluster
         --plant NAME     plants a bug of the museum
         --hash           prints the hash of every seed's trace";

struct Arguments {
    from: u64,
    to: u64,
    hours: Option<f64>,
    threads: usize,
    hash: bool,
    sharded: bool,
    options: Options,
}

fn main() -> ExitCode {
    match arguments() {
        Ok(arguments) if arguments.hours.is_none() && arguments.to == arguments.from.saturating_add(1) => {
            one(&arguments)
        }
        Ok(arguments) => many(&arguments),
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        from: 0,
        to: 0,
        hours: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        hash: false,
        sharded: false,
        options: Options {
            mode: Mode::Swarm,
            print: false,
            planted: None,
        },
    };
    let mut words = std::env::args().skip(1);
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--seed" => {
                parsed.from = number(&value()?)?;
                parsed.to = parsed.from.saturating_add(1);
            }
            "--seeds" => {
                let range = value()?;
                let (from, to) = range.split_once("..").ok_or("a range is A..B")?;
                (parsed.from, parsed.to) = (number(from)?, number(to)?);
            }
            "--hours" => {
                parsed.hours = Some(value()?.parse().map_err(|_| "hours are a number")?);
                parsed.to = u64::MAX;
            }
            "--threads" => parsed.threads = number(&value()?)?.max(1) as usize,
            "--trace" => parsed.options.print = true,
            "--hash" => parsed.hash = true,
            "--sharded" => parsed.sharded = true,
            "--lite" => parsed.options.mode = Mode::Lite,
            "--plant" => {
                let name = value()?;
                parsed.options.planted =
                    Some(planted::named(&name).ok_or(format!("no bug {name:?}: {:?}", planted::ALL))?);
            }
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    if parsed.hours.is_some() && parsed.from == 0 {
        #[expect(clippy::disallowed_methods, reason = "new seeds every night")]
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        parsed.from = now.as_secs() * 1_000_000;
        println!("from seed {}", parsed.from);
    }
    if parsed.to <= parsed.from {
        return Err("no seeds".to_owned());
    }
    Ok(parsed)
}

fn again(outcome: &Outcome, options: &Options) -> String {
    let lite = if options.mode == Mode::Lite { " --lite" } else { "" };
    let plant = options.planted.map_or(String::new(), |bug| format!(" --plant {bug:?}"));
    format!(
        "cargo run -p headwater-simulation -- --seed {}{lite}{plant} --trace",
        outcome.seed
    )
}

fn one(arguments: &Arguments) -> ExitCode {
    let outcome = run(arguments.from, arguments.options);
    if !arguments.options.print && outcome.violation.is_some() {
        outcome.told.tail.iter().for_each(|line| println!("{line}"));
    }
    for (mark, count) in &outcome.told.marks {
        println!("{count:>8} {mark}");
    }
    println!(
        "seed {}: {} virtual s, {} restores checked, {} lines, trace {}",
        outcome.seed,
        outcome.virtual_ms / 1000,
        outcome.restores,
        outcome.told.lines,
        outcome.told.hash
    );
    report(&outcome, &arguments.options)
}

fn report(outcome: &Outcome, options: &Options) -> ExitCode {
    match &outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("seed {} FAILED: {violation}\n{}", outcome.seed, again(outcome, options));
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Sums {
    seeds: u64,
    virtual_ms: u64,
    restores: u64,
    marks: BTreeMap<&'static str, u64>,
    failed: Vec<Outcome>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let next = AtomicU64::new(arguments.from);
    let sums = Mutex::new(Sums::default());
    #[expect(
        clippy::disallowed_methods,
        reason = "the real clock, for the speed that is reported"
    )]
    let began = std::time::Instant::now();
    let until = arguments.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.to || until.is_some_and(|until| began.elapsed() >= until) {
                        return;
                    }
                    if arguments.sharded && ClusterDraw::of(seed).is_none() {
                        continue;
                    }
                    take(run(seed, arguments.options), arguments, &sums);
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();
    for (mark, count) in &sums.marks {
        println!("{count:>8} {mark}");
    }
    println!(
        "{} seeds in {seconds:.0} s: {:.0} a minute, {:.0} virtual s a second, {} restores checked, {} failed",
        sums.seeds,
        sums.seeds as f64 * 60.0 / seconds,
        sums.virtual_ms as f64 / 1000.0 / seconds,
        sums.restores,
        sums.failed.len()
    );
    for outcome in &sums.failed {
        report(outcome, &arguments.options);
    }
    if sums.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn take(outcome: Outcome, arguments: &Arguments, sums: &Mutex<Sums>) {
    if arguments.hash {
        println!("seed {} trace {}", outcome.seed, outcome.told.hash);
    }
    let Ok(mut sums) = sums.lock() else { return };
    sums.seeds += 1;
    sums.virtual_ms += outcome.virtual_ms;
    sums.restores += outcome.restores;
    for (mark, count) in &outcome.told.marks {
        *sums.marks.entry(mark).or_default() += count;
    }
    if let Some(violation) = &outcome.violation {
        println!("seed {} failed: {violation}", outcome.seed);
        sums.failed.push(outcome);
    }
}
