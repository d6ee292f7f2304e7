//! Vectors that are lent for reading while another thread sends them elsewhere.

mod common;

use common::watchdog;
use multiproc::{Event, Pool, SharedVec};
use std::thread;

fn pool() -> Pool {
    Pool::builder().workers(1).build().unwrap()
}

#[test]
fn a_vector_that_is_sealed_while_it_is_lent_for_reading_stays_readable_by_the_borrowers() {
    watchdog();
    let numbers: SharedVec<u64> = SharedVec::try_from_iter(0..100_000).unwrap();
    let (started, go) = (Event::new().unwrap(), Event::new().unwrap());
    let sum = |(started, go): &(Event, Event), _: usize, chunk: &[u64]| {
        started.set();
        go.wait();
        chunk.iter().sum::<u64>()
    };
    thread::scope(|scope| {
        let events = (started.clone(), go.clone());
        let numbers = &numbers;
        let lent = scope.spawn(move || pool().map_chunks_with(&events, numbers, 1, sum));
        started.wait();
        let seen = pool().map_with(numbers, |numbers: &SharedVec<u64>, at: usize| numbers[at], [7]);
        go.set();
        assert_eq!(seen.unwrap(), [7]);
        let sums = lent.join().unwrap().expect("every chunk was read");
        assert!(sums.into_iter().eq(0..100_000));
    });
    assert_eq!(numbers[..3], [0, 1, 2]);
}
