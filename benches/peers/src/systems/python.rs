//! `cpython` and `loky`: pools of Python, driven by `python_workloads.py`.
//!
//! A Python process is started per sample, as the parent of the pool. What it
//! measures mirrors [`super::pooled`], and likewise for queues and the like, which
//! `python_channels.py` has.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arrays;
use super::pooled::watch_idle;
use super::{Part, System};
use crate::measure::chunk_size;
use crate::primes;
use crate::procfs;
use crate::sample::Sample;
use crate::settings::{Settings, WORKERS};
use crate::workload::{BLOCK, BLOCKS_ROOM, CLIENTS, MAP_ITEMS, NUMBERS_ROOM, Workload};

/// The Python side: the script, and a module which it imports.
const FILES: [(&str, &str); 2] = [
    (SCRIPT, include_str!("python_workloads.py")),
    ("python_channels.py", include_str!("python_channels.py")),
];

/// The name of the script.
const SCRIPT: &str = "python_workloads.py";

/// Hands the path of the interpreter to the sampling processes.
const PYTHON_ENV: &str = "PEERS_PYTHON";

/// Which pool of Python a system is.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Library {
    /// `multiprocessing.Pool`.
    Multiprocessing,
    /// `loky.ProcessPoolExecutor`.
    Loky,
}

/// A system of Python.
struct Python {
    /// The name of the system.
    name: &'static str,
    /// The name which includes the siblings.
    family: &'static str,
    /// Whose pool.
    library: Library,
    /// The start method; `None` for the default one.
    method: Option<&'static str>,
}

/// What the script is to do, as its only argument.
#[derive(Serialize)]
struct Order {
    /// Whose pool.
    library: Library,
    /// The start method; `None` for the default one.
    method: Option<&'static str>,
    /// What to do, by the names which the script knows.
    operation: &'static str,
    /// The size of the pool, or the clients of a manager; of a queue the producers, and
    /// as many consumers.
    workers: usize,
    /// How long to repeat the operation.
    seconds: f64,
    /// Tasks, items, bytes or numbers; for "primes" the count that has to come out; for
    /// "queue" the bytes of an item, or zero for a number.
    size: u64,
    /// Items per chunk, for an array or for a library without chunking of its own; for
    /// "queue" the items it has room for.
    chunk: usize,
    /// The spans in which to count primes.
    spans: Vec<(u64, u64)>,
}

/// The systems of Python: `cpython` where the start method does not matter, one
/// per start method where it does, and `loky`.
pub fn all() -> impl Iterator<Item = Box<dyn System>> {
    let cpython = |name, method| Python {
        name,
        family: "cpython",
        library: Library::Multiprocessing,
        method,
    };
    let loky = Python { name: "loky", family: "loky", library: Library::Loky, method: None };
    [
        cpython("cpython", None),
        cpython("cpython_fork", Some("fork")),
        cpython("cpython_spawn", Some("spawn")),
        cpython("cpython_forkserver", Some("forkserver")),
        loky,
    ]
    .into_iter()
    .map(|system| Box::new(system) as Box<dyn System>)
}

/// The interpreter which `python3` stands for.
///
/// It is asked once, because `python3` may be a shell script (as with pyenv)
/// that takes its time.
fn interpreter() -> Result<OsString> {
    static FOUND: OnceLock<Result<OsString, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            if let Some(path) = std::env::var_os(PYTHON_ENV) {
                return Ok(path);
            }
            run(OsStr::new("python3"), "import sys; print(sys.executable)")
                .map(|path| path.trim().into())
                .map_err(|error| format!("{error:#}"))
        })
        .clone()
        .map_err(anyhow::Error::msg)
}

/// Runs one line of Python and returns what it prints.
fn run(python: &OsStr, code: &str) -> Result<String> {
    let output = Command::new(python)
        .args(["-c", code])
        .stdin(Stdio::null())
        .output()
        .context("python3 cannot be run")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{}", errors.lines().last().unwrap_or("python3 fails"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl System for Python {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> &'static str {
        self.family
    }

    fn probe(&self) -> Result<()> {
        let python = interpreter()?;
        match self.library {
            Library::Multiprocessing => run(&python, "import multiprocessing.pool")?,
            Library::Loky => run(&python, "import loky")?,
        };
        Ok(())
    }

    fn sample_env(&self) -> Vec<(&'static str, OsString)> {
        interpreter().map(|path| vec![(PYTHON_ENV, path)]).unwrap_or_default()
    }

    fn part(&self, workload: Workload, settings: &Settings) -> Part {
        let method_matters = workload.depends_on_start_method();
        match (self.library, workload) {
            // It has executors only.
            (Library::Loky, Workload::ProcessStart) => Part::None,
            (Library::Loky, _)
                if workload.synchronises() || workload.has_array() || workload.talks() =>
            {
                Part::None
            }
            (Library::Multiprocessing, _) if method_matters != self.method.is_some() => Part::None,
            (_, Workload::CpuBound) if settings.quick => {
                Part::Skipped("the same work takes Python many seconds; only without --quick")
            }
            _ => Part::Takes,
        }
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        let directory = tempfile::Builder::new().prefix("peers-").tempdir()?;
        // Not `python -c`: with `spawn` the workers import the file again.
        for (name, text) in FILES {
            fs::write(directory.path().join(name), text)?;
        }
        let path = directory.path().join(SCRIPT);

        let order = self.order(workload, settings)?;
        let mut script = Script::start(&path, &order)?;
        // While the script holds an idle pool, that is measured from here.
        let held = match workload {
            Workload::IdleCpu => {
                script.holds()?;
                Some(watch_idle(script.process.id(), settings)?)
            }
            Workload::WorkerMemory => Some(procfs::private_bytes(script.holds()?)? as f64),
            _ => None,
        };
        if held.is_some() {
            script.go_on()?;
        }
        let (seconds, parent_peak) = script.finish()?;
        let value = match workload {
            Workload::LockUncontended | Workload::LockContended | Workload::ValueUpdate => {
                seconds * 1e9
            }
            Workload::Apply
            | Workload::ProcessStart
            | Workload::EventPingpong
            | Workload::SemaphoreHandoff
            | Workload::FreezeSend
            | Workload::PipePingpong
            | Workload::ManagerGet
            | Workload::ManagerSet
            | Workload::ListenerUnix
            | Workload::ListenerTcp => seconds * 1e6,
            Workload::Queue(_) | Workload::ManagerClients => 1.0 / seconds,
            Workload::QueueBlocks => BLOCK as f64 / 1e9 / seconds,
            Workload::ArraySum | Workload::ChunksMut => {
                settings.python_array_bytes(workload) as f64 / 1e9 / seconds
            }
            Workload::TinyTasks | Workload::Map => order.size as f64 / seconds,
            Workload::Echo(bytes) => bytes as f64 / 1e6 / seconds,
            _ => held.unwrap_or(seconds),
        };
        Ok(Sample { value, parent_peak })
    }
}

impl Python {
    /// What the script has to do for a workload.
    fn order(&self, workload: Workload, settings: &Settings) -> Result<Order> {
        let numbers = (settings.python_array_bytes(workload) / size_of::<f64>()) as u64;
        let (operation, size, workers) = match workload {
            Workload::Apply => ("apply", 0, WORKERS),
            Workload::TinyTasks => ("tiny", settings.tiny_tasks(), WORKERS),
            Workload::Map => ("map", MAP_ITEMS, WORKERS),
            Workload::Echo(bytes) => ("echo", bytes as u64, WORKERS),
            Workload::PoolStart => ("cycles", 0, WORKERS),
            Workload::ProcessStart => ("process", 0, WORKERS),
            Workload::CpuBound => ("primes", primes::COUNT, settings.cores()),
            Workload::IdleCpu | Workload::WorkerMemory => ("hold", 0, WORKERS),
            Workload::GrowthTasks(tasks) => ("tiny_once", tasks, WORKERS),
            Workload::GrowthWorkers(workers) => ("cycle_once", 0, workers),
            Workload::LockUncontended => ("lock", 0, 1),
            Workload::LockContended => ("contend", 0, 1),
            Workload::ValueUpdate => ("update", 0, 1),
            Workload::EventPingpong => ("events", 0, 1),
            Workload::SemaphoreHandoff => ("semaphores", 0, 1),
            Workload::ArraySum => ("sum", numbers, WORKERS),
            Workload::ChunksMut => ("mirror", numbers, WORKERS),
            Workload::FreezeSend => ("send", numbers, WORKERS),
            Workload::Queue(pairs) => ("queue", 0, pairs),
            Workload::QueueBlocks => ("queue", BLOCK as u64, 1),
            Workload::PipePingpong => ("pipe", 0, 1),
            Workload::ManagerGet => ("manager_get", 0, 1),
            Workload::ManagerSet => ("manager_set", 0, 1),
            Workload::ManagerClients => ("manager_clients", 0, CLIENTS),
            Workload::ListenerUnix => ("listener_unix", 0, 1),
            Workload::ListenerTcp => ("listener_tcp", 0, 1),
            Workload::GrowthPeak(_) => bail!("comes along with the time"),
        };
        Ok(Order {
            library: self.library,
            method: self.method,
            operation,
            workers,
            seconds: settings.loop_time().as_secs_f64(),
            size,
            chunk: match workload {
                Workload::Queue(_) => NUMBERS_ROOM,
                Workload::QueueBlocks => BLOCKS_ROOM,
                _ if workload.has_array() => arrays::CHUNK,
                _ => chunk_size(usize::try_from(size)?, workers),
            },
            spans: match workload {
                Workload::CpuBound => primes::spans(),
                _ => Vec::new(),
            },
        })
    }
}

/// The script at work.
struct Script {
    /// The interpreter.
    process: Child,
    /// What it prints.
    output: Lines<BufReader<ChildStdout>>,
}

/// What the script prints while it holds an idle pool.
#[derive(Deserialize)]
struct Holding {
    /// The process id of a worker.
    worker: u32,
}

/// What the script prints at the end.
#[derive(Deserialize)]
struct Finished {
    /// Seconds per operation.
    seconds: f64,
    /// The peak memory of the script, in bytes.
    peak: u64,
}

impl Script {
    /// Starts the script.
    fn start(path: &Path, order: &Order) -> Result<Script> {
        let mut process = Command::new(interpreter()?)
            .arg(path)
            .arg(serde_json::to_string(order)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("python3 cannot be run")?;
        let output = process.stdout.take().context("no pipe from python3")?;
        Ok(Script { process, output: BufReader::new(output).lines() })
    }

    /// The next line of output.
    fn line<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.output.next().context("the Python script failed")??;
        serde_json::from_str(&line).with_context(|| format!("the Python script printed: {line}"))
    }

    /// Waits until there is an idle pool; returns one of its workers.
    fn holds(&mut self) -> Result<u32> {
        Ok(self.line::<Holding>()?.worker)
    }

    /// Lets the script stop the pool.
    fn go_on(&mut self) -> Result<()> {
        let input = self.process.stdin.as_mut();
        Ok(input.context("no pipe to python3")?.write_all(b"\n")?)
    }

    /// Waits for the end; returns seconds per operation and the peak memory.
    fn finish(&mut self) -> Result<(f64, u64)> {
        let Finished { seconds, peak } = self.line()?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the Python script ended with {status}");
        Ok((seconds, peak))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail if the script has ended and was waited for, as it should.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
