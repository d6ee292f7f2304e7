//! One sample, taken in a fresh process of this program.
//!
//! A process of its own means that no pool, thread, heap or child of another
//! system (or of an earlier sample) exists while one is measured, that a system
//! which crashes or hangs costs only its own sample, and that the peak memory of
//! the parent is that of this sample alone.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::procfs;
use crate::reaper;
use crate::settings::Settings;
use crate::systems::{self, System};
use crate::workload::Workload;
use crate::{CHILD_ENV, CHILD_SAMPLE};

/// Hands the order to the sampling process.
const ORDER_ENV: &str = "PEERS_SAMPLE";

/// Starts the line that carries the result; a system may print other lines.
const MARK: &str = "PEERS_RESULT ";

/// What a sampling process is to measure.
#[derive(Serialize, Deserialize)]
struct Order {
    /// The name of the workload.
    workload: String,
    /// The name of the system.
    system: String,
    /// Whether `--quick` was given.
    quick: bool,
}

/// The result of one sample.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The value in the unit of the workload.
    pub value: f64,
    /// The peak resident memory, in bytes, of the process that used the system.
    pub parent_peak: u64,
}

impl Sample {
    /// A sample taken within this process.
    pub fn here(value: f64) -> Result<Sample> {
        Ok(Sample { value, parent_peak: procfs::peak_bytes(std::process::id())? })
    }
}

/// Takes a sample in a process of its own.
pub fn take(workload: Workload, system: &dyn System, settings: &Settings) -> Result<Sample> {
    let order = Order {
        workload: workload.name().to_owned(),
        system: system.name().to_owned(),
        quick: settings.quick,
    };
    let mut child = Command::new("/proc/self/exe")
        .env(CHILD_ENV, CHILD_SAMPLE)
        .env(ORDER_ENV, serde_json::to_string(&order)?)
        .envs(system.sample_env())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a process to take a sample")?;

    let answer = read_answer(&mut child, settings);
    if answer.is_err() {
        // It may have ended by itself, which is just as well.
        let _ = child.kill();
    }
    let status = child.wait()?;
    match answer? {
        Some(line) => {
            serde_json::from_str::<Result<Sample, String>>(&line)?.map_err(|e| anyhow!(e))
        }
        None => bail!("the sampling process ended without a result ({status})"),
    }
}

/// The result line of the child, or `None` if it ended without one.
fn read_answer(child: &mut Child, settings: &Settings) -> Result<Option<String>> {
    let stdout = child.stdout.take().context("no pipe to the child")?;
    let (sender, receiver) = mpsc::channel();
    // The thread ends with the pipe, whose last writer is reaped or killed at
    // the latest before the next sample.
    thread::spawn(move || {
        let result = BufReader::new(stdout)
            .lines()
            .find_map(|line| match line {
                Ok(line) => line.strip_prefix(MARK).map(|rest| Ok(rest.to_owned())),
                Err(error) => Some(Err(error)),
            })
            .transpose();
        // The receiver is gone after a timeout.
        let _ = sender.send(result);
    });
    match receiver.recv_timeout(settings.timeout()) {
        Ok(result) => Ok(result?),
        Err(_) => bail!("no result within {:?}", settings.timeout()),
    }
}

/// The other side of [`take`]: takes the sample and prints it.
pub fn take_and_print() -> Result<()> {
    reaper::end_with_parent();
    let order = std::env::var(ORDER_ENV).context(ORDER_ENV)?;
    let order: Order = serde_json::from_str(&order).context(ORDER_ENV)?;
    let workload = Workload::by_name(&order.workload).context("an unknown workload")?;
    let system = systems::all()
        .into_iter()
        .find(|system| system.name() == order.system)
        .context("an unknown system")?;
    let settings = Settings { quick: order.quick };
    let answer = system.sample(workload, &settings).map_err(|error| format!("{error:#}"));
    let mut line = MARK.to_owned();
    line.push_str(&serde_json::to_string(&answer)?);
    line.push('\n');
    io::Write::write_all(&mut io::stdout(), line.as_bytes())?;
    Ok(())
}
