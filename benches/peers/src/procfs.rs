//! What `/proc` tells about processes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The process `root` and all its descendants.
pub fn family(root: u32) -> Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|s| s.parse().ok()) else {
            continue;
        };
        // A process may end while we look.
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut seen = 0;
    while let Some(&pid) = family.get(seen) {
        family.extend(children.remove(&pid).unwrap_or_default());
        seen += 1;
    }
    Ok(family)
}

/// The parent of a process, if that still exists.
fn parent_of(pid: u32) -> Option<u32> {
    stat_field(pid, 1)?.parse().ok()
}

/// The `index`th field of `/proc/PID/stat` after the command name.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(index).map(str::to_owned)
}

/// Seconds of CPU time that the threads of these processes have used so far,
/// except for the calling process's main thread, which does the measuring.
///
/// Taken in nanoseconds from `schedstat` of every thread, because `utime` and
/// `stime` of `stat` count in hundredths of a second, which is more than an idle
/// pool uses. Where the kernel has no `schedstat` those two have to do.
pub fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let mut seconds = 0.0;
    for &pid in pids {
        seconds += match schedstat_nanos(pid) {
            Ok(nanos) => nanos as f64 / 1e9,
            Err(_) => stat_ticks(pid)? as f64 / ticks_per_second(),
        };
    }
    Ok(seconds)
}

/// Nanoseconds on a CPU of all threads that the process has now, without our
/// own main thread.
fn schedstat_nanos(pid: u32) -> Result<u64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path();
        // The main thread has the id of its process.
        if path.ends_with(std::process::id().to_string()) {
            continue;
        }
        let text = fs::read_to_string(path.join("schedstat"))?;
        let first = text.split_whitespace().next().context("schedstat")?;
        nanos += first.parse::<u64>()?;
    }
    Ok(nanos)
}

/// `utime + stime` of the process in clock ticks.
fn stat_ticks(pid: u32) -> Result<u64> {
    let field = |index| -> Result<u64> {
        let text = stat_field(pid, index).with_context(|| format!("/proc/{pid}/stat"))?;
        Ok(text.parse()?)
    };
    Ok(field(11)? + field(12)?)
}

/// Clock ticks per second in `/proc/PID/stat`.
fn ticks_per_second() -> f64 {
    // SAFETY: sysconf only reads its argument and has no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// Bytes that belong to this process alone.
pub fn private_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let clean = kilobytes(&path, "Private_Clean:")?;
    let dirty = kilobytes(&path, "Private_Dirty:")?;
    Ok((clean + dirty) * 1024)
}

/// The largest resident size that the process has had, in bytes.
pub fn peak_bytes(pid: u32) -> Result<u64> {
    Ok(kilobytes(format!("/proc/{pid}/status"), "VmHWM:")? * 1024)
}

/// The number after `key` in a file of lines `key: number kB`.
fn kilobytes(path: impl AsRef<Path>, key: &str) -> Result<u64> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("no {key} in {}", path.display()))?;
    Ok(value.parse()?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_busy_child_is_seen() {
        let me = std::process::id();
        let start = Instant::now();
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let family = family(me).unwrap();
        // On a busy machine it may take a while until the child gets its turn.
        let used = || cpu_seconds(&[child.id()]).unwrap();
        while used() < 0.01 && start.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(5));
        }
        let used = used();
        let private = private_bytes(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&me) && family.contains(&child.id()));
        assert!((0.01..=start.elapsed().as_secs_f64()).contains(&used), "{used}");
        assert!(private.unwrap() > 0);
    }

    #[test]
    fn our_own_numbers_can_be_read() {
        let me = std::process::id();
        assert!(stat_ticks(me).is_ok());
        assert!(ticks_per_second() > 0.0);
        assert!(peak_bytes(me).unwrap() > 0);
    }
}
