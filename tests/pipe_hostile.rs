//! Peers that write random words all over a pipe, or garbage into its socket: the others may get
//! wrong messages, or errors, but what they call with a timeout returns, nobody panics, and nobody
//! is led outside of the memory.

mod common;

use common::scribble::under_fire;
use common::sockets::{has_something, send, sockets};
use common::sync::in_time;
use common::{wait_until, watchdog};
use multiproc::{Mutex, Pipe, PipeReceiver, PipeSender, wait};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(2);

#[test]
fn random_words_in_the_memory_of_a_pipe_hurt_nobody() {
    let _turn = common::sockets::turn();
    let ends: (PipeSender<Vec<u8>>, PipeReceiver<Vec<u8>>) = Pipe::one_way().unwrap();
    under_fire(&ends, "multiproc-pipe", |(sender, receiver)| {
        for len in [3, 50, 3000, 200_000] {
            let _ = sender.send_timeout(vec![len as u8; len], SHORT);
            let _ = sender.try_send(vec![1; len]);
        }
        let _ = (receiver.try_recv(), receiver.recv_timeout(SHORT), receiver.recv_timeout(SHORT));
        let _ = (receiver.len(), receiver.poll(SHORT), sender.is_closed());
        let _ = wait(&[receiver], Some(SHORT));
    });
    let ends: (PipeSender<Mutex<u8>>, PipeReceiver<Mutex<u8>>) = Pipe::one_way().unwrap();
    let mutex = Mutex::new(1).unwrap();
    under_fire(&ends, "multiproc-pipe", |(sender, receiver)| {
        let _ = sender.send_timeout(&mutex, SHORT);
        let _ = (receiver.try_recv(), receiver.recv_timeout(SHORT));
    });
}

/// What is no mail, one that is too old, one with numbers and no descriptors.
const GARBAGE: [&[u8]; 5] =
    [&[0], &[9; 100], &[1, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 5]];

#[test]
fn garbage_in_the_socket_of_a_pipe_is_passed_over() {
    watchdog();
    let _turn = common::sockets::turn();
    let before = sockets();
    let (sender, receiver) = Pipe::<Mutex<u32>>::one_way().unwrap();
    let both: Vec<i32> = sockets().difference(&before).copied().collect();
    assert_eq!(both.len(), 2);
    for round in 0..100 {
        for garbage in GARBAGE.iter().filter(|_| round % 2 == 0) {
            assert!(both.iter().all(|&socket| send(socket, garbage)));
        }
        assert!(wait(&[&receiver], Some(Duration::from_micros(100))).unwrap().is_empty());
        sender.send(Mutex::new(round).unwrap()).unwrap();
        assert_eq!(wait(&[&receiver], None).unwrap(), [0]);
        assert_eq!(*receiver.recv().unwrap().lock().unwrap(), round);
    }
    // A lie about what comes loses messages, and blocks nobody.
    assert!(both.iter().all(|&socket| send(socket, &[1, 255, 255, 255, 255, 255, 255, 255, 127])));
    sender.send(Mutex::new(7).unwrap()).unwrap();
    assert!(in_time(|| receiver.recv_timeout(SHORT)).is_err());
    // Until somebody waits, and finds that it is of nothing that is there. At the other end, where
    // nobody listens, it stays.
    wait_until("it is thrown away", || {
        assert!(wait(&[&receiver], Some(SHORT)).unwrap().is_empty());
        !both.iter().all(|&socket| has_something(socket))
    });
    sender.send(Mutex::new(8).unwrap()).unwrap();
    assert_eq!(*receiver.recv().unwrap().lock().unwrap(), 8);
    drop(sender);
    assert!(in_time(|| receiver.recv()).unwrap_err().is_end_of_file());
}

#[test]
fn a_flood_in_the_socket_of_a_pipe_keeps_nobody() {
    watchdog();
    let _turn = common::sockets::turn();
    let before = sockets();
    let (sender, receiver) = Pipe::<Mutex<u32>>::one_way().unwrap();
    let both: Vec<i32> = sockets().difference(&before).copied().collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = send(both[0], &[0]) | send(both[1], &[0]);
            }
        });
        for round in 0..20 {
            // There may be no room for what is sent, and what came may be lost.
            let _ = sender.send_timeout(Mutex::new(round).unwrap(), SHORT);
            let _ = in_time(|| (receiver.try_recv(), receiver.recv_timeout(SHORT)));
            let _ = in_time(|| wait(&[&receiver], Some(SHORT)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Afterwards all is as it was.
    while receiver.try_recv().unwrap().is_some() {}
    let mutex = Mutex::new(70).unwrap();
    wait_until("there is room", || {
        let _ = wait(&[&receiver], Some(SHORT));
        sender.try_send(&mutex).unwrap()
    });
    assert_eq!(*in_time(|| receiver.recv()).unwrap().lock().unwrap(), 70);
}
