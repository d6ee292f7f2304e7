//! Ending this process.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Flushes stdout and stderr, Rust's and C's, so that nothing a child printed is lost.
pub(crate) fn flush_output() {
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    // SAFETY: fflush(NULL) flushes every open C output stream; it takes no pointer of ours.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Ends a process image of its own: C exit handlers run.
pub(crate) fn exit(code: i32) -> ! {
    flush_output();
    std::process::exit(code)
}

/// What a forked child does last, on the thread that ends it, instead of the exit handlers and the
/// drops of thread-locals.
static LAST: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Calls `function` when a forked child of ours, which this process may be, ends in an orderly way.
pub(crate) fn before_forked_exit(function: fn()) {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).push(function);
}

/// Ends a forked child: the exit handlers that it inherited are its parent's and do not run.
pub(crate) fn exit_forked(code: i32) -> ! {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    last.into_iter().for_each(|function| function());
    flush_output();
    exit_now(code)
}

/// Ends this process at once; nothing is flushed and no handler runs.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Ends this process with `SIGABRT`, when there is no way on, and says why. It takes no lock and
/// no memory: it is async-signal-safe.
pub(crate) fn abort_with(why: &'static str) -> ! {
    for text in [why, "\n"] {
        // SAFETY: the range is that of the string.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    std::process::abort()
}

/// Runs `handler` when this process returns from `main` or calls `exit`.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: `handler` is a function of this image, which is never unloaded. If the table is
    // full the handler does not run; children then end with their lifeline.
    unsafe { libc::atexit(handler) };
}
