//! Processes that are killed at one instruction after the other of a call: each is traced, goes
//! step by step, and gets no further.

use multiproc::JoinableQueue;

/// At how many instructions of a call a process is killed.
const KILLS: u64 = 40;
/// How far into a call. What comes later of a long one is the copy of its bytes.
const FAR: u64 = 60_000;

/// A process finds out who it is when it first uses a queue, which takes longer than the call.
fn know_itself() {
    let jobs = JoinableQueue::new().expect("memory");
    jobs.put(1_u8).expect("it is open");
    assert!(jobs.get().is_ok() && jobs.task_done().is_ok());
}

/// A child of this process that is traced, and stands before its call.
struct Traced(i32);

/// What became of a traced child.
#[derive(PartialEq)]
enum Step {
    Stopped,
    Exited,
}

impl Traced {
    /// Forks a child that will run `act` and exit.
    fn fork(act: &dyn Fn()) -> Self {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            // SAFETY: the child asks to be traced and stops; what it runs is safe code. It leaves
            // without running anybody's exit handlers.
            0 => unsafe {
                if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) != 0 {
                    libc::_exit(1);
                }
                know_itself();
                libc::raise(libc::SIGSTOP);
                act();
                libc::_exit(0)
            },
            pid => {
                assert!(pid > 0, "fork");
                let child = Self(pid);
                assert!(child.wait() == Step::Stopped, "it cannot be traced here (ptrace)");
                child
            }
        }
    }

    fn wait(&self) -> Step {
        let mut status = 0;
        // SAFETY: the child is this process's own; the status is a live word.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        if libc::WIFSTOPPED(status) { Step::Stopped } else { Step::Exited }
    }

    /// Lets the child execute one instruction.
    fn step(&self) -> Step {
        // SAFETY: the child is stopped, and traced by this thread.
        let result = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0, 0, 0) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        self.wait()
    }

    fn kill(self) {
        // SAFETY: the child has not been waited for, so the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        while self.wait() != Step::Exited {}
    }
}

/// Kills processes that run `act` at instructions spread over the whole of it; `check` looks after
/// each what is left.
pub fn at_many_instructions(act: &dyn Fn(), mut check: impl FnMut()) {
    at_many_instructions_of(|| (), |()| act(), |()| check());
}

/// As [`at_many_instructions`], of calls each of which is about something of its own.
pub fn at_many_instructions_of<S>(new: impl Fn() -> S, act: impl Fn(&S), check: impl FnMut(S)) {
    stopped_at_many_instructions_of(KILLS, new, act, |_| (), check);
}

/// As [`at_many_instructions_of`], at so many instructions; `meanwhile` looks on while the process
/// stands still, before it is killed.
pub fn stopped_at_many_instructions_of<S>(
    kills: u64,
    new: impl Fn() -> S,
    act: impl Fn(&S),
    mut meanwhile: impl FnMut(&S),
    mut check: impl FnMut(S),
) {
    let state = new();
    let whole = Traced::fork(&|| act(&state));
    let mut steps = 1;
    while steps < FAR && whole.step() == Step::Stopped {
        steps += 1;
    }
    if steps == FAR {
        whole.kill();
    }
    check(state);
    for kill in 0..kills {
        // Not the same ones each time that the test runs.
        let offset = u64::from(std::process::id()) * 7919 % (steps / kills).max(1);
        let state = new();
        let child = Traced::fork(&|| act(&state));
        let last = steps * kill / kills + offset;
        let ended = (0..last).any(|_| child.step() == Step::Exited);
        if !ended {
            meanwhile(&state);
            child.kill();
        }
        check(state);
    }
}
