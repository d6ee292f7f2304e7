//! Workers that do not keep the protocol: the parent neither panics nor hangs, believes nothing,
//! and the other workers' tasks do not notice.

#[path = "common/events.rs"]
mod common;

use common::{Dice, Watchdog, wait_until};
use multiproc::Pool;
use std::fs;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

/// Where the parts of the board are; see `src/shm/board.rs`.
const CLAIM: usize = 0;
const PROGRESS: usize = 64;
const PARKED: usize = 192;
const RESULT_HEAD: usize = 256;
const BELL: usize = 320;
const RING: usize = 4096;
const RING_LEN: u64 = 256 * 1024;

/// The shared, writable mapping of this worker's board: address and length.
fn board() -> (*mut u8, usize) {
    /// Found once: the first call in a worker.
    static FOUND: OnceLock<(usize, usize)> = OnceLock::new();
    let (start, len) = *FOUND.get_or_init(find_board);
    (start as *mut u8, len)
}

fn find_board() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps
        .lines()
        .find(|line| line.contains("memfd:multiproc-board") && line.contains("rw-s"))
        .expect("the board is mapped");
    let range = line.split(' ').next().expect("a range");
    let (start, end) = range.split_once('-').expect("two addresses");
    let parse = |text| usize::from_str_radix(text, 16).expect("an address");
    (parse(start), parse(end) - parse(start))
}

/// Overwrites bytes of the board with random ones.
fn scribble(dice: &mut Dice, from: usize, len: usize) {
    let (start, size) = board();
    for at in from..(from + len).min(size) {
        // SAFETY: inside the mapping, which is writable; that its contents make no sense
        // afterwards is what this is for.
        unsafe { start.add(at).write_volatile(dice.roll() as u8) };
    }
}

fn write_word(at: usize, word: u64) {
    let (start, _) = board();
    // SAFETY: as in `scribble`; the word is aligned.
    unsafe { start.add(at).cast::<u64>().write_volatile(word) };
}

fn read_word(at: usize) -> u64 {
    let (start, _) = board();
    // SAFETY: inside the mapping, and aligned.
    unsafe { start.add(at).cast::<u64>().read_volatile() }
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A pool whose tasks may hang for a while before they are given up: a worker that has ruined its
/// own board may wait for what never comes.
fn pool() -> Pool {
    Pool::builder()
        .workers(2)
        .core_limit(0)
        .task_timeout(Duration::from_secs(3))
        .build()
        .expect("pool")
}

/// One whose tasks have all the time that they need: what ends them is not the clock.
fn patient_pool() -> Pool {
    Pool::builder().workers(2).core_limit(0).build().expect("pool")
}

fn honest(x: u64) -> u64 {
    x + 1
}

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("statm");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

/// Runs a hostile task among honest ones, again and again. The honest ones all succeed, unless
/// they were given to the hostile worker before it was found out; those are told of its death.
fn among_honest_ones<F>(pool: &Pool, rounds: u64, hostile: F)
where
    F: Fn(u64) -> u64 + Copy + Send + Sync + 'static,
{
    let before = resident_bytes();
    for round in 0..rounds {
        let attack = pool.apply_async(hostile, (round,)).expect("submit");
        let results: Vec<_> =
            (0..50).map(|x| pool.apply_async(honest, (x,)).expect("submit")).collect();
        for (x, result) in results.into_iter().enumerate() {
            match result.get() {
                Ok(value) => assert_eq!(value, x as u64 + 1),
                Err(error) => {
                    assert!(error.is_worker_died() || error.is_timeout(), "{error:?}");
                }
            }
        }
        // Whatever it is: an outcome.
        let _ = attack.get();
    }
    wait_until("the pool has two workers", || pool.worker_pids().len() == 2);
    let values = pool.map(honest, 0..200).or_else(|_| pool.map(honest, 0..200));
    assert_eq!(values.expect("the pool has healed"), (1..=200).collect::<Vec<_>>());
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 512 << 20, "the parent grew by {grown} bytes");
}

macro_rules! scribbles {
    ($($name:ident: $from:expr, $len:expr;)*) => {$(
        #[test]
        fn $name() {
            let _dog = Watchdog::new(stringify!($name));
            among_honest_ones(&pool(), 12, |seed| {
                scribble(&mut Dice::new(seed), $from, $len);
                seed
            });
            // And a worker that stays, so that the parent meets the garbage while it lives.
            among_honest_ones(&pool(), 2, |seed| {
                scribble(&mut Dice::new(seed + 1000), $from, $len);
                forever()
            });
        }
    )*};
}

scribbles! {
    garbage_all_over_the_board_harms_nobody_else: 0, usize::MAX / 2;
    a_garbage_claim_word_harms_nobody_else: CLAIM, 8;
    a_garbage_progress_word_harms_nobody_else: PROGRESS, 8;
    a_garbage_parking_word_harms_nobody_else: PARKED, 4;
    a_garbage_result_head_harms_nobody_else: RESULT_HEAD, 8;
    a_garbage_bell_harms_nobody_else: BELL, 4;
    garbage_headers_harm_nobody_else: RING, 256 * 1024;
}

#[test]
fn a_claim_word_in_the_middle_of_its_frame_harms_nobody_else() {
    let _dog = Watchdog::new("claim in the middle");
    among_honest_ones(&pool(), 30, |seed| {
        let word = read_word(CLAIM);
        let mut dice = Dice::new(seed);
        // Frames a little before and after, items a little too many: plausible lies.
        let frame = (word >> 32).wrapping_add(dice.below(4)).wrapping_sub(2) & 0xffff_ffff;
        write_word(CLAIM, frame << 32 | dice.below(4));
        seed
    });
}

/// The place of word `index` of the record that this worker publishes next. While it runs an item
/// of a frame of its own, the parent has collected all that came before.
fn record_word(index: u64) -> usize {
    RING + ((read_word(RESULT_HEAD) + 8 * index) % RING_LEN) as usize
}

/// Publishes records that look right, with lies in the fields.
#[test]
fn forged_records_harm_nobody_else() {
    let _dog = Watchdog::new("forged records");
    among_honest_ones(&pool(), 40, |seed| {
        let mut dice = Dice::new(seed);
        let kind = 1 + dice.below(7);
        let frame = (read_word(CLAIM) >> 32).wrapping_sub(1) & 0xffff_ffff;
        write_word(record_word(1), frame.wrapping_add(dice.below(2)) | dice.below(2) << 32);
        write_word(record_word(2), dice.below(3));
        write_word(record_word(0), kind << 32 | dice.below(70_000));
        seed
    });
}

/// A ring full of wrap records must not keep its reader busy for ever.
#[test]
fn endless_wraps_are_refused() {
    let _dog = Watchdog::new("endless wraps");
    among_honest_ones(&pool(), 2, |_| {
        loop {
            for word in 0..RING_LEN as usize / 8 {
                write_word(RING + 8 * word, 4 << 32);
            }
        }
    });
}

/// The number of the control socket.
fn control() -> i32 {
    (3..64)
        .find(|fd| {
            let target = fs::read_link(format!("/proc/self/fd/{fd}"));
            target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        })
        .expect("the control socket is open")
}

fn send(fd: i32, bytes: &[u8], fds: &[i32], wait: bool) -> bool {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let rights = [ControlMessage::ScmRights(fds)];
    let rights: &[_] = if fds.is_empty() { &[] } else { &rights };
    let flags = if wait { MsgFlags::MSG_NOSIGNAL } else { MsgFlags::MSG_DONTWAIT };
    sendmsg::<()>(fd, &[IoSlice::new(bytes)], rights, flags, None).is_ok()
}

#[test]
fn random_messages_harm_nobody_else() {
    let _dog = Watchdog::new("random messages");
    among_honest_ones(&pool(), 20, |seed| {
        let mut dice = Dice::new(seed);
        let fd = control();
        for _ in 0..dice.below(50) {
            let len = dice.below(200);
            let bytes: Vec<u8> = (0..len).map(|_| dice.roll() as u8).collect();
            if !send(fd, &bytes, &[], true) {
                break;
            }
        }
        seed
    });
}

/// Messages that decode, but that a worker does not send, or not then.
#[test]
fn messages_out_of_place_harm_nobody_else() {
    let _dog = Watchdog::new("messages out of place");
    among_honest_ones(&pool(), 20, |seed| {
        let fd = control();
        let tag = (seed % 11) as u8;
        send(fd, &[tag, 0, 0, 0, 0], &[], true);
        // A block of a kind that cannot be mapped, under a plausible number.
        send(fd, &[4, (seed % 4) as u8], &[0], true);
        send(fd, &[4, 255, 255, 255, 255, 15], &[1], true);
        seed
    });
}

#[test]
fn an_oversized_message_is_refused() {
    let _dog = Watchdog::new("oversized message");
    among_honest_ones(&pool(), 5, |seed| {
        send(control(), &vec![0; 100_000], &[], true);
        seed
    });
}

#[test]
fn a_flood_of_rings_harms_nobody_else() {
    let _dog = Watchdog::new("flood");
    among_honest_ones(&pool(), 2, |_| {
        let fd = control();
        while send(fd, &[0], &[], true) {}
        forever()
    });
}

#[test]
fn thousands_of_descriptors_are_refused_and_none_is_kept() {
    let _dog = Watchdog::new("descriptors");
    let scratch = common::Scratch::new();
    let path = scratch.file("sent");
    fs::write(&path, "").expect("write");
    let pool = pool();
    for count in [1, 8, 9, 64, 253] {
        let flood = |count: u64, path: String| {
            let fd = control();
            let file = fs::File::open(path).expect("open");
            let fds = vec![file.as_raw_fd(); count as usize];
            for _ in 0..3000 {
                if !send(fd, &[0], &fds, true) {
                    break;
                }
            }
            // Blocks that are no blocks.
            for _ in 0..3000 {
                if !send(fd, &[4, 0], &fds, true) {
                    break;
                }
            }
            count
        };
        let _ = pool.apply(flood, (count, path.clone()));
        let values = pool.map(honest, 0..100).or_else(|_| pool.map(honest, 0..100));
        assert_eq!(values.expect("healed").len(), 100);
    }
    wait_until("the pool has two workers", || pool.worker_pids().len() == 2);
    let kept = || {
        let all = fs::read_dir("/proc/self/fd").expect("fds").flatten();
        let sent = |to: std::path::PathBuf| to.as_path() == std::path::Path::new(&path);
        all.filter(|entry| fs::read_link(entry.path()).is_ok_and(sent)).count()
    };
    wait_until("no descriptor of a worker's is kept", || kept() == 0);
}

/// A block that claims more than is there, or may shrink, or is none.
#[test]
fn blocks_that_lie_about_their_memory_are_refused() {
    let _dog = Watchdog::new("lying blocks");
    among_honest_ones(&pool(), 6, |seed| {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let file = memfd_create("lie", MFdFlags::MFD_ALLOW_SEALING).expect("memfd");
        let file = fs::File::from(file);
        file.set_len(1 << 40).expect("sparse");
        if seed % 2 == 0 {
            use nix::fcntl::{FcntlArg, SealFlag, fcntl};
            fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).expect("seal");
        }
        send(control(), &[4, 0], &[file.as_raw_fd()], true);
        // A record that says that the result is in block 0 and a terabyte long.
        write_word(record_word(1), (read_word(CLAIM) >> 32).wrapping_sub(1) & 0xffff_ffff);
        write_word(record_word(2), 1);
        write_word(record_word(3), 0);
        write_word(record_word(4), 1 << 40);
        write_word(record_word(0), 3 << 32 | 16);
        forever()
    });
}

/// Objects that no record will ever name.
#[test]
fn objects_without_end_are_refused_and_none_is_kept() {
    let _dog = Watchdog::new("objects without end");
    let scratch = common::Scratch::new();
    let path = scratch.file("sent");
    fs::write(&path, "").expect("write");
    let pool = patient_pool();
    let flood = |path: String| -> u64 {
        let file = fs::File::open(path).expect("open");
        // `Objects` with the numbers 1 and 2.
        while send(control(), &[5, 2, 1, 2], &[file.as_raw_fd(); 2], true) {}
        forever()
    };
    let error = pool.apply(flood, (path.clone(),)).expect_err("it is killed");
    assert!(error.is_worker_died(), "{error}");
    assert_eq!(pool.map(honest, 0..100).expect("healed").len(), 100);
    let is_kept = |entry: fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|to| to == std::path::Path::new(&path))
    };
    let kept = || fs::read_dir("/proc/self/fd").expect("fds").flatten().any(is_kept);
    wait_until("no descriptor of a worker's is kept", || !kept());
}

/// A result that names shared memory, which is not what it should be.
#[test]
fn objects_that_lie_about_their_memory_are_errors_of_that_result() {
    use multiproc::{FrozenVec, SharedVec};
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let _dog = Watchdog::new("lying objects");
    let pool = patient_pool();
    let lie = |seed: u64| {
        let file = memfd_create("lie", MFdFlags::MFD_ALLOW_SEALING).expect("memfd");
        let file = fs::File::from(file);
        // Sparse, too short, or not memory at all; and sealed as it should be, or not.
        file.set_len([1 << 40, 10][(seed % 2) as usize]).expect("length");
        let seals = [
            SealFlag::empty(),
            SealFlag::F_SEAL_SHRINK,
            SealFlag::F_SEAL_WRITE,
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE,
        ];
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals[(seed / 2 % 4) as usize])).expect("seal");
        let fd = if seed == 8 { 0 } else { file.as_raw_fd() };
        // It comes before the true one, under all numbers that that could have.
        for number in 1..100 {
            send(control(), &[5, 1, number], &[fd], true);
        }
        SharedVec::try_from_iter(0..5000u64).and_then(SharedVec::freeze).expect("memory")
    };
    for seed in 0..9 {
        let lied = pool.apply(lie, (seed,)).map(|lied: FrozenVec<u64>| lied.len());
        let error = lied.expect_err("a lie");
        assert!(error.is_decode() || error.is_worker_died(), "{error}");
        assert_eq!(pool.map(honest, 0..100).expect("healed").len(), 100);
    }
}

#[test]
fn a_worker_that_closes_its_socket_and_goes_on_is_replaced() {
    let _dog = Watchdog::new("closed socket");
    let pool = pool();
    among_honest_ones(&pool, 10, |seed| {
        // SAFETY: closing a descriptor touches no memory; its owner finds out the hard way.
        unsafe { libc::close(control()) };
        seed
    });
    wait_until("a worker is replaced", || pool.stats().restarts > 0);
}

#[test]
fn garbage_in_one_worker_does_not_touch_the_task_of_another() {
    let _dog = Watchdog::new("another's task");
    let pool = patient_pool();
    let scratch = common::Scratch::new();
    let (started, go) = (scratch.file("started"), scratch.file("go"));
    let patient = |started: String, go: String| {
        common::raise(&started);
        common::wait_for(&go);
        42_u64
    };
    let result = pool.apply_async(patient, (started.clone(), go.clone())).expect("submit");
    wait_until("it has started", || common::is_raised(&started));
    for seed in 0..10_u64 {
        let attack = |seed: u64| {
            scribble(&mut Dice::new(seed), 0, usize::MAX / 2);
            std::process::abort();
        };
        let _: multiproc::Result<()> = pool.apply(attack, (seed,));
    }
    assert!(!result.ready());
    common::raise(&go);
    assert_eq!(result.get().expect("untouched"), 42);
}
