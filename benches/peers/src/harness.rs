//! Runs the selected workloads for the selected systems, taking turns.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::Options;
use crate::reaper;
use crate::report::{self, Row};
use crate::sample;
use crate::settings::Settings;
use crate::systems::{Part, System};
use crate::workload::Workload;

/// What has been measured of one system for the workload at hand.
struct Cell<'a> {
    /// The system.
    system: &'a dyn System,
    /// The samples, in the unit of the workload.
    values: Vec<f64>,
    /// Peaks of the parent, a value per sample.
    peaks: Vec<f64>,
    /// How long the samples took, set-up included.
    spent: Duration,
    /// Whether a sample failed; no more are taken then.
    failed: bool,
}

/// Everything that one invocation measures.
struct Harness {
    /// When it began.
    start: Instant,
    /// Sizes and times.
    settings: Settings,
    /// The results so far.
    rows: Vec<Row>,
    /// How long a sample took on average, by workload and system.
    durations: Vec<(Workload, &'static str, Duration)>,
    /// How many samples failed.
    failures: usize,
}

/// Runs everything, prints the tables and writes the JSON file.
///
/// The exit code tells whether all samples succeeded; a system that is absent is
/// no failure.
pub fn run(options: &Options) -> Result<ExitCode> {
    reaper::adopt_orphans()?;
    let mut harness = Harness {
        start: Instant::now(),
        settings: Settings { quick: options.quick },
        rows: Vec::new(),
        durations: Vec::new(),
        failures: 0,
    };
    let systems = present(&options.systems)?;
    println!();
    for &workload in &options.workloads {
        if options.quick && workload.beyond_quick() {
            println!("skipped: {}: only without --quick", workload.name());
            continue;
        }
        // Comes along with the workload of the same size.
        if let Workload::GrowthPeak(tasks) = workload
            && options.workloads.contains(&Workload::GrowthTasks(tasks))
        {
            continue;
        }
        harness.measure(workload, &systems)?;
    }
    if let Some(path) = &options.json {
        report::write_json(path, &harness.rows)?;
    }
    println!("total: {:.1} s", harness.start.elapsed().as_secs_f64());
    Ok(match harness.failures {
        0 => ExitCode::SUCCESS,
        failures => {
            println!("{failures} sample(s) FAILED, see above");
            ExitCode::FAILURE
        }
    })
}

/// The systems that can run here; says of the others why they cannot.
fn present(systems: &[Box<dyn System>]) -> Result<Vec<&dyn System>> {
    let mut present = Vec::new();
    for system in systems {
        match system.probe() {
            Ok(()) => present.push(system.as_ref()),
            Err(error) => println!("skipped: {}: {error:#}", system.name()),
        }
        reaper::clear()?;
    }
    Ok(present)
}

impl Harness {
    /// Takes all samples of one workload and prints its table.
    fn measure(&mut self, workload: Workload, systems: &[&dyn System]) -> Result<()> {
        // A peak is measured by the sample that also gives the time.
        let measured = match workload {
            Workload::GrowthPeak(tasks) => Workload::GrowthTasks(tasks),
            other => other,
        };
        let mut cells: Vec<Cell> = systems
            .iter()
            .filter(|system| self.takes_part(measured, **system))
            .map(|&system| Cell {
                system,
                values: Vec::new(),
                peaks: Vec::new(),
                spent: Duration::ZERO,
                failed: false,
            })
            .collect();
        for _ in 0..self.settings.runs() {
            for cell in &mut cells {
                if self.continues(cell) {
                    self.sample(measured, cell)?;
                }
            }
        }
        for cell in &cells {
            if let Ok(samples @ 1..) = u32::try_from(cell.values.len()) {
                let each = cell.spent / samples;
                self.durations.push((measured, cell.system.name(), each));
            }
        }
        self.add(measured, &cells, |cell| &cell.values);
        if let Workload::GrowthTasks(tasks) = measured {
            let peak = Workload::GrowthPeak(tasks);
            if Workload::all().any(|workload| workload == peak) {
                self.add(peak, &cells, |cell| &cell.peaks);
            }
        }
        Ok(())
    }

    /// Whether another sample is to be taken.
    fn continues(&self, cell: &Cell) -> bool {
        let first = cell.spent.is_zero();
        let time =
            cell.spent < self.settings.budget() && self.start.elapsed() < self.settings.patience();
        !cell.failed && (first || time)
    }

    /// Takes one sample.
    fn sample(&mut self, workload: Workload, cell: &mut Cell) -> Result<()> {
        let start = Instant::now();
        let sample = sample::take(workload, cell.system, &self.settings);
        cell.spent += start.elapsed();
        let left = reaper::clear()?;
        let name = cell.system.name();
        match sample {
            Ok(sample) => {
                cell.values.push(sample.value);
                cell.peaks.push(sample.parent_peak as f64);
                if left > 0 {
                    println!(
                        "note: {}: {name} left {left} process(es), now killed",
                        workload.name()
                    );
                }
            }
            Err(error) => {
                println!("FAILED: {}: {name}: {error:#}", workload.name());
                cell.failed = true;
                self.failures += 1;
            }
        }
        Ok(())
    }

    /// Whether the system is to be measured; if it could be but is not, says why.
    fn takes_part(&self, workload: Workload, system: &dyn System) -> bool {
        let reason = match system.part(workload, &self.settings) {
            Part::None => return false,
            Part::Skipped(reason) => reason.to_owned(),
            Part::Takes => match self.foreseen(workload, system.name()) {
                Some(foreseen) if foreseen > self.settings.growth_limit() => {
                    format!("would take some {} s, by the next smaller size", foreseen.as_secs())
                }
                _ => return true,
            },
        };
        println!("skipped: {}: {}: {reason}", workload.name(), system.name());
        false
    }

    /// How long a growth sample will probably take; as long as a measured one
    /// of the next smaller size suggests, or longer if even that was skipped.
    fn foreseen(&self, workload: Workload, system: &str) -> Option<Duration> {
        let (smaller, times) = workload.smaller()?;
        let known = self
            .durations
            .iter()
            .find(|&&(workload, name, _)| workload == smaller && name == system);
        match known {
            Some(&(_, _, duration)) => Some(duration * times),
            None => self.foreseen(smaller, system).map(|duration| duration * times),
        }
    }

    /// Prints the rows of one workload and keeps them.
    fn add(
        &mut self,
        workload: Workload,
        cells: &[Cell],
        samples: for<'a> fn(&'a Cell<'_>) -> &'a [f64],
    ) {
        let mut rows: Vec<Row> = cells
            .iter()
            .filter_map(|cell| {
                let note = self.settings.note(workload);
                Row::new(workload, cell.system.name(), note, samples(cell))
            })
            .collect();
        report::sort(workload, &mut rows);
        report::print(workload, &rows);
        self.rows.extend(rows);
    }
}
