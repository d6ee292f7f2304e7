//! The busy beaver: of the Turing machines with two states that halt at all, which runs longest?
//!
//! No program can tell of every machine whether it will halt, so this one just runs them, many at
//! once, in a pool with a time limit for tasks. The worker process of a machine that does not halt
//! in time is killed and replaced. (A thread could not be killed: it would run for ever.)
//!
//! `cargo run --example busy_beaver`

use multiproc::Pool;
use std::collections::HashMap;
use std::time::Duration;

/// Runs a machine on an empty tape until it halts, if ever. Returns after how many steps it did,
/// how many ones it wrote, and which part of its table made it halt.
///
/// In `1RB1LB_1LA---`, state A on a 0 writes 1, moves right and goes on in state B; state B on a 1
/// (`---`) writes a last 1 and halts.
fn run(machine: String) -> (u64, usize, usize) {
    let table = machine.as_bytes();
    let (mut tape, mut head, mut state) = (HashMap::<i64, bool>::new(), 0, b'A');
    for steps in 1.. {
        let cell = tape.entry(head).or_default();
        let part = usize::from(state - b'A') * 7 + usize::from(*cell) * 3;
        *cell = table[part] != b'0';
        if table[part] == b'-' {
            return (steps, tape.into_values().filter(|cell| *cell).count(), part);
        }
        head += if table[part + 1] == b'R' { 1 } else { -1 };
        state = table[part + 2];
    }
    unreachable!("it runs for ever")
}

/// The machines that go on in one way or another where this one halts.
fn extensions(machine: &str, part: usize) -> impl Iterator<Item = String> {
    let actions = ["0LA", "0LB", "0RA", "0RB", "1LA", "1LB", "1RA", "1RB"];
    actions
        .into_iter()
        .map(move |action| format!("{}{action}{}", &machine[..part], &machine[part + 3..]))
}

fn main() -> multiproc::Result<()> {
    let pool = Pool::builder().workers(16).task_timeout(Duration::from_secs(2)).build()?;
    let (mut halted, mut stopped, mut most_steps, mut most_ones) = (0, 0, 0, 0);

    // From the machine that halts in its second step, grow all others that matter.
    let mut machines = vec!["1RB---_------".to_owned()];
    while !machines.is_empty() {
        let mut longer = Vec::new();
        for (machine, result) in machines.iter().zip(pool.imap(run, machines.clone())?) {
            match result {
                Ok((steps, ones, part)) => {
                    halted += 1;
                    most_steps = most_steps.max(steps);
                    most_ones = most_ones.max(ones);
                    if machine.matches("---").count() > 1 {
                        longer.extend(extensions(machine, part));
                    }
                }
                Err(error) if error.is_timeout() => stopped += 1,
                Err(error) => return Err(error),
            }
        }
        machines = longer;
    }
    println!("{halted} machines halted, {stopped} were still running when they were stopped");
    println!("2 states: at most {most_steps} steps and {most_ones} ones");
    assert_eq!((most_steps, most_ones), (6, 4));

    // The proven champions of three and four states.
    let champions = ["1RB---_1LB0RC_1LC1LA", "1RB1LB_1LA0LC_---1LD_1RD0RA"];
    let runs = pool.map(run, champions.map(str::to_owned))?;
    println!("the champions of 3 and 4 states run for {} and {} steps", runs[0].0, runs[1].0);
    assert_eq!((runs[0].0, runs[1].0), (21, 107));
    Ok(())
}
