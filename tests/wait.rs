//! Waiting for whichever of many things is ready first.

mod common;

use common::sync::{finish, in_time, kill, start, wait_until_asleep};
use common::watchdog;
use multiproc::{
    Event, JoinableQueue, LifoQueue, Mutex, Pipe, PipeEnd, PipeReceiver, PriorityQueue, Queue,
    SimpleQueue, wait,
};
use std::io::Write;
use std::time::Duration;

const NOW: Option<Duration> = Some(Duration::ZERO);

fn put_when(queue: Queue<u32>, go: Event) {
    go.wait();
    queue.put(1).expect("put");
}

#[test]
fn each_kind_is_reported_when_it_is_ready_and_not_before() {
    watchdog();
    let queue = Queue::<u32>::new().expect("queue");
    let simple = SimpleQueue::<u32>::new().expect("queue");
    let joinable = JoinableQueue::<u32>::new().expect("queue");
    let priority = PriorityQueue::<u32>::new().expect("queue");
    let lifo = LifoQueue::<u32>::new().expect("queue");
    let (sender, receiver) = Pipe::<u32>::one_way().expect("pipe");
    let (near, far) = Pipe::<u32>::duplex().expect("pipe");
    let (mut writer, reader) = std::os::unix::net::UnixStream::pair().expect("socket");
    let pool = multiproc::Pool::builder().workers(1).build().expect("pool");
    let go = Event::new().expect("event");
    let result = pool.apply_async(|go: Event| go.wait(), (go.clone(),)).expect("apply");
    let other = Event::new().expect("event");
    let process = start(|other: Event| other.wait(), (other.clone(),));
    let objects: [&dyn multiproc::Wait; 10] = [
        &queue, &simple, &joinable, &priority, &lifo, &receiver, &near, &reader, &result, &process,
    ];
    assert!(wait(&objects, NOW).expect("wait").is_empty());
    assert!(wait(&objects, Some(Duration::from_millis(3))).expect("wait").is_empty());
    queue.put(1).expect("put");
    assert_eq!(wait(&objects, None).expect("wait"), [0]);
    simple.put(1).expect("put");
    joinable.put(1).expect("put");
    priority.put(1).expect("put");
    lifo.put(1).expect("put");
    assert_eq!(wait(&objects, None).expect("wait"), [0, 1, 2, 3, 4]);
    sender.send(1).expect("send");
    far.send(1).expect("send");
    writer.write_all(b"x").expect("write");
    assert_eq!(wait(&objects, NOW).expect("wait"), [0, 1, 2, 3, 4, 5, 6, 7]);
    go.set();
    assert_eq!(in_time(|| wait(&objects[8..9], None)).expect("wait"), [0]);
    other.set();
    assert_eq!(in_time(|| wait(&objects[9..], None)).expect("wait"), [0]);
    result.get().expect("result");
    finish(process);
}

#[test]
fn a_sleeping_wait_is_woken_by_another_process() {
    watchdog();
    let queues: Vec<_> = (0..3).map(|_| Queue::<u32>::new().expect("queue")).collect();
    let go = Event::new().expect("event");
    let process = start(put_when, (queues[2].clone(), go.clone()));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&[&queues[0], &queues[1], &queues[2]], None));
        go.set();
        assert_eq!(in_time(|| waiting.join()).expect("join").expect("wait"), [2]);
    });
    finish(process);
}

fn hold(end: PipeEnd<u32>) {
    let _ = end.recv();
}

#[test]
fn the_end_of_a_peer_is_news() {
    watchdog();
    for is_killed in [false, true] {
        let (near, far) = Pipe::<u32>::duplex().expect("pipe");
        let process = start(hold, (far,));
        wait_until_asleep(&process);
        assert!(wait(&[&near], NOW).expect("wait").is_empty());
        if is_killed {
            kill(process);
        } else {
            near.send(1).expect("send");
            finish(process);
        }
        assert_eq!(in_time(|| wait(&[&near], None)).expect("wait"), [0]);
        assert!(near.recv().expect_err("the end").is_end_of_file());
    }
    let queue = Queue::<u32>::new().expect("queue");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&[&queue], None));
        queue.close();
        assert_eq!(in_time(|| waiting.join()).expect("join").expect("wait"), [0]);
    });
}

fn feed(queues: Vec<Queue<u64>>, from: u64) {
    for number in 0..500 {
        queues[((number + from) % 3) as usize].put(from + number).expect("put");
    }
}

#[test]
fn nothing_is_missed_while_several_wait_for_several() {
    watchdog();
    let queues: Vec<_> = (0..3).map(|_| Queue::<u64>::new().expect("queue")).collect();
    let feeders: Vec<_> = (0..2).map(|who| start(feed, (queues.clone(), who * 500))).collect();
    let taken = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    if taken.lock().expect("taken").len() == 1000 {
                        queues.iter().for_each(Queue::close);
                        return;
                    }
                    let timeout = Some(Duration::from_millis(20));
                    for ready in wait(&[&queues[0], &queues[1], &queues[2]], timeout).expect("wait")
                    {
                        if let Ok(Some(number)) = queues[ready].try_get() {
                            taken.lock().expect("taken").push(number);
                        }
                    }
                }
            });
        }
    });
    let mut taken = taken.into_inner().expect("taken");
    taken.sort_unstable();
    assert!(taken.into_iter().eq(0..1000));
    feeders.into_iter().for_each(finish);
}

fn take(queue: Queue<Mutex<u8>>) -> u8 {
    *queue.get().expect("get").lock().expect("lock")
}

#[test]
fn waiting_takes_nothing_from_those_who_get() {
    watchdog();
    let queue = Queue::new().expect("queue");
    let process = start(take, (queue.clone(),));
    wait_until_asleep(&process);
    // Bells and mails go through one socket.
    assert!(wait(&[&queue], Some(Duration::from_millis(2))).expect("wait").is_empty());
    queue.put(Mutex::new(7).expect("mutex")).expect("put");
    assert_eq!(finish(process), 7);
    assert!(wait(&[&queue], NOW).expect("wait").is_empty());
    queue.put(Mutex::new(8).expect("mutex")).expect("put");
    assert_eq!(wait(&[&queue], None).expect("wait"), [0]);
    assert_eq!(take(queue), 8);
}

#[test]
fn no_object_at_all_is_a_wait_for_the_timeout() {
    watchdog();
    assert!(wait(&[], Some(Duration::from_millis(1))).expect("wait").is_empty());
    let receiver: PipeReceiver<u8> = Pipe::one_way().expect("pipe").1;
    assert_eq!(wait(&[&receiver, &receiver], None).expect("its sender is gone"), [0, 1]);
}
