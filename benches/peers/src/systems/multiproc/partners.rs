//! Parties that answer: through a pipe, a manager, or a connection.

use anyhow::{Result, anyhow};
use multiproc::connection::{Address, Client, Connection, Listener};
use multiproc::manager::Dict;
use multiproc::{Manager, Pipe, PipeEnd, Process};

use crate::measure::per_op;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::systems::answered::Partner;
use crate::systems::{Part, System};
use crate::workload::{CLIENTS, Workload};

const NAME: &str = "multiproc";
const KEY: &str = "a key that both sides have";
/// Keys of the dictionary; the value of each is the key.
const KEYS: u64 = 100;

/// A process that answers, and the way to it.
pub enum Answering {
    /// Another process with the other end.
    Pipe(PipeEnd<u64>, Process<()>),
    /// A dictionary in a manager, to be read.
    Get(Manager, Dict<u64, u64>),
    /// The same, to be written.
    Set(Manager, Dict<u64, u64>),
    /// A process that has connected.
    Connection(Connection<u64>, Process<Result<(), String>>),
}

impl Partner for Answering {
    const NAME: &'static str = NAME;

    const WORKLOADS: &'static [Workload] = &[
        Workload::PipePingpong,
        Workload::ManagerGet,
        Workload::ManagerSet,
        Workload::ListenerUnix,
        Workload::ListenerTcp,
    ];

    fn start(workload: Workload) -> Result<Self> {
        Ok(match workload {
            Workload::ManagerGet => {
                let (manager, numbers) = dictionary()?;
                Answering::Get(manager, numbers)
            }
            Workload::ManagerSet => {
                let (manager, numbers) = dictionary()?;
                Answering::Set(manager, numbers)
            }
            Workload::ListenerUnix => connected(Address::unique()?)?,
            Workload::ListenerTcp => connected(Address::tcp("127.0.0.1:0")?)?,
            _ => {
                let (here, there) = Pipe::<u64>::duplex()?;
                Answering::Pipe(here, Process::spawn(answer, (there,))?)
            }
        })
    }

    fn ask(&mut self, number: u64) -> Result<u64> {
        match self {
            Answering::Pipe(end, _) => {
                end.send(number)?;
                Ok(end.recv()?)
            }
            Answering::Get(_, numbers) => {
                let key = number % KEYS;
                let value = numbers.get(&key)?.ok_or_else(|| anyhow!("no key {key}"))?;
                Ok(number - key + value + 1)
            }
            Answering::Set(_, numbers) => {
                numbers.set(number % KEYS, number)?;
                Ok(number + 1)
            }
            Answering::Connection(connection, _) => {
                connection.send(number)?;
                Ok(connection.recv()?)
            }
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Answering::Pipe(end, mut process) => {
                drop(end);
                process.join()?;
            }
            Answering::Connection(connection, mut process) => {
                drop(connection);
                process.join()?.map_err(|error| anyhow!(error))?;
            }
            Answering::Get(manager, _) | Answering::Set(manager, _) => manager.shutdown(),
        }
        Ok(())
    }
}

fn dictionary() -> Result<(Manager, Dict<u64, u64>)> {
    let manager = Manager::start()?;
    let numbers = manager.dict_of((0..KEYS).map(|key| (key, key)))?;
    Ok((manager, numbers))
}

/// The life of the process at the other end of a pipe.
fn answer(end: PipeEnd<u64>) {
    while let Ok(number) = end.recv() {
        if end.send(number + 1).is_err() {
            break;
        }
    }
}

/// A connection to a process of our own that has proved that it has the key.
fn connected(address: Address) -> Result<Answering> {
    let listener = Listener::builder().key(KEY).bind(address)?;
    let process = Process::spawn(answer_connected, (listener.address().to_string(),))?;
    Ok(Answering::Connection(listener.accept()?, process))
}

/// The life of that process.
fn answer_connected(address: String) -> Result<(), String> {
    let talk = || -> multiproc::Result<()> {
        let address: Address = address.parse()?;
        let connection: Connection<u64> = Client::builder().key(KEY).connect(address)?;
        loop {
            match connection.recv() {
                Ok(number) => connection.send(number + 1)?,
                Err(error) if error.is_end_of_file() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    talk().map_err(|error| error.to_string())
}

/// Several processes that read one dictionary at once.
pub struct Clients;

impl System for Clients {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self) -> Result<()> {
        Ok(())
    }

    fn part(&self, workload: Workload, _: &Settings) -> Part {
        if workload == Workload::ManagerClients { Part::Takes } else { Part::None }
    }

    fn sample(&self, _: Workload, settings: &Settings) -> Result<Sample> {
        let (manager, numbers) = dictionary()?;
        let gate = multiproc::Barrier::new(CLIENTS.try_into()?)?;
        let millis = settings.loop_time().as_millis().try_into()?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Process::spawn(look_up, (numbers.clone(), gate.clone(), millis))?);
        }
        let mut calls = 0.0;
        for mut client in clients {
            calls += 1.0 / client.join()?.map_err(|error| anyhow!(error))?;
        }
        manager.shutdown();
        Sample::here(calls)
    }
}

/// The life of one of them: seconds per look.
fn look_up(numbers: Dict<u64, u64>, gate: multiproc::Barrier, millis: u64) -> Result<f64, String> {
    let mut key = 0;
    let mut measure = || -> Result<f64> {
        gate.wait()?;
        per_op(std::time::Duration::from_millis(millis), || {
            key = (key + 1) % KEYS;
            anyhow::ensure!(numbers.get(&key)? == Some(key), "a wrong value");
            Ok(())
        })
    };
    measure().map_err(|error| format!("{error:#}"))
}
