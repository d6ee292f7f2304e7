//! The few facts that only `/proc` tells.

use super::mmap::page_size;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The number of threads of this process that run or may run, or 1 if `/proc` cannot be read.
///
/// A thread that was joined is still listed for a moment, while the kernel takes it apart. It
/// executes nothing of this program any more, so it is not counted.
pub(crate) fn thread_count() -> usize {
    // Of a directory of threads the number of links is theirs and two, as of a directory of
    // directories: one call tells that there is only one.
    let links = fs::metadata("/proc/self/task").map_or(0, |task| task.nlink());
    if links == 3 {
        return 1;
    }
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return 1;
    };
    threads.flatten().filter(|thread| !is_exiting(&thread.path())).count().max(1)
}

/// Whether a thread has begun to exit, or is gone: `PF_EXITING` among the flags of proc(5).
fn is_exiting(thread: &Path) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = fs::read_to_string(thread.join("stat")) else {
        return true;
    };
    // The fields after the name, which is in parentheses and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let flags = fields.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// What `/proc` says of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    /// The letter of its state; `Z` and `X` are dead.
    pub(crate) state: u8,
    /// How many threads its process has, the zombies among them included.
    pub(crate) siblings: u64,
    /// When it was started, in clock ticks since boot.
    pub(crate) started: u64,
}

/// Looks a thread up; `None` if there is none with this id, or `/proc` does not tell.
pub(crate) fn thread(tid: u32) -> Option<Thread> {
    // A line of numbers and a name of at most 64 bytes: far below this.
    let mut buffer = [0; 1024];
    let mut file = fs::File::open(format!("/proc/{tid}/stat")).ok()?;
    let len = file.read(&mut buffer).ok()?;
    // The fields after the name, which is in parentheses and may hold anything.
    let end = buffer[..len].iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&buffer[end + 1..len]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let siblings = fields.nth(16)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some(Thread { state, siblings, started })
}

/// The resident memory of this process in bytes, or 0 if `/proc` cannot be read.
pub(crate) fn resident_bytes() -> u64 {
    statm_bytes(1)
}

/// The addresses that this process uses, in bytes, or 0 if `/proc` cannot be read.
pub(crate) fn address_space_bytes() -> u64 {
    statm_bytes(0)
}

fn statm_bytes(field: usize) -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(field).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages.saturating_mul(page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_until_it_has_been_joined() {
        // Other tests have threads of their own in this process, so look at single ones.
        for _ in 0..2000 {
            let (tell, told) = std::sync::mpsc::channel();
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                // SAFETY: gettid has no preconditions.
                tell.send(unsafe { libc::gettid() }).expect("the test listens");
                let _ = stopped.recv();
            });
            let path = format!("/proc/self/task/{}", told.recv().expect("the thread speaks"));
            assert!(!is_exiting(Path::new(&path)));
            drop(stop);
            thread.join().expect("the thread ends");
            assert!(is_exiting(Path::new(&path)));
        }
    }

    #[test]
    fn a_thread_is_found_with_its_start_time() {
        // SAFETY: gettid has no preconditions.
        let tid = unsafe { libc::gettid() }.unsigned_abs();
        let me = thread(tid).expect("this thread is there");
        assert_eq!(me.state, b'R');
        assert!(me.siblings >= 1 && me.started > 0);
        assert!(thread(0).is_none());
    }

    #[test]
    fn this_thread_counts() {
        assert!(thread_count() >= 1);
        assert!(!is_exiting(Path::new("/proc/thread-self")));
    }
}
