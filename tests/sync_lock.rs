//! `Lock`, `Mutex` and `RLock`: between threads, between processes, and when their owner dies.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Event, Lock, Mutex, Pool, Process, RLock, StartMethod};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

fn count(total: Mutex<[u64; 2]>, times: u64) {
    for _ in 0..times {
        let mut total = total.lock().expect("nobody dies here");
        total[0] += 1;
        total[1] += 1;
    }
}

#[test]
fn processes_and_threads_that_count_under_a_mutex_lose_nothing() {
    watchdog();
    let total = Mutex::new([0, 0]).expect("mutex");
    let processes = [0, 1, 2].map(|_| start(count, (total.clone(), 5000)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| count(total.clone(), 5000));
        }
    });
    finish_all(processes);
    assert_eq!(*total.lock().expect("nobody died"), [25_000, 25_000]);
}

#[test]
fn every_start_method_and_a_pool_share_the_same_lock() {
    watchdog();
    let total = Mutex::new([0, 0]).expect("mutex");
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let builder = Process::builder(count, (total.clone(), 10)).start_method(method);
        finish(builder.spawn().expect("spawn"));
    }
    let pool = Pool::builder().workers(2).build().expect("a pool");
    let add = |total: &Mutex<[u64; 2]>, n: u64| {
        total.lock().expect("nobody dies")[0] += n;
    };
    pool.map_with(&total, add, 1..=10).expect("map");
    let mine = pool.apply(|total: Mutex<[u64; 2]>| total, (total.clone(),)).expect("apply");
    mine.lock().expect("nobody died")[1] += 1;
    assert_eq!(*total.lock().expect("nobody died"), [75, 21]);
}

fn hold(lock: Lock, held: Event, go: Event) {
    let _guard = lock.lock().expect("nobody died");
    held.set();
    go.wait();
}

#[test]
fn a_lock_that_another_process_has_is_not_to_be_had() {
    watchdog();
    let (lock, held, go) = (Lock::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let process = start(hold, (lock.clone(), held.clone(), go.clone()));
    assert!(held.wait_timeout(PATIENCE));
    assert!(lock.is_locked());
    assert!(lock.try_lock().expect("its owner lives").is_none());
    assert!(lock.lock_timeout(SHORT).expect("its owner lives").is_none());
    assert!(lock.lock_timeout(Duration::ZERO).expect("its owner lives").is_none());
    go.set();
    drop(lock.lock_timeout(Duration::MAX).expect("nobody died").expect("for ever"));
    finish(process);
    assert!(!lock.is_locked());
}

#[test]
fn the_next_one_gets_the_lock_of_a_killed_process_with_the_news_and_once() {
    watchdog();
    let (lock, held, go) = (Lock::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    for round in 0..4 {
        held.clear();
        let process = start(hold, (lock.clone(), held.clone(), go.clone()));
        assert!(held.wait_timeout(PATIENCE));
        let pid = process.pid();
        kill(process);
        assert!(lock.is_locked());
        let died = match round {
            0 => lock.lock().map(drop).expect_err("its owner died").thread_id(),
            1 => lock.try_lock().map(drop).expect_err("its owner died").thread_id(),
            2 => lock.lock_timeout(PATIENCE).map(drop).expect_err("its owner died").thread_id(),
            _ => {
                let error = lock.acquire().expect_err("its owner died");
                assert!(error.is_owner_died(), "{error}");
                assert!(error.to_string().contains(&pid.to_string()), "{error}");
                pid
            }
        };
        assert_eq!(died, pid);
        assert!(!lock.is_locked(), "the guard in the news was dropped");
        drop(lock.lock().expect("told before"));
    }
}

#[test]
fn those_who_wait_already_hear_of_the_death_one_of_them_with_the_news() {
    watchdog();
    let (lock, held, go) = (Lock::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let process = start(hold, (lock.clone(), held.clone(), go.clone()));
    assert!(held.wait_timeout(PATIENCE));
    // Not reaped before they have found out: a zombie is dead, too.
    let pid = process.pid();
    let news: usize = std::thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..3).map(|_| scope.spawn(|| usize::from(in_time(|| lock.lock()).is_err()))).collect();
        // SAFETY: the process is a child of this one that nobody has waited for.
        assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
        waiters.into_iter().map(|waiter| waiter.join().expect("join")).sum()
    });
    assert_eq!(news, 1);
}

#[test]
fn waiters_that_are_killed_are_in_nobodys_way() {
    watchdog();
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let waiter = |lock: Lock, started: Event| {
        started.set();
        lock.lock().is_ok()
    };
    for _ in 0..3 {
        let started = Event::new().unwrap();
        let process = start(waiter, (lock.clone(), started.clone()));
        assert!(started.wait_timeout(PATIENCE));
        kill(process);
    }
    let started = Event::new().unwrap();
    let process = start(waiter, (lock.clone(), started.clone()));
    assert!(started.wait_timeout(PATIENCE));
    drop(guard);
    assert!(finish(process));
    drop(in_time(|| lock.lock()).expect("nobody died with it"));
}

#[test]
fn a_panic_with_the_guard_is_told_to_another_process() {
    watchdog();
    let value = Mutex::new(1_u32).unwrap();
    let panicky = |value: Mutex<u32>| -> () {
        let mut guard = value.lock().expect("nobody died");
        *guard = 2;
        panic!("half-way")
    };
    let builder = Process::builder(panicky, (value.clone(),)).stderr(multiproc::Stdio::Null);
    assert!(builder.spawn().expect("spawn").join().expect_err("it panicked").is_panic());
    let news = value.lock().expect_err("its owner panicked");
    assert!(news.panicked());
    assert_eq!(**news.get_ref(), 2);
    *news.into_guard() = 1;
    assert_eq!(*value.lock().expect("told before"), 1);
}

#[test]
fn the_question_mark_turns_the_news_into_an_error_that_says_so() {
    watchdog();
    let lock = Lock::new().unwrap();
    let other = lock.clone();
    let thread = std::thread::spawn(move || {
        let _guard = other.lock();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    let locked = || -> multiproc::Result<()> { lock.lock().map(drop).map_err(Into::into) };
    let error = locked().expect_err("it panicked");
    assert!(error.is_owner_died() && error.to_string().contains("panicked"), "{error}");
    locked().expect("told before");
}

#[test]
fn any_process_may_release_and_a_release_too_many_is_an_error() {
    watchdog();
    let lock = Lock::new().unwrap();
    let release = |lock: Lock| lock.release().is_ok();
    assert!(!finish(start(release, (lock.clone(),))), "nobody has it");
    lock.acquire().expect("free");
    assert!(!lock.try_acquire().expect("its owner lives"));
    assert!(!lock.acquire_timeout(SHORT).expect("its owner lives"));
    assert!(finish(start(release, (lock.clone(),))));
    let error = lock.release().expect_err("a release too many");
    assert!(error.is_invalid_input(), "{error}");
    // Of many that release at the same time one succeeds.
    lock.acquire().expect("free");
    let processes = [0; 3].map(|_| start(release, (lock.clone(),)));
    assert_eq!(processes.map(finish).iter().filter(|&&released| released).count(), 1);
}

#[test]
fn a_guard_whose_lock_was_released_by_another_gives_back_nothing() {
    watchdog();
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    lock.release().expect("held");
    let other = lock.clone();
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let process = start(hold, (other, held.clone(), go.clone()));
    assert!(held.wait_timeout(PATIENCE));
    drop(guard);
    assert!(lock.is_locked(), "the other one's");
    go.set();
    finish(process);
}

#[test]
fn a_handle_outside_of_a_message_is_refused_and_no_panic() {
    let lock = Lock::new().unwrap();
    assert!(postcard::to_stdvec(&lock).is_err());
    assert!(postcard::from_bytes::<Lock>(&[1]).is_err());
}

#[test]
fn a_handle_is_not_taken_for_one_of_another_type() {
    watchdog();
    // The encoding is the same, so a confused program could get so far.
    struct Confused(Mutex<u32>);
    impl serde::Serialize for Confused {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(serializer)
        }
    }
    impl<'de> serde::Deserialize<'de> for Confused {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            Mutex::<u64>::deserialize(from).map(|_| unreachable!("it was refused"))
        }
    }
    let mutex = Mutex::new(1_u32).unwrap();
    let error = start(|_: Confused| (), (Confused(mutex),)).join().expect_err("refused");
    assert!(error.is_decode(), "{error}");
}

#[test]
fn handles_are_shared_between_threads_and_shown() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + multiproc::Data>(_: &T) {}
    check(&Lock::new().unwrap());
    check(&RLock::new().unwrap());
    check(&Mutex::new(1).unwrap());
    check(&multiproc::RwLock::new(1).unwrap());
    check(&multiproc::Semaphore::new(1).unwrap());
    check(&multiproc::BoundedSemaphore::new(1).unwrap());
    check(&Event::new().unwrap());
    check(&multiproc::Condition::new().unwrap());
    check(&multiproc::Barrier::new(1).unwrap());
    check(&multiproc::Latch::new(1).unwrap());
    check(&multiproc::Once::new().unwrap());
    assert_eq!(format!("{:?}", Event::new().unwrap()), "Event { set: false }");
}

// --- RLock --------------------------------------------------------------------------------------

#[test]
fn an_rlock_is_taken_as_often_as_one_likes_and_given_back_as_often() {
    watchdog();
    let lock = RLock::new().unwrap();
    let try_it = |lock: RLock| lock.try_lock().is_ok_and(|guard| guard.is_some());
    let first = lock.lock().unwrap();
    let second = lock.try_lock().unwrap().expect("it is ours");
    lock.acquire().unwrap();
    assert!(!finish(start(try_it, (lock.clone(),))));
    drop(first);
    drop(second);
    assert!(lock.is_locked() && !finish(start(try_it, (lock.clone(),))));
    lock.release().unwrap();
    assert!(!lock.is_locked() && finish(start(try_it, (lock.clone(),))));
}

#[test]
fn an_rlock_is_released_by_its_owner_only() {
    watchdog();
    let lock = RLock::new().unwrap();
    assert!(lock.release().expect_err("nobody has it").is_invalid_input());
    lock.acquire().unwrap();
    let release = |lock: RLock| lock.release().expect_err("not the owner").is_invalid_input();
    assert!(finish(start(release, (lock.clone(),))), "another process");
    let other = lock.clone();
    assert!(std::thread::spawn(move || release(other)).join().expect("join"), "another thread");
    lock.release().expect("the owner");
}

#[test]
fn an_rlock_of_a_killed_process_comes_with_the_news_and_its_depth_begins_anew() {
    watchdog();
    let (lock, held) = (RLock::new().unwrap(), Event::new().unwrap());
    let hold = |lock: RLock, held: Event| {
        lock.acquire().expect("free");
        lock.acquire().expect("ours");
        held.set();
        std::thread::park();
    };
    let process = start(hold, (lock.clone(), held.clone()));
    assert!(held.wait_timeout(PATIENCE));
    kill(process);
    let guard = lock.lock().expect_err("its owner died").into_guard();
    drop(guard);
    assert!(!lock.is_locked());
    wait_until("another process can have it", || {
        finish(start(|lock: RLock| lock.try_acquire().is_ok_and(|had| had), (lock.clone(),)))
    });
}
