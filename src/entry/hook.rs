//! Entering a child process: before `main` by the hook, or in `main` by `init`.

use crate::start::child;
use crate::sys::child::{CONTROL_FD, remove_variable};
use crate::sys::image;
use crate::{Error, Result};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The environment variable that makes a process a child of ours; its value is the nesting depth.
pub(crate) const VARIABLE: &std::ffi::CStr = c"MULTIPROC_CHILD";

/// How deep processes may start processes.
const MAX_DEPTH: u32 = 16;

static READY: AtomicBool = AtomicBool::new(false);
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// Enters the process as a worker if it was started as one; otherwise returns at once.
///
/// With the default feature `hook` this happens before `main` and the call is not needed. Without
/// it (`default-features = false`), call it first thing in `main`: a program that forgets gets an
/// error from the first [`Pool`](crate::Pool) or [`Process`](crate::Process), and starts nothing.
///
/// In a child this never returns: the child serves its parent and exits. Code before the call
/// runs in every child, too.
///
/// ```
/// fn main() -> multiproc::Result<()> {
///     multiproc::init();
///     let pool = multiproc::Pool::builder().workers(1).build()?;
///     assert_eq!(pool.apply(|| 42, ())?, 42);
///     Ok(())
/// }
/// ```
pub fn init() {
    // Relaxed: a flag that publishes nothing else.
    if !READY.swap(true, Ordering::Relaxed) {
        enter();
    }
}

#[cfg(feature = "hook")]
mod before_main {
    extern "C" fn hook() {
        super::init();
    }

    // SAFETY: the section holds functions that the C library calls before `main`, with the C
    // calling convention (extra arguments are ignored); `hook` is one. In a process that is no
    // child of ours it does one `getenv`.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static HOOK: extern "C" fn() = hook;
}

fn enter() {
    // SAFETY: getenv only reads; before `main` there is one thread, and in `init` the user is
    // told to call it first.
    let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: getenv returned a C string, which is valid until the environment changes.
    let value = unsafe { std::ffi::CStr::from_ptr(value) }.to_owned();
    remove_variable(VARIABLE);
    let depth = value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(MAX_DEPTH);
    set_depth(depth);
    // SAFETY: `exec_self` put the control socket there for this image, which has not used the
    // number for anything else: nothing of the user's has run. If the variable was set by hand
    // the descriptor may be invalid or foreign; the first receive then fails and we exit.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    child::main(control)
}

/// Remembers how many processes of ours lie above this one.
pub(crate) fn set_depth(depth: u32) {
    DEPTH.store(depth, Ordering::Relaxed);
}

/// How many processes of ours lie above this one.
pub(crate) fn depth() -> u32 {
    DEPTH.load(Ordering::Relaxed)
}

/// Checks that this program would enter the children that it starts.
pub(crate) fn require_init() -> Result<()> {
    if !READY.load(Ordering::Relaxed) {
        return Err(Error::start(
            "multiproc::init() has not been called: without the feature `hook` it must stand \
             first in `main`, or every worker would run the program again from the start",
        ));
    }
    if image::current().offset_of(require_init as *const () as usize).is_none() {
        return Err(Error::start(
            "multiproc lives in a shared library, not in the program's executable: a worker, which \
             is the executable started again, would run `main` a second time. Link multiproc into \
             the executable",
        ));
    }
    if depth() >= MAX_DEPTH {
        return Err(Error::start(format!(
            "processes are nested {MAX_DEPTH} deep, which is the limit: does a worker start a \
             pool that runs the same function again?"
        )));
    }
    Ok(())
}
