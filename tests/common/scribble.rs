//! A peer that writes random words all over an object, while others use it.

use super::sync::start;
use super::{PATIENCE, watchdog};
use multiproc::{Event, Process, Semaphore};
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long each type is under fire.
const FIRE: Duration = Duration::from_millis(400);

/// The mappings of objects of this kind in this process.
fn mappings(kind: &str) -> Vec<Range<usize>> {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let of_kind = maps.lines().filter(|line| line.contains(&format!("memfd:{kind} ")));
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    of_kind.filter_map(range).collect()
}

/// Tells that the fire has begun, by an object of another kind than the one under fire.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
enum Ready {
    Event(Event),
    Semaphore(Semaphore),
}

impl Ready {
    fn new(kind: &str) -> Self {
        match kind {
            "multiproc-event" => Self::Semaphore(Semaphore::new(0).unwrap()),
            _ => Self::Event(Event::new().unwrap()),
        }
    }

    fn tell(&self) {
        match self {
            Self::Event(event) => event.set(),
            Self::Semaphore(semaphore) => semaphore.release(1).unwrap(),
        }
    }

    fn wait(&self) {
        assert!(match self {
            Self::Event(event) => event.wait_timeout(PATIENCE),
            Self::Semaphore(semaphore) => semaphore.acquire_raw_timeout(PATIENCE).unwrap(),
        });
    }
}

/// Writes random words over the object until it is killed: the handle keeps it mapped.
fn scribble<H>(handle: H, kind: String, ready: Ready) {
    let ranges = mappings(&kind);
    assert_eq!(ranges.len(), 1, "the object is mapped once");
    let words = (ranges[0].len() / 8) as u64;
    ready.tell();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    loop {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Half of the time the first words, where the protocols are.
        let index = match random & 3 {
            0 => random >> 8 & 31,
            1 => (random >> 8) % words.min(256),
            _ => (random >> 8) % words,
        };
        // Sometimes a word that means something.
        let value = match random >> 60 {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => 1 << 31 | 1,
            4 => random & 0xff,
            5 => u64::from(std::process::id()),
            _ => random.rotate_left(17),
        };
        // SAFETY: inside the mapping of the object, which `handle` keeps; all access it atomically.
        unsafe { AtomicU64::from_ptr((ranges[0].start + 8 * index as usize) as *mut u64) }
            .store(value, Ordering::Relaxed);
        std::hint::black_box(&handle);
    }
}

/// Uses an object for a while that another process scribbles over.
#[track_caller]
pub fn under_fire<H>(handle: &H, kind: &str, mut act: impl FnMut(&H))
where
    H: multiproc::Data + Clone,
{
    watchdog();
    let ready = Ready::new(kind);
    let mut process: Process<()> =
        start(scribble::<H>, (handle.clone(), kind.to_owned(), ready.clone()));
    ready.wait();
    let begin = Instant::now();
    loop {
        act(handle);
        if begin.elapsed() >= FIRE {
            break;
        }
    }
    assert!(process.is_alive(), "it scribbles still");
    process.kill().expect("kill");
    assert!(process.join().is_err());
}
