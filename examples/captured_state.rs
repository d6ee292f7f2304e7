//! Three ways for a function to use data that is not among its own arguments.
//!
//! A closure is sent to another process by name, so it cannot capture: the compiler says so. But
//! a process can be forked around a closure, captures and all; a map can have a context; and a
//! method can be called on a value that travels.
//!
//! `cargo run --example captured_state`

use multiproc::{Pool, Process};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Serialize, Deserialize)]
struct Discount {
    percent: u64,
}

impl Discount {
    fn apply(self, price: u64) -> u64 {
        price - price * self.percent / 100
    }
}

fn main() -> multiproc::Result<()> {
    let prices: HashMap<String, u64> =
        [("apple", 30), ("bread", 250), ("cheese", 700)].map(|(k, v)| (k.to_owned(), v)).into();
    let basket = ["bread", "apple", "apple", "cheese"].map(str::to_owned);
    let expected = [250, 30, 30, 700];

    // 1. Fork: the child has a copy of this process's memory, so the closure may use all of it and
    //    only the result travels. Forking is safe while there is one thread, so it comes first.
    let (table, items) = (prices.clone(), basket.clone());
    let total = move || items.iter().map(|item| table[item]).sum::<u64>();
    let mut process = Process::fork(total).name("till").spawn()?;
    let total = process.join()?;
    println!("a forked process says that the basket costs {total}");
    assert_eq!(total, expected.iter().sum::<u64>());

    // 2. A context, which each worker receives once, however many items there are.
    let pool = Pool::new()?;
    let looked_up = pool.map_with(&prices, |prices, item: String| prices[&item], basket.clone())?;
    println!("the workers of a pool look up {looked_up:?}");
    assert_eq!(looked_up, expected);

    // 3. A value with a method, which travels like any other argument.
    let reduced = pool.starmap(Discount::apply, expected.map(|p| (Discount { percent: 10 }, p)))?;
    println!("and with a discount {reduced:?}");
    assert_eq!(reduced, [225, 27, 27, 630]);

    // A pool has a thread, so forking is no longer safe, and is refused.
    let error = Process::fork(move || prices.len()).spawn().unwrap_err();
    println!("too late for a fork: {error}");
    assert!(error.to_string().contains("threads"));
    Ok(())
}
