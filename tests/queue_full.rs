//! No memory, no descriptors, no file of that size: an error of the call, and the queue goes on.

mod common;

use common::sync::{finish, start};
use common::watchdog;
use multiproc::{LifoQueue, PriorityQueue, Queue};
use std::io;

/// Lowers a limit of this process.
fn limit(resource: libc::__rlimit_resource_t, to: u64) {
    let limit = libc::rlimit { rlim_cur: to, rlim_max: to };
    // SAFETY: the pointer is to a live structure.
    let result = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

type Queues = (Queue<Vec<u8>>, LifoQueue<Vec<u8>>, PriorityQueue<Vec<u8>>);

fn queues() -> Queues {
    (Queue::new().unwrap(), LifoQueue::new().unwrap(), PriorityQueue::new().unwrap())
}

#[test]
fn an_item_that_there_is_no_memory_for_is_an_error_and_the_rest_stays() {
    watchdog();
    // Files must not be so long here: as good as no memory, and the machine does not suffer.
    let put = |queues: Queues| {
        limit(libc::RLIMIT_FSIZE, 1 << 20);
        let large = vec![1; 3 << 20];
        let errors = [queues.0.put(&large), queues.1.put(&large), queues.2.put(&large)];
        let small = queues.0.put([2].to_vec()).is_ok()
            && queues.1.put([2].to_vec()).is_ok()
            && queues.2.put([2].to_vec()).is_ok();
        (errors.map(|put| put.is_err_and(|error| error.is_os() || error.is_out_of_memory())), small)
    };
    let queues = queues();
    assert_eq!(finish(start(put, (queues.clone(),))), ([true; 3], true));
    assert_eq!((queues.0.len(), queues.1.len(), queues.2.len()), (1, 1, 1));
    assert_eq!(queues.0.get().unwrap(), [2]);
    assert_eq!(queues.1.get().unwrap(), [2]);
    assert_eq!(queues.2.get().unwrap(), [2]);
}

#[test]
fn a_process_without_addresses_gets_an_error_and_others_go_on() {
    watchdog();
    let put = |queues: Queues| {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("statm");
        let pages: u64 = pages.split(' ').next().and_then(|word| word.parse().ok()).expect("pages");
        limit(libc::RLIMIT_AS, pages * 4096 + (180 << 20));
        let large = vec![1; 100 << 20];
        // The item is there, and a copy of it fits; the window that it would go to does not.
        let error = queues.1.put(&large).expect_err("no addresses");
        error.is_out_of_memory() || error.is_os()
    };
    let queues = queues();
    assert!(finish(start(put, (queues.clone(),))));
    queues.1.put([7].to_vec()).unwrap();
    assert_eq!(queues.1.get().unwrap(), [7]);
}

#[test]
fn no_descriptor_for_a_new_queue_is_an_error() {
    watchdog();
    let make = || {
        limit(libc::RLIMIT_NOFILE, 3);
        let errors = [
            Queue::<u8>::new().err(),
            Queue::<u8>::bounded(5).err(),
            LifoQueue::<u8>::new().err(),
            PriorityQueue::<u8>::new().err(),
        ];
        errors.map(|error| error.is_some_and(|error| error.is_os()))
    };
    assert_eq!(finish(start(make, ())), [true; 4]);
}

#[test]
fn putting_and_taking_need_no_descriptor() {
    watchdog();
    let use_all = |queues: Queues| {
        limit(libc::RLIMIT_NOFILE, 3);
        for len in [1, 100_000, 5 << 20] {
            queues.0.put(vec![1; len]).unwrap();
            queues.1.put(vec![1; len]).unwrap();
            queues.2.put(vec![1; len]).unwrap();
            assert_eq!(queues.0.get().unwrap().len(), len);
            assert_eq!(queues.1.get().unwrap().len(), len);
            assert_eq!(queues.2.get().unwrap().len(), len);
        }
    };
    finish(start(use_all, (queues(),)));
}

#[test]
fn queues_leave_no_memory_and_no_descriptor_behind() {
    watchdog();
    let count = || std::fs::read_dir("/proc/self/fd").expect("fd").count();
    let mappings = || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        maps.lines().filter(|line| line.contains("multiproc-")).count()
    };
    let check = move || {
        let before = (count(), mappings());
        for _ in 0..50 {
            let queues = queues();
            queues.0.put(vec![1; 1 << 20]).unwrap();
            queues.1.put(vec![1; 1 << 20]).unwrap();
            queues.2.put(vec![1; 1 << 20]).unwrap();
        }
        before == (count(), mappings())
    };
    // In a process of its own, where nobody else opens anything.
    assert!(check_in_a_process(check));
}

fn check_in_a_process<F: multiproc::Function<(), Output = bool>>(check: F) -> bool {
    finish(start(check, ()))
}
