//! Two functions in two processes that run at the same time, and are joined.
//!
//! What a function returns is what `join` returns: no queue and no shared variable is needed to
//! get it back.
//!
//! `cargo run --example square_cube`

use multiproc::Process;

fn square(x: i64) -> i64 {
    println!("square: process {}", std::process::id());
    x * x
}

fn cube(x: i64) -> i64 {
    println!("cube:   process {}", std::process::id());
    x * x * x
}

fn main() -> multiproc::Result<()> {
    println!("main:   process {}", std::process::id());
    let mut squaring = Process::spawn(square, (10,))?;
    let mut cubing = Process::spawn(cube, (10,))?;
    assert_ne!(squaring.pid(), cubing.pid());

    let (squared, cubed) = (squaring.join()?, cubing.join()?);
    println!("10 squared is {squared}, 10 cubed is {cubed}");
    assert_eq!((squared, cubed), (100, 1000));

    assert!(!squaring.is_alive() && !cubing.is_alive());
    assert!(squaring.exit_status().is_some_and(|status| status.success()));
    Ok(())
}
