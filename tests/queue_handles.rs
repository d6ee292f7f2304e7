//! Items that name shared objects: their descriptors travel beside them.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{
    Error, Event, FrozenVec, JoinableQueue, Latch, LifoQueue, Mutex, Pipe, PipeReceiver,
    PriorityQueue, Queue, SharedVec, SimpleQueue, Value,
};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Duration;

/// A question, with the address for the answer.
#[derive(Serialize, Deserialize)]
struct Question {
    number: u64,
    answer: Queue<u64>,
}

#[test]
fn a_queue_in_an_item_is_the_address_for_the_answer() {
    watchdog();
    let questions = Queue::<Question>::bounded(10).unwrap();
    let answer = |questions: Queue<Question>| {
        for question in questions.iter().map(|question| question.expect("a question")) {
            question.answer.put(question.number * 2).expect("it is open");
        }
    };
    let ask = |questions: Queue<Question>, first: u64| {
        let answer = Queue::new().expect("memory");
        (first..first + 100).all(|number| {
            questions.put(Question { number, answer: answer.clone() }).expect("it is open");
            answer.get().expect("an answer") == number * 2
        })
    };
    let server = start(answer, (questions.clone(),));
    let clients = [0, 1000, 2000].map(|first| start(ask, (questions.clone(), first)));
    assert_eq!(clients.map(finish), [true; 3]);
    questions.close();
    finish(server);
}

#[test]
fn an_item_names_several_objects_and_the_same_one_more_than_once() {
    watchdog();
    type Item = (Mutex<u64>, Vec<Value<u32>>, Mutex<u64>, FrozenVec<u64>, SimpleQueue<String>);
    let queue = JoinableQueue::<Item>::new().unwrap();
    let work = |queue: JoinableQueue<Item>| {
        for item in &queue {
            let (mutex, values, again, vector, back) = item.expect("an item");
            *mutex.lock().expect("nobody dies") += vector.iter().sum::<u64>();
            *again.lock().expect("nobody dies") += 1;
            values.iter().for_each(|value| *value.lock().expect("nobody dies") += 1);
            back.put("done".to_owned()).expect("it is open");
            queue.task_done().expect("it was taken");
        }
    };
    let worker = start(work, (queue.clone(),));
    let mutex = Mutex::new(0).unwrap();
    let values: Vec<_> = (0..20).map(|number| Value::new(number).unwrap()).collect();
    let vector = SharedVec::from_slice(&[1_u64, 2, 3]).unwrap().freeze().unwrap();
    let back = SimpleQueue::new().unwrap();
    for _ in 0..10 {
        let item = (mutex.clone(), values.clone(), mutex.clone(), vector.clone(), back.clone());
        queue.put(item).unwrap();
    }
    queue.join_timeout(PATIENCE).unwrap();
    assert_eq!(*mutex.lock().unwrap(), 70);
    let sums = values.iter().map(|value| *value.lock().unwrap());
    assert!(sums.enumerate().all(|(number, value)| value == number as u32 + 10));
    assert_eq!(in_time(|| back.get()).unwrap(), "done");
    queue.close();
    finish(worker);
}

#[test]
fn an_object_lives_in_a_queue_when_whoever_put_it_is_gone() {
    watchdog();
    let queue = Queue::<Mutex<u64>>::new().unwrap();
    let put = |queue: Queue<Mutex<u64>>| {
        (1..=5).for_each(|number| queue.put(Mutex::new(number).expect("memory")).expect("open"));
        std::process::abort();
    };
    let mut process = start::<_, _, ()>(put, (queue.clone(),));
    assert!(process.join_timeout(PATIENCE).is_err());
    for number in 1..=5 {
        assert_eq!(*in_time(|| queue.get()).unwrap().lock().unwrap(), number);
    }
}

#[test]
fn small_items_and_large_ones_with_objects_and_without_keep_their_order() {
    watchdog();
    type Item = (u32, Option<Value<u32>>, String);
    let queue = Queue::<Item>::bounded(7).unwrap();
    let put = |queue: Queue<Item>| {
        for number in 0..400_u32 {
            let value = (number % 3 == 0).then(|| Value::new(number).expect("memory"));
            let text = "x".repeat([0, 100, 200_000][number as usize % 7 % 3]);
            queue.put((number, value, text)).expect("it is open");
        }
        queue.close();
    };
    let producer = start(put, (queue.clone(),));
    let mut count = 0;
    for item in &queue {
        let (number, value, text) = item.unwrap();
        assert_eq!((number, text.len()), (count, [0, 100, 200_000][number as usize % 7 % 3]));
        assert_eq!(value.map(|value| value.get().unwrap()), (number % 3 == 0).then_some(number));
        count += 1;
    }
    finish(producer);
    assert_eq!(count, 400);
}

#[test]
fn a_queue_with_as_many_objects_as_the_kernel_carries_counts_as_full() {
    watchdog();
    let queue = Queue::<Value<u32>>::new().unwrap();
    let mut count = 0;
    while queue.try_put(Value::new(count).unwrap()).unwrap() {
        count += 1;
        assert!(count < 100_000, "there is a limit somewhere");
    }
    assert!(count >= 50, "{count}");
    let value = Value::new(count).unwrap();
    let error = queue.put_timeout(&value, Duration::from_millis(5)).expect_err("it is full");
    assert!(error.is_timeout());
    let take = |queue: Queue<Value<u32>>| {
        queue.iter().map(|value| value.and_then(|value| value.get()).expect("a number")).collect()
    };
    let taker = start::<_, _, Vec<u32>>(take, (queue.clone(),));
    in_time(|| queue.put(value)).unwrap();
    queue.close();
    assert!(finish(taker).into_iter().eq(0..=count));
}

#[test]
fn an_item_for_which_a_process_has_too_many_open_files_stays_there() {
    watchdog();
    fn take(queue: Queue<(Value<u32>, Vec<u8>)>, receiver: PipeReceiver<Value<u32>>) -> String {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the pointer is to a live structure.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        let files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        let errors = [queue.get().map(drop), queue.try_get().map(drop), receiver.recv().map(drop)];
        drop(files);
        let first = queue.get().and_then(|(value, _)| value.get()).expect("it is still there");
        let message = receiver.recv().and_then(|value| value.get()).expect("it is still there");
        assert_eq!((first, message), (0, 7));
        let text = |error: Error| error.is_os().then(|| error.to_string()).expect("its own error");
        errors.map(|error| text(error.expect_err("no descriptor is left"))).join(";")
    }
    // An item in the ring, and one that has a place of its own.
    for len in [0, 1 << 18] {
        let (queue, (sender, receiver)) = (Queue::new().unwrap(), Pipe::one_way().unwrap());
        for number in 0..2 {
            queue.put((Value::new(number).unwrap(), vec![1; len])).unwrap();
        }
        sender.send(Value::new(7).unwrap()).unwrap();
        let text = finish(start(take, (queue.clone(), receiver)));
        assert_eq!(text.matches("open files").count(), 3, "{text}");
        let (second, bytes) = queue.get().unwrap();
        assert_eq!((second.get().unwrap(), bytes), (1, vec![1; len]));
        assert_eq!(queue.stats().lost, 0);
    }
}

#[test]
fn descriptors_of_items_are_closed_again() {
    watchdog();
    type Item = (Value<u32>, Queue<u8>);
    let (queue, stack) = (Queue::<Item>::new().unwrap(), LifoQueue::<Item>::new().unwrap());
    let take = |queue: Queue<Item>, stack: LifoQueue<Item>| {
        let count = || std::fs::read_dir("/proc/self/fd").expect("fd").count();
        let mut counts = HashSet::new();
        for item in &queue {
            drop(item.expect("an item"));
            drop(stack.get().expect("an item"));
            counts.insert(count());
        }
        counts.len()
    };
    let taker = start(take, (queue.clone(), stack.clone()));
    for number in 0..300 {
        let item = (Value::new(number).unwrap(), Queue::new().unwrap());
        queue.put(&item).unwrap();
        stack.put(item).unwrap();
    }
    queue.close();
    assert_eq!(finish(taker), 1, "always as many are open");
}

#[test]
fn a_queue_may_be_put_into_itself() {
    watchdog();
    #[derive(Serialize, Deserialize, Clone)]
    struct Knot(Option<Queue<Knot>>);
    let queue = Queue::<Knot>::new().unwrap();
    queue.put(Knot(Some(queue.clone()))).unwrap();
    let untie = |queue: Queue<Knot>| {
        let inner = queue.get().expect("a knot").0.expect("with a queue");
        inner.put(Knot(None)).expect("it is open");
    };
    finish(start(untie, (queue.clone(),)));
    assert!(queue.get().unwrap().0.is_none());
    queue.put(Knot(Some(queue.clone()))).unwrap();
}

#[test]
fn producers_and_consumers_of_objects_that_are_killed_tear_nothing() {
    watchdog();
    const KILLS: usize = 60;
    type Item = (u64, Value<u64>);
    let (queue, seen) = (Queue::<Item>::bounded(20).unwrap(), Queue::<u64>::new().unwrap());
    let produce = |queue: Queue<Item>, first: u64, stop: Event| {
        for number in first.. {
            let value = Value::new(number).expect("memory");
            if stop.is_set() || queue.put((number, value)).is_err() {
                return;
            }
        }
    };
    let consume = |queue: Queue<Item>, seen: Queue<u64>| {
        for item in &queue {
            let (number, value) = item.expect("whole");
            assert_eq!(value.get().expect("nobody dies with it"), number, "another's object");
            seen.put(number).expect("it is open");
        }
    };
    let stop = Event::new().unwrap();
    let mut first = 0;
    let mut producer = || {
        first += 1 << 32;
        start(produce, (queue.clone(), first, stop.clone()))
    };
    let consumer = || start(consume, (queue.clone(), seen.clone()));
    let (mut producers, mut consumers) = ([producer(), producer()], [consumer(), consumer()]);
    for round in 0..KILLS {
        let before = seen.len();
        wait_until("some came", || seen.len() > before + round % 7);
        kill(std::mem::replace(&mut producers[round % 2], producer()));
        kill(std::mem::replace(&mut consumers[round / 2 % 2], consumer()));
    }
    stop.set();
    finish_all(producers);
    queue.close();
    finish_all(consumers);
    seen.close();
    let numbers: Vec<u64> = seen.iter().map(Result::unwrap).collect();
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len(), "an item came twice");
    let stats = queue.stats();
    assert_eq!(stats.put, stats.taken + stats.lost + stats.len, "{stats:?}");
    assert!(stats.put - numbers.len() as u64 <= KILLS as u64, "{stats:?}");
}

/// A job that is compared by its urgency, with the address for the answer.
#[derive(Serialize, Deserialize)]
struct Job {
    urgency: u64,
    answer: Queue<u64>,
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        self.urgency.cmp(&other.urgency)
    }
}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.urgency == other.urgency
    }
}

impl Eq for Job {}

#[test]
fn items_with_objects_are_sorted_and_stacked() {
    watchdog();
    let (jobs, answer) = (PriorityQueue::<Job>::new().unwrap(), Queue::new().unwrap());
    for urgency in [5, 1, 4, 2, 3] {
        jobs.put(Job { urgency, answer: answer.clone() }).unwrap();
    }
    jobs.close();
    let work = |jobs: PriorityQueue<Job>| {
        for job in jobs.iter().map(|job| job.expect("a job")) {
            job.answer.put(job.urgency).expect("it is open");
        }
    };
    finish(start(work, (jobs,)));
    assert_eq!((1..=5).map(|_| answer.get().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let stack = LifoQueue::<Option<Value<u32>>>::bounded(100).unwrap();
    for round in 0..20 {
        let value = |number| (number % 4 != 0).then(|| Value::new(number).expect("memory"));
        (0..30).for_each(|number| stack.put(value(round * 30 + number)).unwrap());
        let take = |stack: LifoQueue<Option<Value<u32>>>| {
            let number = |value: Value<u32>| value.get().expect("nobody dies with it");
            (0..30).map(|_| stack.get().expect("a value").map(number)).collect()
        };
        let taken: Vec<Option<u32>> = finish(start(take, (stack.clone(),)));
        let expected = (0..30).rev().map(|number| round * 30 + number);
        assert!(taken.into_iter().eq(expected.map(|number| (number % 4 != 0).then_some(number))));
    }
}

#[test]
fn a_stack_with_as_many_objects_as_the_kernel_carries_counts_as_full() {
    watchdog();
    let stack = LifoQueue::<Value<u32>>::new().unwrap();
    let mut count = 0;
    while stack.try_put(Value::new(count).unwrap()).unwrap() {
        count += 1;
        assert!(count < 100_000, "there is a limit somewhere");
    }
    assert!(count >= 50, "{count}");
    let value = Value::new(count).unwrap();
    let error = stack.put_timeout(&value, Duration::from_millis(5)).expect_err("it is full");
    assert!(error.is_timeout());
    let putter = start(
        |stack: LifoQueue<Value<u32>>, value: Value<u32>| stack.put(value).is_ok(),
        (stack.clone(), value),
    );
    assert_eq!(in_time(|| stack.get()).unwrap().get().unwrap(), count - 1);
    assert!(finish(putter));
    assert_eq!(stack.get().unwrap().get().unwrap(), count);
}

#[test]
fn a_process_with_too_many_open_files_leaves_the_item_in_the_stack() {
    watchdog();
    let stack = LifoQueue::<Value<u32>>::new().unwrap();
    stack.put(Value::new(7).unwrap()).unwrap();
    let take = |stack: LifoQueue<Value<u32>>| {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the pointer is to a live structure.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        let files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        let error = stack.get().expect_err("no descriptor is left");
        drop(files);
        error.is_os()
    };
    assert!(finish(start(take, (stack.clone(),))));
    assert_eq!(stack.get().unwrap().get().unwrap(), 7);
}

#[test]
fn who_is_killed_with_a_stack_of_objects_leaves_it_in_order() {
    watchdog();
    const KILLS: usize = 60;
    let stack = LifoQueue::<(u64, Value<u64>)>::new().unwrap();
    let churn = |stack: LifoQueue<(u64, Value<u64>)>, first: u64| {
        for number in first.. {
            stack.put((number, Value::new(number).expect("memory"))).expect("it is open");
            let (number, value) = stack.get().expect("whole");
            assert_eq!(value.get().expect("nobody dies with it"), number, "another's object");
        }
    };
    let mut first = 0;
    let mut new = || {
        first += 1 << 32;
        start(churn, (stack.clone(), first))
    };
    let mut processes = [new(), new()];
    for kill_number in 0..KILLS {
        let before = stack.stats().taken;
        wait_until("some were taken", || stack.stats().taken > before + kill_number as u64 % 7);
        kill(std::mem::replace(&mut processes[kill_number % 2], new()));
    }
    processes.into_iter().for_each(kill);
    let mut rest = 0;
    while let Some((number, value)) = stack.try_get().unwrap() {
        assert_eq!(value.get().unwrap(), number, "another's object");
        rest += 1;
    }
    let stats = stack.stats();
    assert_eq!((stats.put, stats.lost, stats.len), (stats.taken, 0, 0), "{stats:?}");
    assert!(rest <= KILLS + 2, "{rest}");
}

#[test]
fn a_latch_in_an_item_tells_who_put_it_that_it_arrived() {
    watchdog();
    let queue = Queue::<Latch>::new().unwrap();
    let take = |queue: Queue<Latch>| queue.get().expect("a latch").count_down().is_ok();
    let latch = Latch::new(1).unwrap();
    queue.put(&latch).unwrap();
    let taker = start(take, (queue,));
    in_time(|| latch.wait_timeout(PATIENCE)).unwrap();
    assert!(finish(taker));
}
