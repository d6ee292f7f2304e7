//! Each type of handle, on each way from one process to another.

mod common;

use common::sync::{finish, start};
use common::{PATIENCE, watchdog};
use multiproc::{
    Array, AtomicValue, Barrier, BoundedSemaphore, Condition, Data, Event, Latch, Lock, Mutex,
    Once, Pool, Process, RLock, RawArray, RawValue, RwLock, Semaphore, StartMethod, Value,
};
use serde::{Deserialize, Serialize};
use std::thread;

/// A handle through which a mark can be left that the other handles of the object show.
trait Traveller: Data + Clone + Sync {
    fn make() -> Self;
    /// Leaves the mark, once.
    fn mark(&self);
    /// Whether somebody has.
    fn is_marked(&self) -> bool;
}

/// `traveller!(type, make, this => mark, shown)`
macro_rules! traveller {
    ($type:ty, $make:expr, $this:ident => $mark:expr, $shown:expr) => {
        impl Traveller for $type {
            fn make() -> Self {
                $make.unwrap()
            }
            fn mark(&self) {
                let $this = self;
                $mark;
            }
            fn is_marked(&self) -> bool {
                let $this = self;
                $shown
            }
        }
    };
}

traveller!(Lock, Lock::new(), it => it.acquire().unwrap(), it.is_locked());
traveller!(RLock, RLock::new(), it => it.acquire().unwrap(), it.is_locked());
traveller!(Mutex<u32>, Mutex::new(0), it => *it.lock().unwrap() = 1, *it.lock().unwrap() == 1);
traveller!(RwLock<u32>, RwLock::new(0), it => *it.write().unwrap() = 1, *it.read().unwrap() == 1);
traveller!(Semaphore, Semaphore::new(0), it => it.release(1).unwrap(), it.available() == 1);
traveller!(
    BoundedSemaphore, BoundedSemaphore::new(1),
    it => it.acquire_raw().unwrap(), it.available() == 0 && it.release(2).is_err()
);
traveller!(Event, Event::new(), it => it.set(), it.wait_timeout(PATIENCE));
traveller!(Barrier, Barrier::new(2), it => it.abort(), it.is_broken() && it.parties() == 2);
traveller!(Latch, Latch::new(1), it => it.count_down().unwrap(), it.wait().is_ok());
traveller!(Once, Once::new(), it => it.call_once(|| ()), it.is_completed());
traveller!(Value<u32>, Value::new(0), it => it.set(1).unwrap(), it.get().unwrap() == 1);
traveller!(AtomicValue<u32>, AtomicValue::new(0), it => it.set(1), it.get() == 1);
traveller!(RawValue<u32>, RawValue::new(0), it => it.set(1), it.get() == 1);
traveller!(
    Array<u32>, Array::from_slice(&[0, 0]),
    it => it.set(1, 1).unwrap(), it.to_vec().unwrap() == [0, 1]
);
traveller!(
    RawArray<u32>, RawArray::zeroed(2),
    it => it.set(1, 1).unwrap(), it.get(1).unwrap() == 1
);

/// A condition shows no mark. So its lock has it, and the bell is heard if it is the same one.
#[derive(Clone, Serialize, Deserialize)]
struct Bell {
    rung: Mutex<u32>,
    condition: Condition,
}

impl Bell {
    /// Whether it is heard by one who waits already.
    fn hear(&self, listening: &Event) -> bool {
        let rung = self.rung.lock().unwrap();
        listening.set();
        self.condition.wait_timeout(rung, PATIENCE).unwrap().1
    }

    fn ring(&self, listening: &Event) {
        assert!(listening.wait_timeout(PATIENCE));
        *self.rung.lock().unwrap() = 1;
        self.condition.notify_one();
    }
}

traveller!(
    Bell, Mutex::new(0).and_then(|rung| Ok(Bell { rung, condition: Condition::new()? })),
    it => {
        let listening = Event::new().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| it.ring(&listening));
            assert!(it.hear(&listening));
        });
    },
    {
        let listening = Event::new().unwrap();
        let hear = |bell: Bell, listening: Event| bell.hear(&listening);
        let other = start(hear, (it.clone(), listening.clone()));
        it.ring(&listening);
        finish(other) && *it.rung.lock().unwrap() == 1
    }
);

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

/// As an argument, and as a result that was made there or here.
fn by_process<H: Traveller>(method: StartMethod) {
    let make_and_mark = || {
        let made = H::make();
        made.mark();
        made
    };
    let process = Process::builder(make_and_mark, ()).start_method(method).spawn();
    assert!(finish(process.unwrap()).is_marked(), "made there, {method:?}");

    let handle = H::make();
    let mark = |handle: H| {
        handle.mark();
        handle
    };
    let process = Process::builder(mark, (handle.clone(),)).start_method(method).spawn();
    let back = finish(process.unwrap());
    assert!(handle.is_marked() && back.is_marked(), "as an argument and back, {method:?}");
}

/// The same ways, and as a context.
fn by_pool<H: Traveller>(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let make_and_mark = || {
        let made = H::make();
        made.mark();
        made
    };
    assert!(pool.apply(make_and_mark, ()).unwrap().is_marked(), "made there, {method:?}");

    let handles = [(); 3].map(|()| H::make());
    let mark = |handle: H| {
        handle.mark();
        handle
    };
    let back = pool.map(mark, handles.clone()).unwrap();
    assert!(handles.iter().chain(&back).all(H::is_marked), "as items and back, {method:?}");

    let context = H::make();
    let mark = |handle: &H, _: u32| {
        handle.mark();
        handle.clone()
    };
    let back = pool.map_with(&context, mark, [1]).unwrap();
    assert!(context.is_marked() && back[0].is_marked(), "as a context and back, {method:?}");
    drop(pool);
    assert!(context.is_marked(), "the workers have gone");
}

fn by_all_ways<H: Traveller>() {
    watchdog();
    for method in METHODS {
        by_process::<H>(method);
        by_pool::<H>(method);
    }
}

/// One test for each type.
macro_rules! by_all_ways {
    ($($name:ident: $type:ty;)*) => {
        $(#[test]
        fn $name() {
            by_all_ways::<$type>();
        })*
    };
}

by_all_ways! {
    lock: Lock;
    rlock: RLock;
    mutex: Mutex<u32>;
    rwlock: RwLock<u32>;
    semaphore: Semaphore;
    bounded_semaphore: BoundedSemaphore;
    event: Event;
    condition: Bell;
    barrier: Barrier;
    latch: Latch;
    once: Once;
    value: Value<u32>;
    atomic_value: AtomicValue<u32>;
    raw_value: RawValue<u32>;
    array: Array<u32>;
    raw_array: RawArray<u32>;
}
