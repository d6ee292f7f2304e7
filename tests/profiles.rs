//! A program built the other way round: release, link-time optimisation, stripped, and aborting
//! on panic. The test makes a small package beside this one's artefacts and builds it.

use std::fs;
use std::path::Path;
use std::process::Command;

const MANIFEST: &str = r#"
[package]
name = "profiles"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
multiproc = { path = "REPOSITORY" }
libc = "0.2"

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
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profiles");
    fs::create_dir_all(package.join("src")).expect("a package");
    let manifest = MANIFEST.replace("REPOSITORY", &repository.display().to_string());
    for (name, text) in [("Cargo.toml", manifest.as_str()), ("src/main.rs", MAIN)] {
        let path = package.join(name);
        // Left alone if it is the same, so that cargo need not build again.
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(path, text).expect("write");
        }
    }
    // The same versions as here: they are on this machine.
    fs::copy(repository.join("Cargo.lock"), package.join("Cargo.lock")).expect("the lock file");
    let target = package.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--offline", "--quiet"]).current_dir(&package);
    build.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
    let built = build.output().expect("cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let ran = Command::new(target.join("release/profiles")).output().expect("the program");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}\n{out}\n{err}", ran.status);
    assert_eq!(out, "Fork works\nForkServer works\nSpawn works\n");
}
