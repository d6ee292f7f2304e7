//! A thousand processes killed at random in a mixed workload of locks: nobody hangs, nothing that
//! is protected is corrupt without the news, and no permit is lost.

mod common;

use common::sync::{in_time, start};
use common::{PATIENCE, watchdog};
use multiproc::{Condition, Event, Lock, Mutex, OwnerDied, Process, RLock, RwLock, Semaphore};
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

#[test]
fn a_thousand_random_kills_leave_everything_usable_and_consistent() {
    watchdog();
    let world = World::new();
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64 | 1);
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut victims: Vec<Process<()>> = Vec::new();
    for _ in 0..KILLS {
        while victims.len() < AT_A_TIME {
            world.started.clear();
            victims.push(start(work_until_killed, (world.clone(),)));
        }
        // Not before the newest has begun; then at any moment.
        assert!(world.started.wait_timeout(PATIENCE), "nobody starts");
        std::thread::sleep(Duration::from_micros(random.below(1500)));
        let index = random.below(victims.len() as u64) as usize;
        let mut victim = victims.swap_remove(index);
        victim.kill().expect("kill");
        assert!(victim.join_timeout(PATIENCE).expect_err("killed").is_exited());
    }
    for mut victim in victims {
        victim.kill().expect("kill");
        assert!(victim.join_timeout(PATIENCE).expect_err("killed").is_exited());
    }
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
