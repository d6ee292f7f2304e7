//! Channels of ipc-channel to and from one other process. They have one receiver, which
//! cannot be shared.

use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use ipc_channel::ipc::{self, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};

use super::SERVER_ENV;
use crate::systems::answered::Partner;
use crate::systems::queued::{Item, Queues, Shape, Taken, consume, number_of_block, produce};
use crate::workload::Workload;
use crate::{CHILD_ENV, CHILD_IPC_PARTY};

/// A process that does one [`Job`].
struct Party(Child);

/// What the process does.
#[derive(Serialize, Deserialize)]
enum Job {
    /// Sends numbers.
    Numbers(Shape, IpcSender<u64>, Gate),
    /// Sends blocks of bytes.
    Blocks(Shape, IpcBytesSender, Gate),
    /// Answers every number by the next one.
    Answer(IpcReceiver<u64>, IpcSender<u64>),
}

/// One of two places where the two processes wait for each other.
#[derive(Serialize, Deserialize)]
struct Gate {
    /// Tells the other one that this one has come.
    here: IpcSender<()>,
    /// Tells that the other one has.
    there: IpcReceiver<()>,
}

/// The life of the process.
pub fn serve() -> Result<()> {
    let server = std::env::var(SERVER_ENV).context(SERVER_ENV)?;
    let (sender, jobs) = ipc::channel::<Job>()?;
    IpcSender::connect(server)?.send(sender)?;
    match jobs.recv()? {
        Job::Numbers(shape, sender, gate) => {
            let put = |number: &u64| Ok(sender.send(*number)?);
            produce(shape, u64::first(), put, || gate.meet())
        }
        Job::Blocks(shape, sender, gate) => {
            let put = |block: &Vec<u8>| Ok(sender.send(block)?);
            produce(shape, Vec::first(), put, || gate.meet())
        }
        Job::Answer(questions, answers) => {
            // An error means that the other end is closed.
            while let Ok(number) = questions.recv() {
                answers.send(number + 1)?;
            }
            Ok(())
        }
    }
}

impl Gate {
    /// Both places.
    fn pair() -> Result<(Gate, Gate)> {
        let (to_first, first) = ipc::channel()?;
        let (to_second, second) = ipc::channel()?;
        let places =
            (Gate { here: to_second, there: first }, Gate { here: to_first, there: second });
        Ok(places)
    }

    /// Waits for the other process.
    fn meet(&self) -> Result<()> {
        self.here.send(())?;
        Ok(self.there.recv()?)
    }
}

impl Party {
    /// Starts the process.
    fn start(job: Job) -> Result<Party> {
        let (server, name) = IpcOneShotServer::<IpcSender<Job>>::new()?;
        let process = Command::new("/proc/self/exe")
            .env(CHILD_ENV, CHILD_IPC_PARTY)
            .env(SERVER_ENV, name)
            .spawn()?;
        // From here on, dropping the party ends the process.
        let party = Party(process);
        let (_, jobs) = server.accept()?;
        jobs.send(job)?;
        Ok(party)
    }

    /// Waits for its end.
    fn join(mut self) -> Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "the other process ended with {status}");
        Ok(())
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        // Both fail if the process has ended and was waited for, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A channel as the queue between two processes.
pub struct Channel;

impl Queues for Channel {
    const NAME: &'static str = "ipc_channel";

    const CONSUMERS: usize = 1;

    fn numbers(shape: Shape) -> Result<Taken> {
        let (sender, receiver) = ipc::channel()?;
        let (gate, others) = Gate::pair()?;
        let party = Party::start(Job::Numbers(shape, sender, others))?;
        let taken = consume(shape, || Ok(receiver.recv()?), || gate.meet())?;
        party.join()?;
        Ok(taken)
    }

    /// Through the channel for bytes, as for an echo.
    fn blocks(shape: Shape) -> Result<Taken> {
        let (sender, receiver) = ipc::bytes_channel()?;
        let (gate, others) = Gate::pair()?;
        let party = Party::start(Job::Blocks(shape, sender, others))?;
        let taken = consume(shape, || number_of_block(&receiver.recv()?), || gate.meet())?;
        party.join()?;
        Ok(taken)
    }
}

/// A process with a channel each way.
pub struct Answering {
    /// To the process.
    there: IpcSender<u64>,
    /// From the process.
    back: IpcReceiver<u64>,
    /// The process.
    party: Party,
}

impl Partner for Answering {
    const NAME: &'static str = "ipc_channel";

    const WORKLOADS: &'static [Workload] = &[Workload::PipePingpong];

    fn start(_: Workload) -> Result<Answering> {
        let (there, questions) = ipc::channel()?;
        let (answers, back) = ipc::channel()?;
        let party = Party::start(Job::Answer(questions, answers))?;
        Ok(Answering { there, back, party })
    }

    fn ask(&mut self, number: u64) -> Result<u64> {
        self.there.send(number)?;
        Ok(self.back.recv()?)
    }

    fn stop(self) -> Result<()> {
        drop(self.there);
        self.party.join()
    }
}
