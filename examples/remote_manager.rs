//! Two programs, or rather two runs of one, that share objects over TCP.
//!
//! `cargo run --example remote_manager` starts both. On their own, for two that work; the server
//! prints the address that they need:
//!
//! ```text
//! MANAGER_KEY=… remote_manager serve 127.0.0.1:7000 2
//! MANAGER_KEY=… remote_manager work tcp:127.0.0.1:7000
//! ```

use multiproc::connection::Address;
use multiproc::manager::{JoinableQueue, List, Semaphore};
use multiproc::{Manager, Result};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// The program that has the objects: it hands out jobs and waits until they are done, and all
/// workers have seen that there are no more.
fn serve(address: Address, key: &str, workers: usize) -> Result<()> {
    let manager = Manager::bind(address, key)?;
    let (jobs, results) = (manager.joinable_queue::<u64>()?, manager.list::<(u64, u64)>()?);
    // Whoever connects finds them by their names.
    manager.publish("jobs", &jobs)?;
    manager.publish("results", &results)?;
    let finished = manager.semaphore(0)?;
    manager.publish("finished", &finished)?;
    println!("{}", manager.address().expect("it is bound"));
    jobs.put_many(1..=20)?;
    jobs.join()?;
    jobs.close()?;
    results.sort()?;
    println!("results: {:?}", results.snapshot()?);
    assert_eq!(results.len()?, 20);
    (0..workers).try_for_each(|_| finished.acquire_raw())
}

/// The program that works for it, on this machine or, through a tunnel, on another one.
fn work(address: Address, key: &str) -> Result<()> {
    let manager = Manager::connect(address, key)?;
    let (jobs, results) = (manager.find("jobs")?, manager.find("results")?);
    let jobs: JoinableQueue<u64> = jobs.expect("the server publishes before it tells its address");
    let results: List<(u64, u64)> = results.expect("as above");
    for job in jobs.iter() {
        let job = job?;
        results.push((job, job * job))?;
        jobs.task_done()?;
    }
    let finished: Option<Semaphore> = manager.find("finished")?;
    finished.map_or(Ok(()), |finished| finished.release(1))
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let key = std::env::var("MANAGER_KEY").unwrap_or_default();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address, workers] => Ok(serve(Address::tcp(address)?, &key, workers.parse()?)?),
        ["work", address] => Ok(work(address.parse()?, &key)?),
        _ => both(),
    }
}

/// Plays both parts, with a key that nobody else knows.
fn both() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let key = Address::unique()?.to_string();
    let program = std::env::current_exe()?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env("MANAGER_KEY", &key);
        command
    };
    let mut server = run(&["serve", "127.0.0.1:0", "2"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(server.stdout.take().ok_or("no output")?).lines();
    let address = lines.next().ok_or("the server has ended")??;
    println!("the server is at {address}");
    let workers: std::io::Result<Vec<_>> =
        (0..2).map(|_| run(&["work", &address]).spawn()).collect();
    for line in lines {
        println!("{}", line?);
    }
    for mut worker in workers? {
        assert!(worker.wait()?.success());
    }
    assert!(server.wait()?.success());
    Ok(())
}
