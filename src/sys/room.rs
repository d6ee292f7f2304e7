//! How much memory there is room for.
//!
//! Memory that is reserved beyond what the machine, or the control group of this process, has is
//! not refused by the kernel: it kills somebody. So a large request is compared first with what is
//! there. The answer is out of date when it is given; whoever reserves much asks again on the way.
//!
//! Semantics: proc(5), `memory.max` and its neighbours of control groups version 2, and
//! `memory.limit_in_bytes` and its neighbours of version 1. A file that is absent is no limit.

use nix::sys::resource::{Resource, getrlimit};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Requests up to this size are not looked at.
const SMALL: usize = 4 << 20;

/// Whether `len` more bytes of memory can be used.
///
/// # Errors
/// `OutOfMemory`, naming both numbers.
pub(crate) fn check(len: usize) -> io::Result<()> {
    if len <= SMALL {
        return Ok(());
    }
    let (left, whose) = least();
    if (len as u64) <= left { Ok(()) } else { Err(refusal(len as u64, left, whose)) }
}

/// Whether a file of this many bytes may be made.
///
/// # Errors
/// `FileTooLarge`: to try would end the process with `SIGXFSZ`.
pub(crate) fn check_file_size(len: usize) -> io::Result<()> {
    let limit = getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _)| soft);
    if (len as u64) <= limit {
        return Ok(());
    }
    let what = format!("{len} bytes are needed, and RLIMIT_FSIZE allows files of {limit} bytes");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
}

/// Whether `len` more bytes of addresses can be used.
///
/// # Errors
/// `OutOfMemory`, naming both numbers.
pub(crate) fn check_addresses(len: usize) -> io::Result<()> {
    let limit = getrlimit(Resource::RLIMIT_AS).map_or(u64::MAX, |(soft, _)| soft);
    if limit == libc::RLIM_INFINITY {
        return Ok(());
    }
    let left = limit.saturating_sub(super::procfs::address_space_bytes());
    if (len as u64) <= left {
        return Ok(());
    }
    Err(refusal(len as u64, left, "addresses left by RLIMIT_AS"))
}

fn refusal(len: u64, left: u64, whose: &str) -> io::Error {
    let what = format!("{len} bytes are needed, and there are {left} bytes of {whose}");
    io::Error::new(io::ErrorKind::OutOfMemory, what)
}

/// The narrowest of all limits, and whose it is.
fn least() -> (u64, &'static str) {
    let machine = Machine::read();
    let mut least = (machine.available, "memory available on this machine");
    for left in group_rooms(&machine) {
        if left < least.0 {
            least = (left, "memory left in the control group of this process");
        }
    }
    least
}

#[derive(Debug)]
struct Machine {
    /// Free memory, what can be freed, and free swap.
    available: u64,
    free_swap: u64,
}

impl Machine {
    fn read() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            kilobytes.map(|kilobytes: u64| kilobytes.saturating_mul(1024))
        };
        let free_swap = field("SwapFree:").unwrap_or(0);
        let memory = field("MemAvailable:").unwrap_or(u64::MAX);
        Self { available: memory.saturating_add(free_swap), free_swap }
    }
}

/// The names that a version of control groups has for the same things.
#[derive(Debug)]
struct Names {
    limit: &'static str,
    used: &'static str,
    swap_limit: &'static str,
    swap_used: &'static str,
    file_prefix: &'static str,
}

const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    swap_limit: "",
    swap_used: "",
    file_prefix: "total_",
};

const VERSION_2: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    swap_limit: "memory.swap.max",
    swap_used: "memory.swap.current",
    file_prefix: "",
};

/// What is left in the control group of this process, and in each of those around it.
fn group_rooms(machine: &Machine) -> Vec<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut rooms = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, names) = if controllers.is_empty() {
            (version_2_root(), &VERSION_2)
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (PathBuf::from("/sys/fs/cgroup/memory"), &VERSION_1)
        } else {
            continue;
        };
        let group = root.join(path.trim_start_matches('/'));
        // In a container the path may be that of the host; then its root is what is visible.
        let inside = group.ancestors().take_while(|group| group.starts_with(&root));
        rooms.extend(inside.filter_map(|group| room_of(group, names, machine)));
    }
    rooms
}

/// Version 2 is mounted at a place of its own where version 1 is used, too.
fn version_2_root() -> PathBuf {
    let unified = PathBuf::from("/sys/fs/cgroup/unified");
    if unified.is_dir() { unified } else { PathBuf::from("/sys/fs/cgroup") }
}

fn room_of(group: &Path, names: &Names, machine: &Machine) -> Option<u64> {
    let number = |name: &str| {
        fs::read_to_string(group.join(name)).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    // `max`, which is no number, is no limit, nor is what version 1 says instead of it.
    let limit = number(names.limit).filter(|limit| *limit < u64::MAX / 4)?;
    let free = limit.saturating_sub(number(names.used)?);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files = ["inactive_file", "active_file"].iter().filter_map(|name| {
        let name = format!("{}{name} ", names.file_prefix);
        stat.lines().find_map(|line| line.strip_prefix(name.as_str())?.parse::<u64>().ok())
    });
    let swap = match (number(names.swap_limit), number(names.swap_used)) {
        (Some(limit), Some(used)) => limit.saturating_sub(used).min(machine.free_swap),
        _ => machine.free_swap,
    };
    Some(free.saturating_add(files.sum()).saturating_add(swap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_pass_and_impossible_ones_name_both_numbers() {
        check(SMALL).expect("small");
        check(SMALL + 1).expect("this machine has more");
        let error = check(1 << 50).expect_err("a petabyte");
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        let text = error.to_string();
        assert!(text.contains(&(1u64 << 50).to_string()) && text.contains("memory"), "{text}");
    }

    #[test]
    fn a_group_has_what_its_limit_leaves_and_what_can_be_freed() {
        let group = std::env::temp_dir().join(format!("multiproc-group-{}", std::process::id()));
        fs::create_dir_all(&group).expect("a directory");
        let write = |name: &str, text: &str| fs::write(group.join(name), text).expect("a file");
        let machine = Machine { available: 1 << 40, free_swap: 7 };
        write("memory.max", "max\n");
        write("memory.current", "600\n");
        assert_eq!(room_of(&group, &VERSION_2, &machine), None);
        write("memory.max", "1000\n");
        write("memory.stat", "anon 500\ninactive_file 20\nactive_file 3\n");
        assert_eq!(room_of(&group, &VERSION_2, &machine), Some(400 + 23 + 7));
        write("memory.swap.max", "5\n");
        write("memory.swap.current", "1\n");
        assert_eq!(room_of(&group, &VERSION_2, &machine), Some(400 + 23 + 4));
        write("memory.limit_in_bytes", "900\n");
        write("memory.usage_in_bytes", "1000\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 4\n");
        assert_eq!(room_of(&group, &VERSION_1, &machine), Some(34 + 7));
        fs::remove_dir_all(&group).expect("removed");
    }
}
