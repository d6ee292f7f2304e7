//! `SharedMemory`: memory with a name, between programs that are not related.

mod common;

use common::{wait_until, watchdog};
use multiproc::{Pool, Process, SharedMemory, Stdio};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/multiproc.{name}"))
}

/// A name of this test in this run.
fn name(what: &str) -> String {
    format!("test-{what}-{}", std::process::id())
}

#[test]
fn another_process_opens_it_by_its_name() {
    watchdog();
    let memory = SharedMemory::create(&name("open"), 10_000).expect("create");
    assert_eq!((memory.len(), memory.is_writable()), (10_000, true));
    let talk = |name: String| {
        let memory = SharedMemory::open(&name).expect("open");
        let mut text = [0; 4];
        memory.read_at(9_996, &mut text).expect("inside");
        memory.write_at(0, b"pong").expect("inside");
        memory.atomic_u64(8).expect("inside").fetch_add(5, Ordering::SeqCst);
        memory.write(16, 6u32).expect("inside");
        (text, memory.len())
    };
    memory.write_at(9_996, b"ping").expect("inside");
    let arguments = (memory.name().to_owned(),);
    let (text, len) = Process::spawn(talk, arguments).expect("spawn").join().expect("join");
    assert_eq!((&text, len), (b"ping", 10_000));
    assert_eq!(memory.read::<[u8; 4]>(0).expect("inside"), *b"pong");
    assert_eq!(memory.read::<u64>(8).expect("inside"), 5);
    assert_eq!(memory.read::<u32>(16).expect("inside"), 6);
    // SAFETY: nobody writes to the memory or truncates the file any more.
    assert_eq!(unsafe { &memory.as_slice()[..4] }, b"pong");
}

#[test]
fn the_name_goes_with_the_creators_last_handle() {
    watchdog();
    let name = name("drop");
    let memory = SharedMemory::create(&name, 1).expect("create");
    let clone = memory.clone();
    let opened = SharedMemory::open(&name).expect("open");
    drop(memory);
    assert!(path(&name).exists());
    drop(SharedMemory::open(&name).expect("open"));
    assert!(path(&name).exists(), "who only opened it removes nothing");
    drop(clone);
    assert!(!path(&name).exists());
    let error = SharedMemory::open(&name).expect_err("gone");
    assert!(error.is_invalid_input() && error.to_string().contains(&name), "{error}");
    opened.write(0, 7u8).expect("who has it, keeps it");
    // The name is free again, and the old handle does not remove the new one.
    let _again = SharedMemory::create(&name, 1).expect("create");
    assert!(!opened.unlink().expect("another file"));
    assert!(path(&name).exists());
}

#[test]
fn kept_memory_outlives_its_creator_until_it_is_unlinked() {
    watchdog();
    let name = name("keep");
    let create = |name: String| {
        let memory = SharedMemory::create(&name, 100).expect("create");
        memory.write(0, 42u64).expect("inside");
        memory.keep().expect("writable");
    };
    Process::spawn(create, (name.clone(),)).expect("spawn").join().expect("join");
    assert!(!SharedMemory::sweep().expect("sweep").contains(&name), "kept");
    let memory = SharedMemory::open(&name).expect("it is still there");
    assert_eq!(memory.read::<u64>(0).expect("inside"), 42);
    assert!(memory.unlink().expect("unlink") && !memory.unlink().expect("unlink"));
    assert!(!path(&name).exists());
}

#[test]
fn what_a_killed_creator_leaves_is_swept_and_nothing_else() {
    watchdog();
    let name = name("sweep");
    let create = |name: String| {
        let _memory = SharedMemory::create(&name, 5000).expect("create");
        println!("created");
        loop {
            std::thread::park();
        }
    };
    let builder = Process::builder(create, (name.clone(),)).stdout(Stdio::Piped);
    let mut process: Process<()> = builder.spawn().expect("spawn");
    process.stdout.as_mut().expect("piped").read_exact(&mut [0; 8]).expect("created");
    let alive = SharedMemory::create(&format!("{name}-alive"), 1).expect("create");
    let swept = SharedMemory::sweep().expect("sweep");
    assert!(!swept.contains(&name), "its creator lives");
    let open = SharedMemory::open(&name).expect("its creator lives");
    process.kill().expect("kill");
    process.join().expect_err("killed");
    // Another test may sweep at the same time: then it is that one's.
    wait_until("it is swept", || {
        SharedMemory::sweep().expect("sweep");
        !path(&name).exists()
    });
    open.write(0, 1u8).expect("who has it open, keeps it");
    assert!(path(alive.name()).exists());
}

#[test]
fn a_sweep_touches_nothing_that_was_not_made_here() {
    watchdog();
    let name = name("foreign");
    let foreign = path(&name);
    std::fs::write(&foreign, vec![0; 10_000]).expect("write");
    let link = path(&format!("{name}-link"));
    std::os::unix::fs::symlink(&foreign, &link).expect("symlink");
    let pipe = path(&format!("{name}-pipe"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    SharedMemory::sweep().expect("sweep");
    for file in [&foreign, &link, &pipe] {
        assert!(file.symlink_metadata().is_ok(), "{}", file.display());
        let name = file.file_name().expect("a name").to_str().expect("UTF-8");
        let error = SharedMemory::open(name.trim_start_matches("multiproc."));
        assert!(error.expect_err("none of ours").is_os());
        std::fs::remove_file(file).expect("remove");
    }
}

#[test]
fn reading_only_is_for_reading_only() {
    watchdog();
    let memory = SharedMemory::create_unique(64).expect("create");
    memory.write(8, -5i64).expect("inside");
    let look = |name: String| {
        let memory = SharedMemory::open_read_only(&name).expect("open");
        assert!(!memory.is_writable());
        let errors = [
            memory.write_at(0, b"x").expect_err("read only").to_string(),
            memory.atomic_u64(0).map(|_| ()).expect_err("read only").to_string(),
            memory.keep().expect_err("read only").to_string(),
            // SAFETY: no slice comes of it.
            unsafe { memory.as_mut_slice() }.map(|_| ()).expect_err("read only").to_string(),
        ];
        (memory.read::<i64>(8).expect("inside"), errors.to_vec())
    };
    let arguments = (memory.name().to_owned(),);
    let (seen, errors) = Process::spawn(look, arguments).expect("spawn").join().expect("join");
    assert_eq!(seen, -5);
    assert!(errors.iter().all(|error| error.contains("reading only")), "{errors:?}");
    // SAFETY: nobody else accesses the memory while this slice lives.
    unsafe { memory.as_mut_slice() }.expect("writable")[0] = 3;
    assert_eq!(memory.read::<u8>(0).expect("inside"), 3);
}

#[test]
fn wrong_arguments_are_errors_that_name_them() {
    watchdog();
    for name in ["", "a/b", "../x", "nul\0", &"x".repeat(246)] {
        let errors = [
            SharedMemory::create(name, 1).expect_err("a wrong name"),
            SharedMemory::open(name).expect_err("a wrong name"),
        ];
        for error in errors {
            assert!(error.is_invalid_input() && error.to_string().contains("name"), "{error}");
        }
    }
    assert!(SharedMemory::create_unique(0).expect_err("no bytes").is_invalid_input());
    assert!(SharedMemory::create_unique(1 << 50).expect_err("too much").is_out_of_memory());
    assert!(SharedMemory::create_unique(usize::MAX).expect_err("too much").is_out_of_memory());
    // Of this run: another one on this machine has another.
    let longest = format!("{:x<245}", name("longest"));
    let memory = SharedMemory::create(&longest, 16).expect("the longest name");
    for at in [9, 16, 17, usize::MAX] {
        let error = memory.read::<u64>(at).expect_err("outside");
        assert!(error.is_invalid_input() && error.to_string().contains("16 bytes"), "{error}");
        assert!(memory.write(at, 1u64).is_err() && memory.atomic_u64(at).is_err());
    }
    let error = memory.atomic_u64(4).expect_err("not aligned");
    assert!(error.to_string().contains("multiple of 8"), "{error}");
    memory.read::<u64>(8).expect("the last eight");
}

#[test]
fn a_name_is_taken_once_whoever_is_first() {
    watchdog();
    let create = |name: String| SharedMemory::create(&name, 8).map(|memory| memory.keep()).is_ok();
    let pool = Pool::builder().workers(2).build().expect("pool");
    for round in 0..10 {
        let name = name(&format!("race-{round}"));
        let made = pool.map(create, vec![name.clone(); 4]).expect("map");
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        let error = SharedMemory::create(&name, 8).expect_err("taken");
        assert!(error.is_invalid_input() && error.to_string().contains("exists"), "{error}");
        assert!(SharedMemory::open(&name).expect("open").unlink().expect("unlink"));
    }
}

#[test]
fn it_is_an_argument_and_a_result_too() {
    watchdog();
    let pool = Pool::builder().workers(1).build().expect("pool");
    let memory = SharedMemory::create_unique(100).expect("create");
    let change = |memory: SharedMemory| {
        memory.write(0, 9u16).expect("inside");
        memory
    };
    let back = pool.apply(change, (memory.clone(),)).expect("apply");
    assert_eq!((back.name(), back.read::<u16>(0).expect("inside")), (memory.name(), 9));
    let reader = SharedMemory::open_read_only(memory.name()).expect("open");
    let may = |memory: SharedMemory| (memory.is_writable(), memory.write(0, 1u8).is_err());
    assert_eq!(pool.apply(may, (reader,)).expect("apply"), (false, true));
    drop(back);
    pool.terminate();
    assert!(path(memory.name()).exists(), "the workers removed nothing");
}

#[test]
fn a_forked_child_does_not_remove_what_its_parent_created() {
    watchdog();
    let child = |name: String| {
        let memory = SharedMemory::create(&name, 8).expect("create");
        let inherited = memory.clone();
        let forked = Process::fork(move || {
            inherited.write(0, 77u8).expect("inside");
            drop(inherited);
        });
        // SAFETY: the other threads of a child wait in system calls.
        let risk = unsafe { multiproc::ForkRisk::accept() };
        forked.fork_with_threads(risk).spawn().expect("fork").join().expect("join");
        (path(&name).exists(), memory.read::<u8>(0).expect("inside"))
    };
    let name = name("fork");
    let mut process = Process::spawn(child, (name.clone(),)).expect("spawn");
    assert_eq!(process.join().expect("join"), (true, 77));
    assert!(!path(&name).exists());
}

#[test]
fn a_program_that_is_killed_while_it_creates_leaves_nothing() {
    watchdog();
    let prefix = name("killed");
    let create = |prefix: String| {
        println!("!");
        let _ = std::io::stdout().flush();
        for number in 0.. {
            let memory = SharedMemory::create(&format!("{prefix}-{number}"), 1 << 20);
            drop(memory.expect("create"));
        }
    };
    for round in 0..20 {
        let builder = Process::builder(create, (prefix.clone(),)).stdout(Stdio::Piped);
        let mut process: Process<()> = builder.spawn().expect("spawn");
        process.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("it runs");
        for _ in 0..round * 50 {
            std::hint::black_box(std::fs::metadata("/dev/shm").expect("there"));
        }
        process.kill().expect("kill");
        process.join().expect_err("killed");
    }
    // Whatever has a name is whole, and so the sweep knows it.
    let left = || {
        let files = std::fs::read_dir("/dev/shm").expect("/dev/shm").flatten();
        let ours = |name: std::ffi::OsString| name.to_string_lossy().contains(&prefix);
        files.filter(|file| ours(file.file_name())).count()
    };
    wait_until("all is swept", || {
        SharedMemory::sweep().expect("sweep");
        left() == 0
    });
}
