//! One function, many inputs: `map` waits for all results, `apply_async` for none.
//!
//! `cargo run --example pool_double`

use multiproc::{AsyncResult, Pool};
use std::sync::mpsc::channel;
use std::time::Duration;

fn double(x: i32) -> i32 {
    2 * x
}

fn main() -> multiproc::Result<()> {
    let pool = Pool::builder().workers(4).build()?;

    // All inputs at once; the results come in the order of the inputs.
    let doubled = pool.map(double, [1, 2, 3, 4, 5])?;
    println!("map:            {doubled:?}");
    assert_eq!(doubled, [2, 4, 6, 8, 10]);

    // One call, in the background. The arguments are a tuple.
    let result = pool.apply_async(double, (10,))?;
    let value = result.get_timeout(Duration::from_secs(30))?;
    println!("apply_async:    {value}");
    assert_eq!(value, 20);

    // Several calls in the background, collected later.
    let calls: Vec<AsyncResult<i32>> =
        (1..=5).map(|x| pool.apply_async(double, (x,))).collect::<Result<_, _>>()?;
    let collected = calls.into_iter().map(AsyncResult::get).collect::<Result<Vec<_>, _>>()?;
    println!("collected:      {collected:?}");
    assert_eq!(collected, doubled);

    // A callback instead of a wait.
    let (sender, receiver) = channel();
    let call = pool.apply_async(double, (21,))?;
    let call = call.on_success(move |value| sender.send(*value).expect("main waits"));
    println!("callback:       {:?}", receiver.recv());
    assert_eq!(call.get()?, 42);

    // Results one by one as they come: in any order, and the input is read no further than needed.
    let mut any_order = pool.imap_unordered(double, 1..=5)?.collect::<Result<Vec<_>, _>>()?;
    println!("imap_unordered: {any_order:?}");
    any_order.sort_unstable();
    assert_eq!(any_order, doubled);

    pool.close();
    pool.join()
}
