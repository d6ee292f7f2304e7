//! Three named processes, each with a delay of its own, say who they are.
//!
//! They run side by side, so the shortest delay speaks first, whoever was started first.
//!
//! `cargo run --example hello_names`

use multiproc::{Process, active_children, current_process, parent_process};
use std::thread::sleep;
use std::time::Duration;

fn hello(delay: Duration) -> (String, u32) {
    sleep(delay);
    let me = current_process();
    let parent = parent_process().map_or(0, |parent| parent.pid());
    println!("{} says hello: process {}, child of {parent}", me.name(), me.pid());
    (me.name().to_owned(), parent)
}

fn main() -> multiproc::Result<()> {
    println!("{} is process {}", current_process().name(), current_process().pid());
    let people = [("Ada", 300), ("Grace", 200), ("Edsger", 100)];

    let mut processes = Vec::new();
    for (name, millis) in people {
        let process = Process::builder(hello, (Duration::from_millis(millis),)).name(name);
        processes.push(process.spawn()?);
    }
    for child in active_children() {
        println!("waiting for {} (process {})", child.name(), child.pid());
    }

    for (process, (name, _)) in processes.iter_mut().zip(people) {
        assert_eq!(process.name(), name);
        assert_eq!(process.join()?, (name.to_owned(), std::process::id()));
    }
    assert!(active_children().is_empty());
    Ok(())
}
