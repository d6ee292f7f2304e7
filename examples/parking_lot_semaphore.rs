//! Three places and five cars: a semaphore lets three in at a time.
//!
//! A permit that a process holds comes back when it is dropped.
//!
//! `cargo run --example parking_lot_semaphore`

use multiproc::{Latch, Mutex, Process, Semaphore};
use std::thread;
use std::time::Duration;

const PLACES: u32 = 3;
const CARS: u32 = 5;

/// `[cars inside, most cars inside at any time, cars that came and left]`
type Log = Mutex<[u32; 3]>;

fn park(car: u32, places: Semaphore, full: Latch, log: Log) -> multiproc::Result<()> {
    let place = places.acquire()?;
    {
        let mut log = log.lock()?;
        log[0] += 1;
        log[1] = log[1].max(log[0]);
        println!("car {car} is in, with {} others", log[0] - 1);
    }
    // The first three stay until the lot is full.
    if full.count() > 0 {
        full.count_down()?;
        full.wait()?;
    }
    thread::sleep(Duration::from_millis(10)); // shopping
    {
        let mut log = log.lock()?;
        log[0] -= 1;
        log[2] += 1;
        println!("car {car} leaves");
    }
    drop(place);
    Ok(())
}

fn main() -> multiproc::Result<()> {
    let (places, full, log) = (Semaphore::new(PLACES)?, Latch::new(PLACES)?, Log::new([0; 3])?);
    let start = |car| Process::spawn(park, (car, places.clone(), full.clone(), log.clone()));
    let mut cars = (1..=CARS).map(start).collect::<Result<Vec<_>, _>>()?;
    cars.iter_mut().try_for_each(|car| car.join()?)?;

    let [inside, most, left] = *log.lock()?;
    println!("{left} cars parked, {most} of them at the same time");
    assert_eq!((inside, most, left), (0, PLACES, CARS));
    assert_eq!(places.available(), PLACES);
    Ok(())
}
