//! What happened, line by line, with a hash over all of it: two runs of one seed are the same run only if their traces are.
//!
//! A simulated world lives on one thread and so does its trace. The program's own log lines (from `info` on) are part of
//! it: a schedule that differs anywhere soon differs there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A trace while it is written.
#[derive(Default)]
struct Trace {
    print: bool,
    hasher: blake3::Hasher,
    lines: u64,
    /// The last lines, for a failure's report.
    tail: std::collections::VecDeque<String>,
    marks: BTreeMap<&'static str, u64>,
    panics: Vec<String>,
}

/// Lines kept for the report of a failure.
const TAIL: usize = 60;

/// Every mark there is: a set of seeds that did not hit one of them has not tried what it stands for.
pub const MARKS: [&str; 74] = [
    "agent killed",
    "agent: request timed out",
    "checkpoint: given up",
    "checkpoint: sealed",
    "clock set",
    "cut: all members restored",
    "cut: cluster restored as one",
    "cut: in the middle of a migration",
    "cut: transaction committed past it",
    "cut: transaction prepared by then, aborted",
    "cut: transaction prepared by then, committed later",
    "daemon killed",
    "daemon lost its disk",
    "disk: a bit flipped",
    "disk: flush failed",
    "disk: refused for damage",
    "groom: packs condemned",
    "integrity: damage stays",
    "integrity: damage was mended",
    "integrity: everything is sound",
    "integrity: no damage that matters",
    "network: answer died with its process",
    "network: answer lost",
    "network: late message",
    "network: link cut",
    "network: members apart",
    "network: message doubled",
    "network: message lost",
    "node drained",
    "node removed",
    "oplog given up",
    "power cut",
    "process ended itself",
    "process paused",
    "restore checked",
    "restore: refused, a transaction is undecided",
    "settings: agent tuned anew",
    "settings: daemon tuned anew",
    "settings: schedule changed",
    "source: a range of ids scanned",
    "source: a scan missed a document",
    "source: a scan went on at a token",
    "source: chunk has a new owner",
    "source: collection dropped",
    "source: collection renamed",
    "source: election",
    "source: index built",
    "source: member lags",
    "source: member restarted",
    "source: migration",
    "source: migration given up",
    "source: note written",
    "source: oplog truncated",
    "source: prepared transaction",
    "source: rollback",
    "source: transaction aborted by an election",
    "source: transaction of several entries",
    "source: transaction over several shards",
    "source: transaction over several shards aborted",
    "source: transaction over several shards committed",
    "store: a bit flipped",
    "store: failed after its effect",
    "store: failed without effect",
    "store: full",
    "store: outage",
    "store: refused, full",
    "store: took effect late",
    "user: groom",
    "user: resync",
    "user: short retention",
    "user: snapshot asked for",
    "user: snapshot deleted",
    "user: snapshot kept or released",
    "user: stop and restart",
];

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
    static PROCESS: std::cell::Cell<&'static str> = const { std::cell::Cell::new("world") };
}

/// What a finished trace says.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Over all lines, hexadecimal.
    pub hash: String,
    /// How many lines.
    pub lines: u64,
    /// The last of them.
    pub tail: Vec<String>,
    /// How often each mark was hit.
    pub marks: BTreeMap<&'static str, u64>,
    /// Panics, wherever they were caught.
    pub panics: Vec<String>,
}

/// Begins this thread's trace; every line is also printed if `print`.
pub fn begin(print: bool) {
    TRACE.set(Some(Trace {
        print,
        ..Trace::default()
    }));
}

/// Ends this thread's trace.
pub fn end() -> Told {
    let trace = TRACE.take().unwrap_or_default();
    Told {
        hash: trace.hasher.finalize().to_hex()[..32].to_owned(),
        lines: trace.lines,
        tail: trace.tail.into(),
        marks: trace.marks,
        panics: trace.panics,
    }
}

/// Names the simulated process that runs now, until the answer is given back.
pub fn process(name: &'static str) -> &'static str {
    PROCESS.replace(name)
}

/// Writes a line.
pub fn line(text: &str) {
    write(text, true);
}

/// Writes a line about something that happens all the time: every message, every call. It counts for the hash.
pub fn fine(text: &str) {
    write(text, false);
}

fn write(text: &str, keep: bool) {
    // Nobody may trace while a trace is written: a formatter that logs would.
    let _ = TRACE.try_with(|trace| {
        let Ok(mut trace) = trace.try_borrow_mut() else { return };
        let Some(trace) = trace.as_mut() else { return };
        let mut whole = String::with_capacity(text.len() + 24);
        let _ = write!(whole, "{:>9} {:<8} {text}", now_ms(), PROCESS.get());
        trace.hasher.update(whole.as_bytes());
        trace.hasher.update(b"\n");
        trace.lines += 1;
        if trace.print {
            println!("{whole}");
        }
        if keep {
            if trace.tail.len() == TAIL {
                trace.tail.pop_front();
            }
            trace.tail.push_back(whole);
        }
    });
}

/// Notes that something rare was reached.
pub fn mark(name: &'static str) {
    let _ = TRACE.try_with(|trace| {
        if let Ok(mut trace) = trace.try_borrow_mut()
            && let Some(trace) = trace.as_mut()
        {
            *trace.marks.entry(name).or_default() += 1;
        }
    });
}

/// Notes a panic, if this thread simulates; whether it does.
pub fn panicked(text: &str) -> bool {
    let simulates = TRACE.try_with(|trace| {
        let Ok(mut trace) = trace.try_borrow_mut() else {
            return false;
        };
        let Some(trace) = trace.as_mut() else { return false };
        trace.panics.push(text.to_owned());
        true
    });
    simulates.unwrap_or(false)
}

/// Virtual milliseconds since the world began; 0 outside of a runtime.
pub fn now_ms() -> u64 {
    crate::time::elapsed_ms()
}

/// Takes the program's log lines into the trace.
pub struct Log;

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.insert_str(0, &format!("{value:?}"));
        } else {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.is_event() && metadata.target().starts_with("headwater")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Line::default();
        event.record(&mut text);
        let target = event.metadata().target().trim_start_matches("headwater_");
        line(&format!("{} {target}: {}", event.metadata().level(), text.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
