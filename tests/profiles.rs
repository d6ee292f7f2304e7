//! A program built the other way round: release, link-time optimisation, stripped, and aborting
//! on panic. The test makes a small package beside this one's artefacts and builds it.

mod common;

use common::package::Package;
use std::process::Command;

const PROFILE: &str = r#"
[profile.release]
opt-level = 1
lto = true
strip = true
panic = "abort"
codegen-units = 1
debug = false
"#;

const MAIN: &str = r#"
use multiproc::{Pool, Process, StartMethod};

fn square(x: u64) -> u64 {
    x * x
}

fn check(x: u64) -> u64 {
    if x == 13 { panic!("unlucky {x}") } else { x }
}

fn main() {
    // SAFETY: alarm has no preconditions.
    unsafe { libc::alarm(120) };
    let base = 7;
    let mut forked = Process::fork(move || square(base)).spawn().expect("fork");
    assert_eq!(forked.join().expect("join"), 49);
    for method in [StartMethod::Fork, StartMethod::ForkServer, StartMethod::Spawn] {
        let pool = Pool::builder().workers(2).start_method(method).build().expect("a pool");
        assert_eq!(pool.map(square, 0..1000).expect("map").len(), 1000);
        assert_eq!(pool.apply(|a: u64, b: u64| a + b, (2, 3)).expect("apply"), 5);
        let error = pool.apply(check, (13,)).expect_err("it panicked");
        let info = error.panic().unwrap_or_else(|| panic!("{method:?}: a panic, not: {error}"));
        assert_eq!(info.message, "unlucky 13");
        assert!(info.location.as_deref().is_some_and(|place| place.contains("main.rs")));
        assert_eq!(pool.map(check, 0..10).expect("the pool heals").len(), 10);
        drop(pool);
        let process = |x: u64| Process::builder(check, (x,)).start_method(method).spawn();
        assert_eq!(process(5).expect("start").join().expect("join"), 5);
        let mut panics = process(13).expect("start");
        let error = panics.join().expect_err("it panicked");
        assert_eq!(error.panic().expect("a panic").message, "unlucky 13");
        assert_eq!(panics.exit_status().and_then(|status| status.signal()), Some(6));
        println!("{method:?} works");
    }
}
"#;

#[test]
fn a_stripped_lto_binary_that_aborts_on_panic_works() {
    let package = Package::new("profiles", PROFILE);
    package.write("src/main.rs", MAIN);
    let built = package.cargo("build").args(["--release", "--quiet"]).output().expect("cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let ran = Command::new(package.program("release/profiles")).output().expect("the program");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}\n{out}\n{err}", ran.status);
    assert_eq!(out, "Fork works\nForkServer works\nSpawn works\n");
}
