//! Makes sure that no process outlives the sample it was started for.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::procfs;

/// How long the helpers of a system (Python's fork server, say) may take to
/// notice that their parent has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Makes this process adopt all its descendants whose parents end.
pub fn adopt_orphans() -> Result<()> {
    // SAFETY: this option takes one integer and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("PR_SET_CHILD_SUBREAPER");
    }
    Ok(())
}

/// Makes the kernel kill this process when the one that started it ends.
pub fn end_with_parent() {
    // SAFETY: this option takes one integer and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Waits for every process which a sample left behind, and kills those which
/// do not end by themselves; returns how many had to be killed.
///
/// To be called only when no `std::process::Child` is outstanding, as it waits
/// for any child.
pub fn clear() -> Result<usize> {
    if reap_until(Instant::now() + GRACE)? {
        return Ok(0);
    }
    let me = std::process::id();
    let left: Vec<u32> = procfs::family(me)?.into_iter().filter(|&pid| pid != me).collect();
    for &pid in &left {
        // SAFETY: kill touches no memory. The process is a descendant nobody
        // but us can have waited for, so its id cannot have been reused.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
    if !reap_until(Instant::now() + GRACE)? {
        bail!("processes {left:?} survive SIGKILL");
    }
    Ok(left.len())
}

/// Reaps children until there are none (true) or the time is over (false).
fn reap_until(end: Instant) -> Result<bool> {
    loop {
        // SAFETY: a null status pointer is allowed and means to drop the status.
        let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
        match pid {
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(true),
                error => return Err(error).context("waitpid"),
            },
            0 if Instant::now() >= end => return Ok(false),
            0 => thread::sleep(Duration::from_millis(1)),
            _ => {}
        }
    }
}
