//! Locks and signals: alone, and between two processes.
//!
//! `cargo bench --bench sync`

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use multiproc::{
    AtomicValue, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, Process, RLock, RwLock,
    Semaphore, Value,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Added to a counter to tell the other process that it is to end.
const END: u64 = 1 << 62;

/// What nobody else wants.
fn alone(group: &mut BenchmarkGroup<'_, WallTime>) {
    let lock = Lock::new().expect("a lock");
    group.bench_function("lock", |bencher| bencher.iter(|| drop(lock.lock().expect("alone"))));
    group.bench_function("lock_raw", |bencher| {
        bencher.iter(|| {
            lock.acquire().expect("alone");
            lock.release().expect("ours");
        });
    });
    let rlock = RLock::new().expect("a lock");
    group.bench_function("rlock", |bencher| bencher.iter(|| drop(rlock.lock().expect("alone"))));
    let mutex = Mutex::new(0_u64).expect("a mutex");
    group.bench_function("mutex", |bencher| bencher.iter(|| *mutex.lock().expect("alone") += 1));
    let value = Value::new(0_u64).expect("a value");
    group.bench_function("value", |bencher| {
        bencher.iter(|| value.update(|value| *value += 1).expect("alone"));
    });
    let atomic = AtomicValue::new(0_u64).expect("a value");
    group.bench_function("atomic_value", |bencher| bencher.iter(|| atomic.fetch_add(1)));
    let rwlock = RwLock::new(0_u64).expect("a lock");
    group.bench_function("read", |bencher| bencher.iter(|| *rwlock.read().expect("alone")));
    group.bench_function("write", |bencher| bencher.iter(|| *rwlock.write().expect("alone") += 1));
    let semaphore = Semaphore::new(3).expect("a semaphore");
    group.bench_function("permit", |bencher| {
        bencher.iter(|| drop(semaphore.acquire().expect("alone")));
    });
    group.bench_function("permit_raw", |bencher| {
        bencher.iter(|| {
            semaphore.acquire_raw().expect("alone");
            semaphore.release(1).expect("ours");
        });
    });
    let bounded = BoundedSemaphore::new(3).expect("a semaphore");
    group.bench_function("bounded_permit", |bencher| {
        bencher.iter(|| drop(bounded.acquire().expect("alone")));
    });
    let event = Event::new().expect("an event");
    group.bench_function("event", |bencher| {
        bencher.iter(|| {
            event.set();
            event.wait();
            event.clear();
        });
    });
    let condition = Condition::new().expect("a condition");
    group.bench_function("notify_nobody", |bencher| bencher.iter(|| condition.notify_one()));
}

/// Runs `own` while another process runs `other` with a handle; waits for both.
fn beside<H, F, T>(other: F, handles: &H, own: impl FnOnce() -> T) -> T
where
    H: multiproc::Data + Clone,
    F: multiproc::Function<(H,), Output = ()>,
{
    let mut process = Process::spawn(other, (handles.clone(),)).expect("a process");
    let result = own();
    process.join().expect("its end");
    result
}

/// How long it takes to do this so often.
fn timed<T>(times: u64, mut work: impl FnMut() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        black_box(work());
    }
    start.elapsed()
}

/// A lock that two processes take all the time; the time is that of the turns of this one.
fn contended(group: &mut BenchmarkGroup<'_, WallTime>) {
    fn count(counter: &Mutex<u64>, more: u64) -> u64 {
        let mut counter = counter.lock().expect("nobody dies");
        *counter += more;
        *counter
    }
    group.bench_function("mutex", |bencher| {
        bencher.iter_custom(|turns| {
            let counter = Mutex::new(0).expect("a mutex");
            let other = |counter: Mutex<u64>| while count(&counter, 1) < END {};
            beside(other, &counter, || {
                while count(&counter, 0) == 0 {}
                let time = timed(turns, || count(&counter, 1));
                count(&counter, END);
                time
            })
        });
    });
}

/// From this process to another and back.
fn round_trips(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.bench_function("event", |bencher| {
        let events = [Event::new().expect("an event"), Event::new().expect("an event")];
        let other = |([there, back], rounds): ([Event; 2], u64)| {
            for _ in 0..rounds {
                there.wait();
                there.clear();
                back.set();
            }
        };
        bencher.iter_custom(|rounds| {
            let [there, back] = &events;
            let round = || {
                there.set();
                back.wait();
                back.clear();
            };
            beside(other, &(events.clone(), rounds), || timed(rounds, round))
        });
    });
    group.bench_function("semaphore", |bencher| {
        let new = || Semaphore::new(0).expect("a semaphore");
        let semaphores = [new(), new()];
        let other = |([there, back], rounds): ([Semaphore; 2], u64)| {
            for _ in 0..rounds {
                there.acquire_raw().expect("a permit");
                back.release(1).expect("room");
            }
        };
        bencher.iter_custom(|rounds| {
            let [there, back] = &semaphores;
            let round = || {
                there.release(1).expect("room");
                back.acquire_raw().expect("a permit");
            };
            beside(other, &(semaphores.clone(), rounds), || timed(rounds, round))
        });
    });
    group.bench_function("condition", |bencher| {
        let handles = (Mutex::new(0_u64).expect("a mutex"), Condition::new().expect("a condition"));
        /// Waits for its turn, and passes it on.
        fn pass((turn, changed): &(Mutex<u64>, Condition), from: u64, to: u64) {
            let guard = turn.lock().expect("nobody dies");
            let not_yet = |turn: &mut u64| *turn != from;
            *changed.wait_while(guard, not_yet).expect("nobody dies") = to;
            changed.notify_one();
        }
        let other = |(handles, rounds): ((Mutex<u64>, Condition), u64)| {
            (0..rounds).for_each(|_| pass(&handles, 1, 0));
        };
        bencher.iter_custom(|rounds| {
            let round = || pass(&handles, 0, 1);
            beside(other, &(handles.clone(), rounds), || timed(rounds, round))
        });
    });
    group.bench_function("barrier", |bencher| {
        let barrier = Barrier::new(2).expect("a barrier");
        let other = |(barrier, rounds): (Barrier, u64)| {
            for _ in 0..rounds {
                barrier.wait().expect("both arrive");
            }
        };
        bencher.iter_custom(|rounds| {
            let round = || barrier.wait().expect("both arrive");
            beside(other, &(barrier.clone(), rounds), || timed(rounds, round))
        });
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    alone(&mut criterion.benchmark_group("alone"));
    contended(&mut criterion.benchmark_group("contended"));
    round_trips(&mut criterion.benchmark_group("round_trip"));
    criterion.final_summary();
}
