//! What commands print: tables for people, JSON for scripts. Results go to standard output, the rest to standard
//! error.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// How results look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

impl Format {
    /// Prints a result in this form.
    pub fn print<T: Serialize>(self, result: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        match self {
            Format::Table => print(text(result).trim_end()),
            Format::Json => {
                let json = serde_json::to_string_pretty(result);
                print(&json.map_err(|e| Failure::new(Exit::Failed, e.to_string()))?)
            }
        }
    }

    /// Tells a failure on standard error in this form.
    pub fn tell(self, failure: &Failure) {
        match self {
            Format::Table => eprintln!("{failure}"),
            Format::Json => eprintln!("{}", failure.json()),
        }
    }
}

/// Prints to standard output. A reader that has gone away, such as `head`, is no fault.
pub fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Failed,
            format!("cannot write to standard output: {e}"),
        )),
        _ => Ok(()),
    }
}

/// Lays out rows under a header; `none` is said instead when there are no rows.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, none: &str) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    let mut lines: Vec<Vec<String>> = vec![header.iter().map(|h| h.to_uppercase()).collect()];
    lines.extend(rows);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line: &Vec<String>| line.get(column))
            .map(|cell: &String| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..header.len()).map(|column| width(column).unwrap_or(0)).collect();
    let laid = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    laid.collect::<Vec<_>>().join("\n")
}

/// Lays out names and values, one pair a line.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

/// A byte count for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut shown = "B";
    for unit in UNITS {
        value /= 1024.0;
        shown = unit;
        // Rounding must not show 1024.0 of a unit.
        if value < 1023.95 {
            break;
        }
    }
    format!("{value:.1} {shown}")
}

/// Seconds for people.
pub fn seconds(count: u64) -> String {
    match count {
        0..120 => format!("{count} s"),
        120..7200 => format!("{} min", count / 60),
        7200..172_800 => format!("{} h", count / 3600),
        _ => format!("{} d", count / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_told_in_units_of_their_size() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (3 << 20, "3.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (count, text) in [(1, "1 s"), (150, "2 min"), (7200, "2 h"), (200_000, "2 d")] {
            assert_eq!(seconds(count), text);
        }
    }

    #[test]
    fn a_table_stands_in_columns_and_says_so_when_it_is_empty() {
        let rows = vec![vec!["shop".into(), "active".into()], vec!["wörter".into(), "x".into()]];
        assert_eq!(
            table(&["name", "state"], rows, ""),
            "NAME    STATE\nshop    active\nwörter  x"
        );
        assert_eq!(table(&["name"], vec![], "nothing here"), "nothing here");
    }
}
