//! A test harness that runs each case in a fresh process with one thread.
//!
//! For what is process-wide: forks, the fork server, the exit of a program. The harness adopts
//! orphans, so it sees what a case has left running, and fails the case for it.

use super::processes::own_children;
use super::wait_until;
use std::process::{Child, Command, ExitCode, Stdio};

/// A case: its name and its function.
pub type Case = (&'static str, fn());

/// Lists functions by their names.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

/// The `main` of a test binary: runs the cases, each in a process of its own. `helpers` are
/// programs that cases run with [`helper`].
pub fn main(cases: &[Case], helpers: &[Case]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--run"
    {
        let mut known = cases.iter().chain(helpers);
        let (_, run) = known.find(|(known, _)| known == name).expect("a known case or helper");
        super::watchdog();
        run();
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    // SAFETY: prctl with this option takes plain numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter.as_str()));
    let mut failed = 0;
    for (name, _) in cases.iter().filter(|(name, _)| wanted(name)) {
        let verdict = run_case(name);
        match &verdict {
            Ok(()) => println!("test {name} ... ok"),
            Err(why) => println!("test {name} ... FAILED: {why}"),
        }
        failed += u32::from(verdict.is_err());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_case(name: &str) -> Result<(), String> {
    let status = program(name).status().map_err(|error| error.to_string())?;
    if !status.success() {
        kill_orphans();
        return Err(status.to_string());
    }
    // What the case started ends with it, at the latest when its lifeline is cut.
    let gone = std::panic::catch_unwind(|| {
        wait_until("nothing that the case started is left", || {
            reap_orphans();
            own_children().is_empty()
        });
    });
    let left = own_children();
    kill_orphans();
    gone.map_err(|_| format!("it left processes running: {left:?}"))
}

fn reap_orphans() {
    // SAFETY: waitpid with a null status pointer only reaps; this harness waits for its own
    // children through `Command`, before it reaps what it adopted.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

fn kill_orphans() {
    for orphan in own_children() {
        super::processes::signal(orphan.pid, libc::SIGKILL);
    }
    reap_orphans();
}

fn program(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--run", name]);
    command
}

/// A helper program, to be started.
pub fn helper(name: &str) -> Command {
    program(name)
}

/// Starts a helper program with piped stdin and stdout.
pub fn start_helper(name: &str) -> Child {
    let mut command = program(name);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the helper starts")
}
