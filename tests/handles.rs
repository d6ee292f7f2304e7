//! Handles of shared objects on their way: arguments, items, contexts, results, nested and many.

mod common;

use common::{wait_until, watchdog};
use multiproc::manager::List;
use multiproc::{
    Barrier, FrozenVec, Manager, Pipe, PipeSender, Pool, Process, Queue, SharedVec, StartMethod,
};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

fn frozen(numbers: impl IntoIterator<Item = u64>) -> FrozenVec<u64> {
    SharedVec::try_from_iter(numbers).and_then(SharedVec::freeze).expect("memory")
}

fn pool(workers: usize) -> Pool {
    Pool::builder().workers(workers).build().expect("pool")
}

/// How many descriptors of shared vectors a process has, and how many mappings.
fn held(pid: u32) -> (usize, usize) {
    let named = |text: &str| text.contains("multiproc-vec");
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
    (
        links.filter(|link| named(&link.to_string_lossy())).count(),
        maps.lines().filter(|line| named(line)).count(),
    )
}

#[derive(Serialize, Deserialize)]
struct Package {
    name: String,
    parts: BTreeMap<String, FrozenVec<u64>>,
    spare: Option<SharedVec<u8>>,
}

fn package(name: &str) -> Package {
    let parts = [("a".to_owned(), frozen([1, 2])), ("b".to_owned(), frozen([3]))].into();
    Package { name: name.to_owned(), parts, spare: None }
}

fn repack(mut package: Package) -> Package {
    let all = package.parts.values().flat_map(|part| part.iter().copied());
    let all = frozen(all.collect::<Vec<_>>());
    package.parts.insert(package.name.clone(), all);
    package.spare = Some(SharedVec::from_slice(b"spare").expect("memory"));
    package
}

fn check(package: &Package) {
    let all: Vec<u64> = package.parts.values().flat_map(|part| part.to_vec()).collect();
    assert_eq!(all, [1, 2, 3, 1, 2, 3], "{}", package.name);
    assert_eq!(package.spare.as_deref(), Some(&b"spare"[..]));
}

#[test]
fn handles_inside_values_travel_to_a_process_and_back() {
    watchdog();
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let process = Process::builder(repack, (package("z"),)).start_method(method).spawn();
        check(&process.expect("spawn").join().expect("join"));
    }
}

#[test]
fn handles_inside_values_travel_to_a_pool_and_back() {
    watchdog();
    let pool = pool(2);
    check(&pool.apply(repack, (package("z"),)).expect("apply"));
    check(&pool.apply_async(repack, (package("z"),)).expect("apply").get().expect("get"));
    for size in [1, 3, 100] {
        let packages = (0..50).map(|_| package("z"));
        let results = pool.chunks_of(size).expect("size").map(repack, packages).expect("map");
        assert_eq!(results.len(), 50);
        results.iter().for_each(check);
    }
    let results = pool.imap(repack, (0..50).map(|_| package("z"))).expect("imap");
    results.for_each(|result| check(&result.expect("result")));
}

#[test]
fn handles_travel_with_values_of_every_size() {
    watchdog();
    let pool = pool(1);
    for len in [0, 100, 5_000, 70_000, 3_000_000] {
        let back =
            pool.apply(|text: String, v: FrozenVec<u64>| (v, text), ("x".repeat(len), frozen([7])));
        let (v, text) = back.expect("apply");
        assert_eq!((text.len(), &v[..]), (len, &[7][..]));
    }
}

#[test]
fn a_context_and_an_initializer_carry_handles() {
    watchdog();
    static TABLE: OnceLock<FrozenVec<u64>> = OnceLock::new();
    fn set_up(table: FrozenVec<u64>) {
        TABLE.set(table).expect("once");
    }
    let pool = Pool::builder().workers(1).initializer(set_up, (frozen(0..100),)).build();
    let pool = pool.expect("pool");
    let context = (frozen([5, 6]), "x".to_owned());
    let look_up = |(keys, _): &(FrozenVec<u64>, String), index: usize| {
        TABLE.get().expect("set up")[keys[index] as usize]
    };
    assert_eq!(pool.map_with(&context, look_up, [0, 1, 0]).expect("map"), [5, 6, 5]);
    // Also in a worker that takes the place of another.
    let die = || -> u64 { std::process::abort() };
    pool.apply(die, ()).expect_err("it died");
    assert_eq!(pool.map_with(&context, look_up, [1]).expect("map"), [6]);
}

#[test]
fn a_worker_passes_handles_on_to_a_pool_of_its_own() {
    watchdog();
    fn sum(part: FrozenVec<u64>) -> u64 {
        part.iter().sum()
    }
    fn nested(v: FrozenVec<u64>) -> (u64, FrozenVec<u64>) {
        let pool = Pool::builder().workers(1).build().expect("pool");
        let own = frozen([100]);
        let sums = pool.map(sum, [v, own.clone()]).expect("map");
        (sums.iter().sum(), pool.apply(|v: FrozenVec<u64>| v, (own,)).expect("apply"))
    }
    let (total, own) = pool(1).apply(nested, (frozen([1, 2]),)).expect("apply");
    assert_eq!((total, own[0]), (103, 100));
}

#[test]
fn ten_thousand_tasks_with_a_handle_leave_no_descriptor() {
    watchdog();
    let (pool, v) = (pool(1), frozen(0..10));
    let worker = pool.worker_pids()[0];
    let read = |v: FrozenVec<u64>, index: usize| v[index];
    for round in 0..100 {
        let results = pool.starmap(read, (0..100).map(|index| (v.clone(), index % 10)));
        assert_eq!(results.expect("map").iter().sum::<u64>(), 450, "round {round}");
    }
    assert_eq!(held(worker), (1, 1), "sent once, mapped once");
}

#[test]
fn what_the_parent_drops_an_idle_worker_drops_too() {
    watchdog();
    let pool = pool(1);
    let worker = pool.worker_pids()[0];
    let v = frozen(0..1000);
    assert_eq!(pool.apply(|v: FrozenVec<u64>| v[9], (v.clone(),)).expect("apply"), 9);
    let sums = pool.map_with(&v, |v, index: usize| v[index], 0..10).expect("map");
    assert_eq!(sums[9], 9);
    assert_eq!(held(worker), (1, 1));
    drop(v);
    wait_until("the sleeping worker has dropped it", || held(worker) == (0, 0));
}

#[test]
fn what_a_worker_keeps_outlives_the_parents_handle() {
    watchdog();
    static KEPT: OnceLock<FrozenVec<u64>> = OnceLock::new();
    let pool = pool(1);
    pool.apply(|v: FrozenVec<u64>| KEPT.set(v).is_ok(), (frozen([1, 2, 3]),)).expect("apply");
    let other = frozen([1]);
    pool.apply(|v: FrozenVec<u64>| v[0], (other,)).expect("apply");
    let sum = pool.apply(|| KEPT.get().map(|v| v.iter().sum::<u64>()), ()).expect("apply");
    assert_eq!(sum, Some(6));
}

#[test]
fn results_with_handles_that_nobody_takes_leave_nothing() {
    watchdog();
    let pool = pool(2);
    let make = |len: u64| frozen(0..len);
    let before = held(std::process::id());
    for _ in 0..10 {
        drop(pool.map_async(make, 1..50).expect("map"));
        pool.for_each(|len: u64| drop(frozen(0..len)), 1..10).expect("map");
    }
    pool.close();
    pool.join().expect("join");
    drop(pool);
    // Other tests of this process come and go.
    wait_until("all are closed", || held(std::process::id()).0 <= before.0 + 20);
}

#[test]
fn a_value_names_a_bounded_number_of_handles_and_a_map_any_number() {
    watchdog();
    let pool = pool(2);
    let many: Vec<FrozenVec<u64>> = (0..300).map(|x| frozen([x])).collect();
    let count = |many: Vec<FrozenVec<u64>>| many.len();
    let make = |count: u64| (0..count).map(|x| frozen([x])).collect::<Vec<_>>();
    let refused = [
        pool.apply(count, (many.clone(),)).map(drop),
        Process::spawn(count, (many.clone(),)).map(drop),
        pool.apply(make, (300,)).map(drop),
        Process::spawn(make, (300,)).and_then(|mut process| process.join()).map(drop),
    ];
    for refused in refused {
        let error = refused.expect_err("too many at once");
        assert!(error.is_encode() && error.to_string().contains("more than 224"), "{error}");
    }
    assert_eq!(pool.apply(count, (many[..224].to_vec(),)).expect("apply"), 224);
    assert_eq!(pool.apply(make, (224,)).expect("apply").len(), 224);
    let firsts = pool.map(|v: FrozenVec<u64>| v[0], many).expect("map");
    assert!(firsts.into_iter().eq(0..300));
    let back = pool.map(|x: u64| frozen([x]), 0..300).expect("map");
    assert!(back.iter().map(|v| v[0]).eq(0..300));
}

#[test]
fn the_same_handle_twice_is_one_object() {
    watchdog();
    let v = frozen([1, 2, 3]);
    let same = |a: FrozenVec<u64>, b: FrozenVec<u64>| a.as_ptr() == b.as_ptr();
    assert!(pool(1).apply(same, (v.clone(), v.clone())).expect("apply"));
    assert!(Process::spawn(same, (v.clone(), v)).expect("spawn").join().expect("join"));
}

#[test]
fn outside_of_a_message_a_handle_is_an_error() {
    watchdog();
    let v = frozen([1]);
    postcard::to_stdvec(&v).expect_err("no message");
    postcard::from_bytes::<FrozenVec<u64>>(&[1, 0, 1]).expect_err("no message");
    // Nor does a task's function find what came with its own arguments, under whatever number.
    let outside = |v: FrozenVec<u64>| {
        let mut forged = (0..100).map(|number| [number, 0, 1]);
        let refused = forged.all(|bytes| postcard::from_bytes::<FrozenVec<u64>>(&bytes).is_err());
        refused && postcard::to_stdvec(&v).is_err()
    };
    assert!(pool(1).apply(outside, (v.clone(),)).expect("apply"));
    assert!(Process::spawn(outside, (v,)).expect("spawn").join().expect("join"));
}

/// Encodes once, and fails the second time: after its objects have been sent.
#[derive(Deserialize)]
struct Fickle(#[allow(dead_code, reason = "only ever encoded")] FrozenVec<u64>);

impl Serialize for Fickle {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        match CALLS.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => self.0.serialize(to),
            _ => Err(serde::ser::Error::custom("not again")),
        }
    }
}

#[test]
fn a_result_that_cannot_be_sent_does_not_spoil_the_next_ones() {
    watchdog();
    let pool = pool(1);
    for round in 0..3u64 {
        let failed = pool.apply(|| Fickle(frozen([0])), ()).map(drop);
        assert!(failed.expect_err("it refuses").is_encode());
        let v = pool.apply(|round: u64| frozen([round, 7]), (round,)).expect("a good one");
        assert_eq!(v[..], [round, 7]);
    }
}

/// Takes all descriptors that this process may still open, but for `spare`.
fn exhaust(spare: usize) -> Vec<fs::File> {
    let mut files = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        files.push(file);
    }
    files.truncate(files.len() - spare);
    files
}

#[test]
fn a_worker_without_descriptors_gets_the_object_when_it_has_some_again() {
    watchdog();
    static FILES: Mutex<Vec<fs::File>> = Mutex::new(Vec::new());
    let pool = Pool::builder().workers(1).open_files_limit(64).build().expect("pool");
    let fill = |spare: usize| *FILES.lock().expect("lock") = exhaust(spare);
    let empty = || FILES.lock().expect("lock").clear();
    let read = |v: FrozenVec<u64>| v[0];
    let v = frozen([5]);
    pool.apply(fill, (0,)).expect("apply");
    let error = pool.apply(read, (v.clone(),)).expect_err("no descriptor");
    assert!(error.is_decode() && error.to_string().contains("too many open files"), "{error}");
    let large = vec![1u8; 1 << 20];
    let error = pool.apply(|bytes: Vec<u8>| bytes.len(), (large.clone(),)).expect_err("no block");
    assert!(error.to_string().contains("too many open files"), "{error}");
    pool.apply(empty, ()).expect("apply");
    // The parent hears of what was missing beside the results, so perhaps a moment later.
    wait_until("the object is sent again", || pool.apply(read, (v.clone(),)).is_ok_and(|x| x == 5));
    let count = |bytes: Vec<u8>| bytes.len();
    wait_until("the block is sent again", || pool.apply(count, (large.clone(),)).is_ok());
    assert_eq!(pool.stats().restarts, 0);
}

/// Uses everything once more when its thread ends.
struct Last {
    pool: Pool,
    queue: Queue<(String, FrozenVec<u64>, Option<Barrier>)>,
    pipe: PipeSender<Vec<String>>,
    list: List<String>,
}

impl Last {
    fn act(&self, when: &str) {
        let sum = self.pool.apply(|some: FrozenVec<u64>| some.iter().sum(), (frozen([1, 2]),));
        let sum: u64 = sum.expect("a sum");
        self.list.push(format!("{when} {sum}")).expect("the manager lives");
        self.pipe.send(vec![when.to_owned()]).expect("somebody reads");
        let barrier = Barrier::new(1).expect("memory");
        self.queue.put((when.to_owned(), frozen([3]), Some(barrier))).expect("it is open");
        let (name, some, barrier) = self.queue.get().expect("what was put");
        assert_eq!((name.as_str(), some[0], barrier.is_some()), (when, 3, true));
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.act("last");
    }
}

#[test]
fn the_destructors_of_a_threads_variables_may_send_and_call() {
    thread_local! {
        static LAST: Cell<Option<Last>> = const { Cell::new(None) };
    }
    let (manager, queue) = (Manager::start().expect("a manager"), Queue::new().expect("memory"));
    let (list, (pipe, messages)) = (manager.list().unwrap(), Pipe::one_way().unwrap());
    let last = Last { pool: pool(1), queue, pipe, list: list.clone() };
    let thread = std::thread::spawn(move || {
        // Destroyed after all that comes to be in this thread later.
        LAST.set(None);
        last.act("first");
        LAST.set(Some(last));
    });
    thread.join().expect("it ends without a panic");
    assert_eq!(list.snapshot().unwrap(), ["first 3", "last 3"]);
    let said: Vec<_> = messages.iter().flat_map(Result::unwrap).collect();
    assert_eq!(said, ["first", "last"]);
}
