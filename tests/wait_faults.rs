//! Waiting for several things while those who make them ready, or wait for them, too, are killed.

mod common;

use common::sockets::{send, sockets, turn};
use common::sync::{finish, in_time, kill, start, switches, wait_until_asleep};
use common::watchdog;
use multiproc::{Mutex, Pipe, PipeReceiver, PipeSender, Queue, wait};
use std::time::Duration;

fn wait_for_ever(queue: Queue<u64>, receiver: PipeReceiver<u64>) {
    let _ = wait(&[&queue, &receiver], None);
}

#[test]
fn who_is_killed_waiting_keeps_no_news_from_others() {
    watchdog();
    let _turn = turn();
    let queue = Queue::<u64>::new().unwrap();
    let (sender, receiver) = Pipe::<u64>::one_way().unwrap();
    for round in 0..20 {
        let process = start(wait_for_ever, (queue.clone(), receiver.clone()));
        wait_until_asleep(&process);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&[&queue, &receiver], None));
            kill(process);
            match round % 2 {
                0 => queue.put(round).unwrap(),
                _ => sender.send(round).unwrap(),
            }
            let ready = in_time(|| waiting.join()).unwrap().unwrap();
            assert_eq!(ready, [round as usize % 2]);
        });
        let item = if round % 2 == 0 { queue.get() } else { receiver.recv() };
        assert_eq!(item.unwrap(), round);
    }
}

/// Puts and sends until it is killed.
fn feed(queue: Queue<Vec<u8>>, sender: PipeSender<Mutex<u64>>) {
    let mutex = Mutex::new(7).unwrap();
    for number in 0_usize.. {
        queue.put(vec![7; number * 37 % 3000]).unwrap();
        if number.is_multiple_of(3) && !sender.try_send(&mutex).unwrap() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn who_is_killed_feeding_leaves_whole_items_and_then_silence() {
    watchdog();
    let _turn = turn();
    let queue = Queue::<Vec<u8>>::bounded(50).unwrap();
    for round in 0..30 {
        let (sender, receiver) = Pipe::<Mutex<u64>>::one_way().unwrap();
        let mut process = Some(start(feed, (queue.clone(), sender)));
        let mut count = 0;
        loop {
            for ready in in_time(|| wait(&[&queue, &receiver], None)).unwrap() {
                if ready == 0 {
                    let item = queue.try_get().unwrap();
                    assert!(item.is_none_or(|item| item.iter().all(|&byte| byte == 7)));
                }
            }
            let end = match receiver.try_recv() {
                Ok(Some(mutex)) => {
                    assert_eq!(*mutex.lock().unwrap(), 7);
                    false
                }
                Ok(None) => false,
                Err(error) => {
                    assert!(error.is_end_of_file(), "{error}");
                    true
                }
            };
            count += 1;
            if count == 20 + 13 * round {
                kill(process.take().unwrap());
            }
            if end {
                break;
            }
        }
        while queue.try_get().unwrap().is_some() {}
        assert!(wait(&[&queue], Some(Duration::from_millis(1))).unwrap().is_empty());
    }
}

#[test]
fn what_a_dead_sender_left_in_the_socket_keeps_nobody_busy() {
    watchdog();
    let _turn = turn();
    let before = sockets();
    let queue = Queue::<Mutex<u64>>::new().unwrap();
    let (sender, receiver) = Pipe::<Mutex<u64>>::one_way().unwrap();
    let new: Vec<i32> = sockets().difference(&before).copied().collect();
    assert_eq!(new.len(), 3);
    for _ in 0..3 {
        // A mail, of a high number, whose item was never put.
        assert!(new.iter().all(|&socket| send(socket, &[1, 255, 0, 0, 0, 0, 0, 0, 0])));
        let asleep = switches();
        let timeout = Some(Duration::from_millis(500));
        assert!(wait(&[&queue, &receiver], timeout).unwrap().is_empty());
        let times = switches() - asleep;
        assert!(times < 100, "woken {times} times for nothing");
        queue.put(Mutex::new(1).unwrap()).unwrap();
        sender.send(Mutex::new(2).unwrap()).unwrap();
        assert_eq!(wait(&[&queue, &receiver], None).unwrap(), [0, 1]);
        assert_eq!(*queue.get().unwrap().lock().unwrap(), 1);
        assert_eq!(*receiver.recv().unwrap().lock().unwrap(), 2);
    }
}

fn take_all(queues: [Queue<u64>; 3]) -> u64 {
    let mut sum = 0;
    loop {
        let ready = wait(&[&queues[0], &queues[1], &queues[2]], None).unwrap();
        for index in ready {
            match queues[index].try_get() {
                Ok(Some(number)) => sum += number,
                Ok(None) => {}
                Err(error) => {
                    assert!(error.is_closed(), "{error}");
                    if queues.iter().all(|queue| queue.is_closed() && queue.is_empty()) {
                        return sum;
                    }
                }
            }
        }
    }
}

#[test]
fn several_processes_that_wait_take_each_item_once() {
    watchdog();
    let _turn = turn();
    let queues = [(); 3].map(|()| Queue::<u64>::bounded(4).unwrap());
    let takers = [(); 3].map(|()| start(take_all, (queues.clone(),)));
    for number in 1..=3000 {
        queues[number as usize % 3].put(number).unwrap();
    }
    queues.iter().for_each(Queue::close);
    let sum: u64 = takers.into_iter().map(finish).sum();
    assert_eq!(sum, 3000 * 3001 / 2);
}
