//! Ctrl-C: the terminal sends SIGINT to the whole foreground process group, workers included.
//!
//! The test runs itself again as a helper program in a process group of its own.

#[path = "common/events.rs"]
mod common;

use common::{Watchdog, is_gone, wait_until};
use multiproc::Pool;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

const ROLE: &str = "MULTIPROC_TEST_CTRL_C";

fn main() {
    // A shell that runs this in the background has it ignore the signal, and programs inherit that.
    // SAFETY: the default action is no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    match std::env::var(ROLE).as_deref() {
        Ok("plain") => plain_program(false),
        Ok("idle") => plain_program(true),
        Ok("handler") => program_with_handler(),
        _ => {
            let _dog = Watchdog::new("ctrl-c");
            run("ctrl_c_ends_a_program_whose_workers_are_busy", || dies_of_it("plain"));
            run("ctrl_c_ends_a_program_whose_workers_are_idle", || dies_of_it("idle"));
            run("a_program_with_a_handler_drops_its_pool_cleanly", ends_cleanly);
        }
    }
}

fn run(name: &str, test: impl FnOnce()) {
    test();
    println!("test {name} ... ok");
}

fn spin(_: u64) {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

fn plain_program(idle: bool) {
    let pool = Pool::builder().workers(3).build().expect("pool");
    let _running = (!idle).then(|| pool.map_async(spin, 0..3).expect("submit"));
    announce(&pool, if idle { 0 } else { 3 });
    spin(0);
}

fn announce(pool: &Pool, busy: u64) {
    wait_until("work runs", || pool.stats().running >= busy);
    let pids: Vec<_> = pool.worker_pids().iter().map(ToString::to_string).collect();
    println!("{}", pids.join(" "));
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn program_with_handler() {
    extern "C" fn remember(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler: extern "C" fn(libc::c_int) = remember;
    // SAFETY: the handler only stores into an atomic.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
    let pool = Pool::builder().workers(3).build().expect("pool");
    let running = pool.map_async(spin, 0..3).expect("submit");
    announce(&pool, 3);
    while !INTERRUPTED.load(Ordering::Relaxed) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // The workers took no notice: what becomes of them is this program's decision.
    assert_eq!(pool.worker_pids().len(), 3);
    assert_eq!(pool.stats().restarts, 0);
    assert!(!running.ready());
    drop(pool);
    let error = running.get().expect_err("ended");
    assert!(error.is_cancelled() || error.is_closed(), "{error:?}");
    std::process::exit(7);
}

/// Runs this program in a role, interrupts its process group once its workers are up, and
/// returns how it ended, its workers, and what it wrote to stderr.
fn interrupt(role: &str) -> (ExitStatus, Vec<u32>, String) {
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .env(ROLE, role)
        .env("RUST_BACKTRACE", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the helper");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("its workers");
    let workers: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().expect("pid")).collect();
    assert_eq!(workers.len(), 3, "{line:?}");
    // SAFETY: a signal to another process group has no memory effects here.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGINT) };
    let status = child.wait().expect("its end");
    (status, workers, stderr_of(&mut child))
}

fn stderr_of(child: &mut Child) -> String {
    let mut text = String::new();
    // Ends only when the workers, which hold it too, are gone.
    child.stderr.take().expect("stderr").read_to_string(&mut text).expect("stderr");
    text
}

fn dies_of_it(role: &str) {
    let (status, workers, stderr) = interrupt(role);
    assert_eq!(status.signal(), Some(libc::SIGINT), "{status:?}, stderr: {stderr}");
    assert_eq!(stderr, "");
    wait_until("no worker is left", || workers.iter().all(|pid| is_gone(*pid)));
}

fn ends_cleanly() {
    let (status, workers, stderr) = interrupt("handler");
    assert_eq!(status.code(), Some(7), "stderr: {stderr}");
    assert_eq!(stderr, "");
    wait_until("no worker is left", || workers.iter().all(|pid| is_gone(*pid)));
}
