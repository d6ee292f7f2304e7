//! Processes killed at random in mixed workloads, more than a thousand: nobody hangs, nothing that
//! is protected is corrupt without the news, and no permit is lost.

mod common;

use common::sync::{in_time, kill, start};
use common::{PATIENCE, watchdog};
use multiproc::{
    Array, AtomicValue, Barrier, BoundedSemaphore, Condition, Event, Latch, Lock, Mutex, Once,
    OwnerDied, Process, RLock, RwLock, Semaphore, Value,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const KILLS: usize = 1000;
/// How many victims run at a time.
const AT_A_TIME: usize = 4;
const PERMITS: u32 = 3;

/// Everything that the victims use. Each pair of numbers is equal whenever nobody changes it.
#[derive(Clone, Serialize, Deserialize)]
struct World {
    lock: Lock,
    rlock: RLock,
    pair: Mutex<[u64; 2]>,
    shared: RwLock<[u64; 2]>,
    places: Semaphore,
    /// Who is inside of `lock`: at most one, and a dead one is made up for by who hears of it.
    inside: Mutex<u64>,
    condition: Condition,
    started: Event,
    /// Pairs that were found unequal without the news.
    errors: Semaphore,
}

impl World {
    fn new() -> Self {
        Self {
            lock: Lock::new().unwrap(),
            rlock: RLock::new().unwrap(),
            pair: Mutex::new([0, 0]).unwrap(),
            shared: RwLock::new([0, 0]).unwrap(),
            places: Semaphore::new(PERMITS).unwrap(),
            inside: Mutex::new(0).unwrap(),
            condition: Condition::new().unwrap(),
            started: Event::new().unwrap(),
            errors: Semaphore::new(0).unwrap(),
        }
    }

    fn expect(&self, holds: bool) {
        if !holds {
            self.errors.release(1).expect("few");
        }
    }

    fn change(&self, pair: &mut [u64; 2]) {
        pair[0] += 1;
        // Long enough for a death in the middle.
        std::hint::black_box((0..200).sum::<u64>());
        pair[1] += 1;
    }

    fn use_mutex(&self) {
        match self.pair.lock() {
            Ok(mut pair) => {
                self.expect(pair[0] == pair[1]);
                self.change(&mut pair);
            }
            Err(died) => mend(&mut died.into_guard()),
        }
    }

    fn use_rwlock(&self) {
        match self.shared.write() {
            Ok(mut pair) => {
                self.expect(pair[0] == pair[1]);
                self.change(&mut pair);
            }
            Err(died) => mend(&mut died.into_guard()),
        }
        for _ in 0..3 {
            if let Ok(pair) = self.shared.read() {
                self.expect(pair[0] == pair[1]);
            }
        }
    }

    /// Who is inside of the lock is in no lock: the lock alone keeps others out.
    fn use_lock(&self) {
        let held = self.lock.lock();
        let news = held.is_err();
        let _guard = held.unwrap_or_else(OwnerDied::into_guard);
        let before = self.inside.lock().unwrap_or_else(OwnerDied::into_guard).to_owned();
        self.expect(before == 0 || news);
        *self.inside.lock().unwrap_or_else(OwnerDied::into_guard) = std::process::id().into();
        std::hint::black_box((0..200).sum::<u64>());
        *self.inside.lock().unwrap_or_else(OwnerDied::into_guard) = 0;
    }

    fn use_rlock(&self) {
        let outer = self.rlock.lock().unwrap_or_else(OwnerDied::into_guard);
        let inner = self.rlock.lock();
        self.expect(inner.is_ok());
        drop((inner, outer));
    }

    fn use_semaphore(&self) {
        let _place = self.places.acquire().unwrap_or_else(OwnerDied::into_guard);
        std::hint::black_box((0..200).sum::<u64>());
    }

    fn use_condition(&self) {
        let guard = self.pair.lock().unwrap_or_else(|died| {
            let mut guard = died.into_guard();
            mend(&mut guard);
            guard
        });
        if let Err(died) = self.condition.wait_timeout(guard, Duration::from_millis(1)) {
            mend(&mut died.into_guard().0);
        }
        self.condition.notify_one();
    }

    fn use_everything(&self) {
        self.use_mutex();
        self.use_rwlock();
        self.use_lock();
        self.use_rlock();
        self.use_semaphore();
        self.use_condition();
    }
}

fn mend(pair: &mut [u64; 2]) {
    pair[1] = pair[0];
}

fn work_until_killed(world: World) {
    world.started.set();
    loop {
        world.use_everything();
    }
}

/// A small generator: the moments of death are not to be the same in each round.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Kills so many processes that `begin` starts and that set the event when they run.
fn kill_at_random(kills: usize, started: &Event, begin: impl Fn() -> Process<()>) {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64 | 1);
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut victims: Vec<Process<()>> = Vec::new();
    for _ in 0..kills {
        while victims.len() < AT_A_TIME {
            started.clear();
            victims.push(begin());
        }
        // Not before the newest has begun; then at any moment.
        assert!(started.wait_timeout(PATIENCE), "nobody starts");
        std::thread::sleep(Duration::from_micros(random.below(1500)));
        let index = random.below(victims.len() as u64) as usize;
        kill(victims.swap_remove(index));
    }
    victims.into_iter().for_each(kill);
}

#[test]
fn a_thousand_random_kills_leave_everything_usable_and_consistent() {
    watchdog();
    let world = World::new();
    kill_at_random(KILLS, &world.started, || start(work_until_killed, (world.clone(),)));
    // What is left can be used, and is consistent.
    in_time(|| world.use_everything());
    in_time(|| world.use_everything());
    assert_eq!(world.errors.available(), 0, "a broken pair, or two inside, without the news");
    let mut permits = Vec::new();
    for _ in 0..PERMITS {
        let permit = in_time(|| world.places.acquire_timeout(PATIENCE));
        permits.push(permit.unwrap_or_else(|died| Some(died.into_guard())).expect("a permit"));
    }
    assert_eq!(world.places.available(), 0, "no permit was made out of nothing");
    assert!(world.places.try_acquire().expect("all holders live").is_none());
    drop(permits);
    assert_eq!(world.places.available(), PERMITS);
}

// --- The other types ----------------------------------------------------------------------------

/// In each of so many worlds, since what is done once is done only at the beginning of one.
const WORLDS: usize = 6;
const KILLS_IN_EACH: usize = 60;
const ONCES: usize = 24;
const COUNT: u32 = 1 << 29;
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Serialize, Deserialize)]
struct OtherWorld {
    started: Event,
    places: BoundedSemaphore,
    event: Event,
    barrier: Barrier,
    latch: Latch,
    /// How often the latch was counted down, but for those who died before they wrote it here.
    counted: AtomicValue<u32>,
    onces: Vec<Once>,
    /// What has been done once: 0, or 1 while it is being done, or 2.
    done: Array<u32>,
    /// Equal whenever nobody changes them.
    pair: Value<[u64; 2]>,
    /// Even for all but whoever changes it.
    even: Value<u64>,
    row: Array<u64>,
    /// What was found wrong without the news.
    errors: AtomicValue<u32>,
}

impl OtherWorld {
    fn new() -> Self {
        Self {
            started: Event::new().unwrap(),
            places: BoundedSemaphore::new(PERMITS).unwrap(),
            event: Event::new().unwrap(),
            barrier: Barrier::new(2).unwrap(),
            latch: Latch::new(COUNT).unwrap(),
            counted: AtomicValue::new(0).unwrap(),
            onces: (0..ONCES).map(|_| Once::new().unwrap()).collect(),
            done: Array::zeroed(ONCES).unwrap(),
            pair: Value::new([0, 0]).unwrap(),
            even: Value::new(0).unwrap(),
            row: Array::zeroed(8).unwrap(),
            errors: AtomicValue::new(0).unwrap(),
        }
    }

    fn expect(&self, holds: bool) {
        if !holds {
            self.errors.fetch_add(1);
        }
    }

    fn use_semaphore(&self) {
        let _place = self.places.acquire().unwrap_or_else(OwnerDied::into_guard);
        self.expect(self.places.available() < PERMITS);
    }

    fn use_event(&self) {
        self.event.set();
        self.event.wait_timeout(TICK);
        self.event.clear();
    }

    fn use_barrier(&self) {
        match self.barrier.wait_timeout(TICK) {
            Ok(arrival) => self.expect(arrival.index() < 2),
            Err(error) => {
                self.expect(error.is_broken() || error.is_timeout());
                self.barrier.reset();
            }
        }
    }

    fn use_latch(&self) {
        self.expect(self.latch.count_down().is_ok());
        self.counted.fetch_add(1);
        let waited = self.latch.wait_timeout(Duration::ZERO);
        self.expect(waited.map_or_else(|error| error.is_broken(), |open| !open));
    }

    /// The array tells of deaths, too; here they matter to nobody.
    fn done(&self, index: usize) -> u32 {
        self.done.lock().unwrap_or_else(OwnerDied::into_guard)[index]
    }

    fn use_onces(&self) {
        for (index, once) in self.onces.iter().enumerate() {
            once.call_once(|| {
                self.expect(self.done(index) != 2);
                self.done.lock().unwrap_or_else(OwnerDied::into_guard)[index] = 1;
                std::hint::black_box((0..2000).sum::<u64>());
                self.done.lock().unwrap_or_else(OwnerDied::into_guard)[index] = 2;
            });
            self.expect(self.done(index) == 2);
        }
    }

    fn use_value(&self) {
        match self.pair.lock() {
            Ok(mut pair) => {
                self.expect(pair[0] == pair[1]);
                pair[0] += 1;
                std::hint::black_box((0..200).sum::<u64>());
                pair[1] += 1;
            }
            Err(died) => mend(&mut died.into_guard()),
        }
        // Half-way through an update the value is as it was.
        let updated = self.even.update(|even| {
            self.expect(*even % 2 == 0);
            *even += 1;
            std::hint::black_box((0..200).sum::<u64>());
            *even += 1;
        });
        self.expect(updated.map_or_else(|error| error.is_owner_died(), |()| true));
    }

    fn use_array(&self) {
        match self.row.lock() {
            Ok(mut row) => {
                self.expect(row.iter().all(|number| *number == row[0]));
                for number in &mut row[..] {
                    *number += 1;
                    std::hint::black_box((0..20).sum::<u64>());
                }
            }
            Err(died) => died.into_guard().fill(0),
        }
    }

    fn use_everything(&self) {
        self.use_semaphore();
        self.use_value();
        self.use_array();
        self.use_latch();
        self.use_onces();
        self.use_event();
        self.use_barrier();
    }

    /// What is left can be used, and is consistent.
    fn check(&self) {
        in_time(|| self.use_everything());
        in_time(|| self.use_everything());
        assert_eq!(self.errors.get(), 0, "something was wrong without the news");
        let counted = COUNT - self.latch.count();
        // One for each that died between the two, and this process counted, too.
        let told = self.counted.get();
        assert!((told..=told + (KILLS_IN_EACH + AT_A_TIME) as u32).contains(&counted));
        assert!(self.onces.iter().all(Once::is_completed));
        self.event.set();
        assert!(self.event.wait_timeout(Duration::ZERO));
        self.barrier.reset();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.barrier.wait_timeout(PATIENCE).expect("whole").index());
            let mine = self.barrier.wait_timeout(PATIENCE).expect("whole").index();
            assert_eq!(mine + other.join().expect("join"), 1);
        });
        let mut permits = Vec::new();
        for _ in 0..PERMITS {
            let permit = in_time(|| self.places.acquire_timeout(PATIENCE));
            permits.push(permit.unwrap_or_else(|died| Some(died.into_guard())).expect("a permit"));
        }
        assert_eq!(self.places.available(), 0, "no permit was made out of nothing");
        drop(permits);
        assert_eq!(self.places.available(), PERMITS);
        assert!(self.places.release(1).expect_err("all are back").is_invalid_input());
    }
}

fn use_others_until_killed(world: OtherWorld) {
    world.started.set();
    loop {
        world.use_everything();
    }
}

#[test]
fn hundreds_of_random_kills_leave_the_other_types_usable_and_consistent() {
    watchdog();
    for _ in 0..WORLDS {
        let world = OtherWorld::new();
        let begin = || start(use_others_until_killed, (world.clone(),));
        kill_at_random(KILLS_IN_EACH, &world.started, begin);
        world.check();
    }
}
