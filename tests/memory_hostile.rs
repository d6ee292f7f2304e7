//! Peers that lie about objects, or write garbage over them: errors or wrong values for the others,
//! never a crash, never a hang.

mod common;

use common::{wait_until, watchdog};
use multiproc::{
    Array, AtomicValue, FrozenVec, Process, RawArray, RawValue, ShareableList, SharedMemory,
    SharedVec, Value,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

// --- Forged handles -----------------------------------------------------------------------------

/// Is encoded as an `A`, with the numbers after the handle exchanged, and decoded as a `B`.
enum Forged<A, B> {
    Made(A, Vec<u64>),
    Got(PhantomData<B>),
}

impl<A: Serialize, B> Serialize for Forged<A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self::Made(made, numbers) = self else {
            return Err(serde::ser::Error::custom("not made here"));
        };
        if numbers.is_empty() {
            return made.serialize(serializer);
        }
        // The handle comes first; it is noted for this message while the real value is encoded.
        let bytes = postcard::to_allocvec(made).expect("encoded");
        let uid: u64 = postcard::from_bytes(&bytes).expect("the number of the object");
        match numbers.as_slice() {
            [a, b] => (uid, a, b).serialize(serializer),
            [a, b, c] => (uid, a, b, c).serialize(serializer),
            _ => Err(serde::ser::Error::custom("two or three")),
        }
    }
}

impl<'de, A, B: Deserialize<'de>> Deserialize<'de> for Forged<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        B::deserialize(deserializer).map(|_| Self::Got(PhantomData))
    }
}

/// Sends a forged handle as a result; returns what the receiver says.
fn refused<A, B>(make: impl Fn() -> (A, Vec<u64>) + Copy + Send + Sync + 'static) -> String
where
    A: Serialize + 'static,
    B: DeserializeOwned + 'static,
{
    let forge = move || {
        let (made, numbers) = make();
        Forged::<A, B>::Made(made, numbers)
    };
    match Process::spawn(forge, ()).expect("spawn").join() {
        Ok(_) => panic!("{} was taken for {}", name::<A>(), name::<B>()),
        Err(error) => {
            assert!(error.is_decode(), "{error}");
            error.to_string()
        }
    }
}

fn name<T>() -> &'static str {
    std::any::type_name::<T>()
}

fn bytes() -> FrozenVec<u8> {
    FrozenVec::try_from([1u8; 100]).expect("memory")
}

#[test]
fn lengths_that_lie_are_refused() {
    watchdog();
    const HUGE: u64 = u64::MAX;
    refused::<_, FrozenVec<u8>>(|| (bytes(), vec![100, 0, 101]));
    refused::<_, FrozenVec<u8>>(|| (bytes(), vec![100, HUGE, 2]));
    refused::<_, FrozenVec<u8>>(|| (bytes(), vec![100, 2, HUGE]));
    refused::<_, FrozenVec<u8>>(|| (bytes(), vec![1 << 30, 0, 1 << 30]));
    refused::<_, FrozenVec<u8>>(|| (bytes(), vec![HUGE, 0, 1]));
    refused::<_, FrozenVec<u8>>(|| (bytes(), vec![0, 0, 0]));
    refused::<_, FrozenVec<u64>>(|| (bytes(), vec![100, 0, 13]));
    refused::<_, FrozenVec<u64>>(|| (bytes(), vec![100, 0, 1 << 61]));
    refused::<_, SharedVec<u64>>(|| (bytes(), vec![100, 13]));
    refused::<_, SharedVec<u64>>(|| (bytes(), vec![100, 1 << 61]));
    refused::<_, SharedVec<u8>>(|| (bytes(), vec![1 << 40, 1 << 40]));
}

#[test]
fn handles_of_another_kind_or_type_are_refused() {
    watchdog();
    let text = refused::<_, Value<u64>>(|| (RawValue::new(1u64).expect("memory"), vec![]));
    assert!(text.contains("no Value"), "{text}");
    refused::<_, RawValue<u64>>(|| (Value::new(1u64).expect("memory"), vec![]));
    refused::<_, Value<[u8; 16]>>(|| (Value::new(1u64).expect("memory"), vec![]));
    refused::<_, Array<u64>>(|| (Array::<u32>::zeroed(9).expect("memory"), vec![]));
    refused::<_, Value<u64>>(|| (Array::<u64>::zeroed(0).expect("memory"), vec![]));
    refused::<_, RawArray<u16>>(|| (RawArray::<u8>::zeroed(9).expect("memory"), vec![]));
    refused::<_, RawValue<u8>>(|| (RawArray::<u8>::zeroed(0).expect("memory"), vec![]));
    refused::<_, AtomicValue<f64>>(|| (AtomicValue::new(1u64).expect("memory"), vec![]));
    refused::<_, AtomicValue<bool>>(|| (bytes(), vec![100, 0, 1]));
    // Memory that is not sealed against writing is nothing to make slices of.
    refused::<_, FrozenVec<u8>>(|| (Array::<u8>::zeroed(9).expect("memory"), vec![9, 0, 9]));
    refused::<_, SharedVec<u8>>(|| (RawValue::new(1u8).expect("memory"), vec![9, 9]));
    refused::<_, FrozenVec<u8>>(|| {
        (SharedMemory::create_unique(100).expect("create"), vec![9, 0, 9])
    });
    refused::<_, ShareableList>(|| (SharedMemory::create_unique(100).expect("create"), vec![]));
    refused::<_, SharedMemory>(|| (ShareableList::create_unique([1]).expect("create"), vec![]));
}

// --- Garbage ------------------------------------------------------------------------------------

/// The objects of this process whose files are named like `name`.
fn objects(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("fds").flatten();
    let is_one = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(name))
    };
    entries.map(|entry| entry.path()).filter(is_one).collect()
}

/// Maps these files, and writes garbage over all their words from byte `from` on until it is
/// killed.
fn scribble(files: &[PathBuf], from: usize, beats: &AtomicValue<u64>) {
    let map = |path: &PathBuf| -> &'static [AtomicU64] {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
        let len = file.metadata().expect("metadata").len() as usize;
        // SAFETY: a new mapping at an address of the kernel's choice, never unmapped, seen as
        // words that are only accessed atomically.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED;
            let start = libc::mmap(std::ptr::null_mut(), len, access, flags, file.as_raw_fd(), 0);
            assert_ne!(start, libc::MAP_FAILED);
            std::slice::from_raw_parts(start.cast(), len / 8)
        }
    };
    let targets: Vec<_> = files.iter().map(map).collect();
    assert!(!targets.is_empty(), "no object to write to");
    let mut dice = 88172645463325252u64;
    loop {
        for word in targets.iter().flat_map(|words| &words[from / 8..]) {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let garbage = match dice % 5 {
                0 => 0,
                1 => u64::MAX,
                2 => dice >> 40,
                _ => dice,
            };
            word.store(garbage, Ordering::Relaxed);
        }
        beats.fetch_add(1);
    }
}

/// Runs `use_it` again and again while a child scribbles.
fn under_fire<H>(
    handle: H,
    child: impl Fn(H, AtomicValue<u64>) + Copy + Send + Sync + 'static,
    use_it: impl Fn(&H),
) where
    H: Clone + Serialize + DeserializeOwned + 'static,
{
    let beats = AtomicValue::new(0u64).expect("memory");
    let scribbler = move |handle: H, beats: AtomicValue<u64>| child(handle, beats);
    let arguments = (handle.clone(), beats.clone());
    let mut process = Process::spawn(scribbler, arguments).expect("spawn");
    wait_until("it scribbles", || {
        assert!(process.is_alive(), "it has ended");
        beats.get() > 10
    });
    for _ in 0..2000 {
        use_it(&handle);
    }
    process.kill().expect("kill");
    process.join().expect_err("it was killed");
    use_it(&handle);
}

fn file(name: &str) -> Vec<PathBuf> {
    vec![PathBuf::from(format!("/dev/shm/multiproc.{name}"))]
}

#[test]
fn values_and_arrays_survive_garbage_in_their_locks_and_data() {
    watchdog();
    let value = Value::new([1u64; 4]).expect("memory");
    under_fire(
        value,
        |_, beats| scribble(&objects("multiproc-mutex"), 64, &beats),
        |value| {
            // With the news, or without: there is a value, some value.
            let _ = value.get();
            let _ = value.update(|value| value[0] = 1);
            let _ = value.try_lock().map(|guard| guard.map(|guard| guard[3]));
        },
    );
    let array = Array::<u16>::zeroed(1000).expect("memory");
    under_fire(
        array,
        |_, beats| scribble(&objects("multiproc-array"), 0, &beats),
        |array| {
            assert_eq!(array.len(), 1000, "the length lives here");
            let _ = array.get(999);
            let _ = array.set(0, 1);
            assert!(array.to_vec().map_or(1000, |elements| elements.len()) == 1000);
        },
    );
}

#[test]
fn raw_and_atomic_values_are_some_value_whatever_is_written_there() {
    watchdog();
    under_fire(
        RawArray::<[u8; 3]>::zeroed(100).expect("memory"),
        |_, beats| scribble(&objects("multiproc-raw-array"), 0, &beats),
        |array| {
            assert_eq!((array.to_vec().len(), array.iter().count()), (100, 100));
            array.set(99, [1; 3]).expect("inside");
        },
    );
    under_fire(
        AtomicValue::new(true).expect("memory"),
        |_, beats| scribble(&objects("multiproc-atomic"), 64, &beats),
        |flag| {
            // The bool is a bool: it selects one of two.
            let which = ["no", "yes"][usize::from(flag.get())];
            assert!(which == "no" || flag.fetch_or(true) || !which.is_empty());
        },
    );
    let small = AtomicValue::new(0u8).expect("memory");
    small.fetch_update(|_| Some(3)).expect("changed");
    assert_eq!(small.compare_exchange(3, 4), Ok(3));
}

#[test]
fn a_list_survives_garbage_in_all_of_its_memory() {
    watchdog();
    let list = ShareableList::create_unique(["some text", "more text", ""]).expect("create");
    under_fire(
        list,
        |list, beats| scribble(&file(list.name()), 4096, &beats),
        |list| {
            for index in 0..3 {
                // A value, or the error that says that it is damaged.
                let _ = list.get(index);
                let _ = list.set(index, "x");
            }
            let _ = list.count("x");
            let _ = ShareableList::open(list.name());
        },
    );
}

#[test]
fn a_header_full_of_garbage_is_refused_and_swept_around() {
    watchdog();
    let memory = SharedMemory::create_unique(10_000).expect("create");
    under_fire(
        memory.clone(),
        |memory, beats| scribble(&file(memory.name()), 0, &beats),
        |memory| {
            let mut all = vec![0; 10_000];
            memory.read_at(0, &mut all).expect("the length lives here");
            let _ = SharedMemory::open(memory.name());
            let _ = SharedMemory::open_read_only(memory.name());
        },
    );
    assert_eq!(memory.len(), 10_000);
    memory.unlink().expect("unlink");
}
