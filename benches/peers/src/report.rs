//! Rows of results: the table and the JSON file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::workload::{Better, Reach, Workload};

/// The system whose ratio the table shows besides that to the best.
const REFERENCE: &str = "rayon";

/// The system which is to reach what [`Workload::reach`] says.
const OURS: &str = "multiproc";

/// The samples of one system for one workload.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The name of the workload.
    pub workload: &'static str,
    /// The name of the system.
    pub system: &'static str,
    /// The unit of the values.
    pub unit: &'static str,
    /// What else has to be known: sizes that depend on the settings.
    pub note: Option<String>,
    /// The median of the samples.
    pub median: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
    /// The number of samples.
    pub runs: usize,
}

impl Row {
    /// Sums up samples; `None` if there are none.
    pub fn new(
        workload: Workload,
        system: &'static str,
        note: Option<String>,
        samples: &[f64],
    ) -> Option<Row> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[half - 1], sorted[half]),
            _ => sorted[half],
        };
        Some(Row {
            workload: workload.name(),
            system,
            unit: workload.unit(),
            note,
            median,
            min,
            max,
            runs: sorted.len(),
        })
    }
}

/// Sorts the rows of one workload best first.
pub fn sort(workload: Workload, rows: &mut [Row]) {
    rows.sort_by(|a, b| match workload.better() {
        Better::Lower => a.median.total_cmp(&b.median),
        Better::Higher => b.median.total_cmp(&a.median),
    });
}

/// Prints the (sorted) rows of one workload.
pub fn print(workload: Workload, rows: &[Row]) {
    let Some(best) = rows.first() else { return };
    let reference = rows.iter().find(|row| row.system == REFERENCE);
    let direction = match workload.better() {
        Better::Lower => "lower is better",
        Better::Higher => "higher is better",
    };
    let note = best.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
    println!("{} ({}, {direction}{note})", workload.name(), workload.unit());
    println!(
        "  {:<22}{:>14}{:>14}{:>14}{:>6}{:>11}{:>11}",
        "system", "median", "min", "max", "runs", "x best", "x rayon"
    );
    for row in rows {
        println!(
            "  {:<22}{:>14}{:>14}{:>14}{:>6}{:>11}{:>11}",
            row.system,
            number(row.median),
            number(row.min),
            number(row.max),
            row.runs,
            ratio(row, best),
            reference.map_or_else(String::new, |reference| ratio(row, reference)),
        );
    }
    for reach in workload.reach() {
        if let Some(line) = verdict(workload, *reach, rows) {
            println!("  {line}");
        }
    }
    println!();
}

/// Whether our system reaches what it is to; `None` if that was not measured.
fn verdict(workload: Workload, reach: Reach, rows: &[Row]) -> Option<String> {
    let median = |system| rows.iter().find(|row| row.system == system).map(|row| row.median);
    let ours = median(OURS)?;
    let (bound, goal) = match reach {
        Reach::Value(bound) => (bound, format!("{} {}", number(bound), workload.unit())),
        Reach::Times(times, system) => {
            (times * median(system)?, format!("{} x {system}", number(times)))
        }
    };
    let (sign, met) = match workload.better() {
        Better::Lower => ("<=", ours <= bound),
        Better::Higher => (">=", ours >= bound),
    };
    Some(format!("reach: {OURS} {sign} {goal}: {}", if met { "met" } else { "NOT MET" }))
}

/// The median of a row as a multiple of that of another.
fn ratio(row: &Row, other: &Row) -> String {
    if other.median > 0.0 { number(row.median / other.median) } else { "-".to_owned() }
}

/// A number with about four significant digits, and without an exponent.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 3,
        size if size >= 0.01 => 4,
        _ => 6,
    };
    format!("{value:.digits$}")
}

/// Writes all rows as a JSON array.
pub fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = serde_json::to_string_pretty(rows)?;
    text.push('\n');
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_sums_up_its_samples() {
        let row = Row::new(Workload::Apply, "x", None, &[3.0, 1.0, 8.0, 2.0]).unwrap();
        assert_eq!((row.min, row.median, row.max, row.runs), (1.0, 2.5, 8.0, 4));
        assert_eq!((row.workload, row.unit), ("apply_roundtrip", "us/op"));
        assert!(Row::new(Workload::Apply, "x", None, &[]).is_none());
    }

    #[test]
    fn the_best_comes_first() {
        for (workload, best) in [(Workload::Apply, 1.0), (Workload::Map, 2.0)] {
            let mut rows = [1.0, 2.0].map(|value| Row::new(workload, "x", None, &[value]).unwrap());
            sort(workload, &mut rows);
            assert_eq!(rows[0].median, best);
        }
    }

    #[test]
    fn a_verdict_needs_what_it_compares() {
        let row = |system, value| Row::new(Workload::Apply, system, None, &[value]).unwrap();
        let rows = [row("multiproc", 1.0), row("rayon", 9.0)];
        let verdict = |reach, rows| verdict(Workload::Apply, reach, rows);
        assert!(verdict(Reach::Value(1.0), &rows).unwrap().ends_with(": met"));
        assert!(verdict(Reach::Times(0.1, "rayon"), &rows).unwrap().ends_with(": NOT MET"));
        assert!(verdict(Reach::Times(0.1, "limit"), &rows).is_none());
        assert!(verdict(Reach::Value(1.0), &rows[1..]).is_none());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(123_456.7), "123457");
        assert_eq!(number(12.345), "12.35");
        assert_eq!(number(0.000_123_4), "0.000123");
    }
}
