//! A program that ignores `SIGCHLD` loses exit statuses, but nothing else.

mod common;

use common::watchdog;
use multiproc::{ExitStatus, Pool, Process};

// The disposition is the program's, so this test has a binary to itself.
#[test]
fn without_exit_statuses_results_and_ends_still_arrive() {
    watchdog();
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut process = Process::spawn(|| 7, ()).expect("spawn");
    assert_eq!(process.join().expect("join"), 7);
    assert_eq!(process.exit_status(), Some(ExitStatus::Unknown));
    assert_eq!(ExitStatus::Unknown.exitcode(), None);
    let mut killed = Process::spawn(std::thread::park, ()).expect("spawn");
    killed.kill().expect("kill");
    let error = killed.join().expect_err("killed");
    assert!(error.is_exited() && error.exit_status() == Some(ExitStatus::Unknown), "{error}");
    let pool = Pool::builder().workers(1).build().expect("a pool");
    let error = pool.apply(|| -> () { std::process::abort() }, ()).expect_err("it died");
    assert!(error.is_worker_died(), "{error}");
    assert_eq!(pool.map(|x: u64| x + 1, 0..3).expect("the pool heals"), [1, 2, 3]);
    pool.close();
    pool.join().expect("join");
}
