//! `ipc_channel`: typed channels between processes, with a small pool around
//! them, as the crate has neither processes nor pools.

use std::collections::VecDeque;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender,
};
use serde::{Deserialize, Serialize};

use super::{Launcher, Pool};
use crate::measure::{chunk_size, spread};
use crate::primes;
use crate::{CHILD_ENV, CHILD_IPC};

pub mod channels;

/// Names the one-shot server to which a worker process connects.
const SERVER_ENV: &str = "PEERS_IPC_SERVER";

/// How many tiny tasks a worker may have before it: enough to keep it busy, few
/// enough that neither direction of its channels fills up.
const WINDOW: usize = 64;

/// The system `ipc_channel`.
pub struct IpcChannel;

/// Worker processes with channels to and from each.
pub struct IpcPool {
    /// The workers.
    workers: Vec<Worker>,
}

/// The pool's end of a worker process.
struct Worker {
    /// The process.
    process: Child,
    /// `None` once the worker was told to end.
    ends: Option<Ends>,
}

/// The parent's ends of the channels; dropping them ends the worker.
#[derive(Serialize, Deserialize)]
struct Ends {
    /// To the worker.
    requests: IpcSender<Request>,
    /// From the worker.
    replies: IpcReceiver<Reply>,
    /// Raw bytes to the worker.
    bytes_out: IpcBytesSender,
    /// Raw bytes from the worker.
    bytes_in: IpcBytesReceiver,
}

/// What a worker is asked to do.
#[derive(Serialize, Deserialize)]
enum Request {
    /// `a + b`.
    Add(u64, u64),
    /// `x + 1`.
    Increment(u64),
    /// `x * x` of each.
    Square(Vec<u64>),
    /// The bytes follow on their own channel.
    Echo,
    /// The number of primes in a span.
    Primes(u64, u64),
}

/// What it answers.
#[derive(Serialize, Deserialize)]
enum Reply {
    /// The result of a request with one number as a result.
    Number(u64),
    /// The result of [`Request::Square`].
    Squares(Vec<u64>),
}

/// The life of a worker process.
pub fn serve() -> Result<()> {
    let server = std::env::var(SERVER_ENV).context(SERVER_ENV)?;
    let (requests, inbox) = ipc::channel()?;
    let (outbox, replies) = ipc::channel()?;
    let (bytes_out, bytes_inbox) = ipc::bytes_channel()?;
    let (bytes_outbox, bytes_in) = ipc::bytes_channel()?;
    IpcSender::connect(server)?.send(Ends { requests, replies, bytes_out, bytes_in })?;
    // An error means that the parent has closed its end.
    while let Ok(request) = inbox.recv() {
        let reply = match request {
            Request::Add(a, b) => Reply::Number(a + b),
            Request::Increment(x) => Reply::Number(x + 1),
            Request::Square(items) => Reply::Squares(items.iter().map(|x| x * x).collect()),
            Request::Echo => {
                let mut bytes = bytes_inbox.recv()?;
                if let Some(first) = bytes.first_mut() {
                    *first = !*first;
                }
                bytes_outbox.send(&bytes)?;
                continue;
            }
            Request::Primes(from, to) => Reply::Number(primes::count((from, to))),
        };
        outbox.send(reply)?;
    }
    Ok(())
}

impl Worker {
    /// Starts a worker process and waits for its channels.
    fn start() -> Result<Worker> {
        let (server, name) = IpcOneShotServer::<Ends>::new()?;
        let process = Command::new("/proc/self/exe")
            .env(CHILD_ENV, CHILD_IPC)
            .env(SERVER_ENV, name)
            .spawn()?;
        // From here on, dropping the worker ends the process.
        let mut worker = Worker { process, ends: None };
        let (_, ends) = server.accept()?;
        worker.ends = Some(ends);
        Ok(worker)
    }

    /// The channels.
    fn ends(&self) -> Result<&Ends> {
        self.ends.as_ref().context("the worker was stopped")
    }

    /// Sends a request and waits for the reply.
    fn call(&self, request: Request) -> Result<Reply> {
        let ends = self.ends()?;
        ends.requests.send(request)?;
        Ok(ends.replies.recv()?)
    }

    /// Sends a request that is answered by a number, and waits for that.
    fn number(&self, request: Request) -> Result<u64> {
        match self.call(request)? {
            Reply::Number(number) => Ok(number),
            _ => bail!("an unexpected reply"),
        }
    }

    /// Takes tasks from the common counter, [`WINDOW`] of them at a time, until
    /// there are no more.
    fn take_increments(&self, next: &AtomicUsize, tasks: usize) -> Result<Vec<(usize, u64)>> {
        let ends = self.ends()?;
        let mut pending = VecDeque::with_capacity(WINDOW);
        let mut results = Vec::new();
        loop {
            while pending.len() < WINDOW {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= tasks {
                    break;
                }
                ends.requests.send(Request::Increment(index as u64))?;
                pending.push_back(index);
            }
            let Some(index) = pending.pop_front() else {
                return Ok(results);
            };
            match ends.replies.recv()? {
                Reply::Number(result) => results.push((index, result)),
                _ => bail!("an unexpected reply"),
            }
        }
    }

    /// Tells the worker to end, and waits for that.
    fn stop(mut self) -> Result<()> {
        self.ends = None;
        let status = self.process.wait()?;
        ensure!(status.success(), "a worker ended with {status}");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail if the process has ended and was waited for, as it should.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Launcher for IpcChannel {
    type Pool = IpcPool;

    const PROCESSES: bool = true;

    fn name(&self) -> &'static str {
        "ipc_channel"
    }

    fn probe(&self) -> Result<()> {
        self.run_process()
    }

    fn start(&self, workers: usize) -> Result<IpcPool> {
        let workers = (0..workers).map(|_| Worker::start());
        Ok(IpcPool { workers: workers.collect::<Result<_>>()? })
    }

    fn run_process(&self) -> Result<()> {
        let worker = Worker::start()?;
        let answer = worker.number(Request::Increment(41))?;
        ensure!(answer == 42, "a wrong answer");
        worker.stop()
    }
}

impl IpcPool {
    /// Any worker.
    fn first(&self) -> Result<&Worker> {
        self.workers.first().context("no workers")
    }
}

impl Pool for IpcPool {
    fn add(&mut self, a: u64, b: u64) -> Result<u64> {
        self.first()?.number(Request::Add(a, b))
    }

    fn increments(&mut self, tasks: u64) -> Result<Vec<u64>> {
        let tasks = usize::try_from(tasks)?;
        let next = &AtomicUsize::new(0);
        let mut results = vec![0; tasks];
        let parts: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = self
                .workers
                .iter_mut()
                .map(|worker| scope.spawn(move || worker.take_increments(next, tasks)))
                .collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for part in parts {
            for (index, result) in part.map_err(|_| anyhow!("a dispatching thread panicked"))?? {
                results[index] = result;
            }
        }
        Ok(results)
    }

    fn squares(&mut self, items: &Arc<[u64]>) -> Result<Vec<u64>> {
        let size = chunk_size(items.len(), self.workers.len());
        let chunks: Vec<&[u64]> = items.chunks(size).collect();
        let squares = spread(&mut self.workers, chunks.len(), |worker, index| {
            match worker.call(Request::Square(chunks[index].to_vec()))? {
                Reply::Squares(squares) => Ok(squares),
                _ => bail!("an unexpected reply"),
            }
        })?;
        Ok(squares.concat())
    }

    /// Through the channel for bytes, which is faster at every size than an
    /// `IpcSharedMemory` that is created and mapped for each message.
    fn echo(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let ends = self.first()?.ends()?;
        ends.requests.send(Request::Echo)?;
        ends.bytes_out.send(&bytes)?;
        Ok(ends.bytes_in.recv()?)
    }

    fn primes(&mut self, spans: &[(u64, u64)]) -> Result<u64> {
        let counts = spread(&mut self.workers, spans.len(), |worker, index| {
            let (from, to) = spans[index];
            worker.number(Request::Primes(from, to))
        })?;
        Ok(counts.iter().sum())
    }

    fn worker_id(&mut self) -> Result<u32> {
        Ok(self.first()?.process.id())
    }

    fn stop(mut self) -> Result<()> {
        // All are told to end before the first is waited for.
        for worker in &mut self.workers {
            worker.ends = None;
        }
        self.workers.into_iter().try_for_each(Worker::stop)
    }
}
