//! Pipes between processes: messages whole and in order, and what the ends hear of each other.

mod common;

use common::sync::{finish, in_time, kill, start, wait_until_asleep};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Event, Mutex, Pipe, PipeEnd, PipeReceiver, PipeSender, Pool};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Message {
    Nothing,
    Text(String),
    Numbers(Vec<f64>),
}

fn echo<T: multiproc::Data>(end: PipeEnd<T>) -> multiproc::Result<u64> {
    let mut count = 0;
    for message in &end {
        end.send(message?)?;
        count += 1;
    }
    Ok(count)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

#[test]
fn values_come_back_as_they_went_and_in_order() {
    watchdog();
    let (here, there) = Pipe::<Message>::duplex().expect("pipe");
    let process = start(echo::<Message>, (there,));
    let messages = |round: usize| {
        let text = "x".repeat(round * round);
        [Message::Nothing, Message::Text(text), Message::Numbers(vec![0.5; round * 100])]
    };
    for round in 0..60 {
        for message in messages(round) {
            here.send(&message).expect("send");
        }
        for message in messages(round) {
            assert_eq!(here.recv().expect("recv"), message);
        }
    }
    drop(here);
    assert_eq!(finish(process).expect("echo"), 180);
}

#[test]
fn messages_keep_their_boundaries_whatever_their_size() {
    watchdog();
    let (here, there) = Pipe::<Vec<u8>>::duplex().expect("pipe");
    let process = start(echo::<Vec<u8>>, (there,));
    for len in [0, 1, 31, 32, 33, 1000, 65_536, 131_064, 131_065, 1 << 20, 16 << 20] {
        let message = pattern(len);
        here.send(&message).expect("send");
        assert!(here.recv().expect("recv") == message, "{len} bytes");
    }
    drop(here);
    finish(process).expect("echo");
}

fn raw_echo(end: PipeEnd<u8>) -> multiproc::Result<()> {
    let mut buffer = vec![0; 100];
    while let Ok(len) = end.recv_bytes_into(&mut buffer) {
        end.send_bytes(&buffer[..len])?;
    }
    Ok(())
}

#[test]
fn raw_bytes_travel_beside_values_and_each_is_received_as_what_it_is() {
    watchdog();
    let (here, there) = Pipe::<u8>::duplex().expect("pipe");
    let process = start(raw_echo, (there,));
    for len in [0, 1, 50, 100] {
        here.send_bytes(pattern(len)).expect("send");
        assert_eq!(here.recv_bytes(100).expect("recv"), pattern(len));
    }
    drop(here);
    finish(process).expect("echo");

    let (sender, receiver) = Pipe::<u8>::one_way().expect("pipe");
    sender.send_bytes([1, 2, 3]).expect("send");
    sender.send(7).expect("send");
    assert!(receiver.recv().expect_err("raw").is_decode());
    let error = receiver.recv_bytes(2).expect_err("too large");
    assert!(error.is_too_large() && error.to_string().contains('3'), "{error}");
    assert!(receiver.recv_bytes_into(&mut [0; 2]).expect_err("too large").is_too_large());
    assert_eq!(receiver.recv_bytes(3).expect("still there"), [1, 2, 3]);
    assert!(receiver.recv_bytes(9).expect_err("a value").is_decode());
    assert_eq!(receiver.recv().expect("the value"), 7);
    let error = receiver.recv_bytes_timeout(9, Duration::from_millis(1)).expect_err("none");
    assert!(error.is_timeout(), "{error}");
    sender.send_bytes_timeout([4; 9], Duration::ZERO).expect("there is room");
    assert_eq!(receiver.recv_bytes_timeout(9, Duration::ZERO).expect("it is there"), [4; 9]);
    let full = |_| sender.send_bytes_timeout([0; 50_000], Duration::ZERO).err();
    let error = (0..1000).find_map(full).expect("a pipe that is never full");
    assert!(error.is_timeout(), "{error}");
}

fn hold(sender: PipeSender<u32>, go: Event) {
    sender.send(1).expect("send");
    go.wait();
}

#[test]
fn a_reader_gets_what_was_sent_and_then_the_end_of_file() {
    watchdog();
    for is_killed in [false, true] {
        let (sender, receiver) = Pipe::one_way().expect("pipe");
        let go = Event::new().expect("event");
        let process = start(hold, (sender, go.clone()));
        assert_eq!(receiver.recv().expect("recv"), 1);
        assert_eq!(receiver.try_recv().expect("open"), None);
        assert!(!receiver.poll(Duration::ZERO).expect("poll"));
        assert!(receiver.recv_timeout(Duration::from_millis(1)).expect_err("none").is_timeout());
        if is_killed {
            kill(process);
        } else {
            go.set();
            finish(process);
        }
        assert!(in_time(|| receiver.recv()).expect_err("the end").is_end_of_file());
        assert!(receiver.poll(Duration::ZERO).expect("poll"));
        assert!(receiver.try_recv().expect_err("the end").is_end_of_file());
        assert_eq!(receiver.iter().count(), 0);
    }
}

fn wait_for_message(receiver: PipeReceiver<u32>) -> bool {
    receiver.recv().is_err_and(|error| error.is_end_of_file())
}

#[test]
fn a_sleeping_reader_is_woken_by_the_end_of_file() {
    watchdog();
    let (sender, receiver) = Pipe::one_way().expect("pipe");
    let process = start(wait_for_message, (receiver,));
    wait_until_asleep(&process);
    drop(sender);
    assert!(finish(process));
}

/// The other end is gone as soon as no process has it. One that another test starts in this moment
/// has all descriptors of this process until it executes; where nobody else is, in `pipe_killed`,
/// the news is there at once.
fn wait_until_closed<T: multiproc::Data>(sender: &PipeSender<T>) {
    wait_until("nobody reads", || sender.is_closed());
}

fn take_one(receiver: PipeReceiver<Vec<u8>>, taken: Event, go: Event) {
    receiver.recv().expect("recv");
    taken.set();
    go.wait();
}

#[test]
fn a_writer_is_told_when_nobody_reads() {
    watchdog();
    let (sender, receiver) = Pipe::<u32>::one_way().expect("pipe");
    sender.send(1).expect("send");
    assert!(!sender.is_closed());
    drop(receiver);
    wait_until_closed(&sender);
    assert!(sender.send(2).expect_err("nobody reads").is_closed());

    for is_killed in [false, true] {
        let (sender, receiver) = Pipe::<Vec<u8>>::one_way().expect("pipe");
        let [taken, go] = [(); 2].map(|()| Event::new().expect("event"));
        let process = start(take_one, (receiver, taken.clone(), go.clone()));
        sender.send(vec![1]).expect("send");
        assert!(taken.wait_timeout(PATIENCE), "it was received");
        if is_killed {
            kill(process);
        } else {
            go.set();
            finish(process);
        }
        wait_until_closed(&sender);
        assert!(sender.send(vec![2]).expect_err("nobody reads").is_closed());
        assert!(sender.send_bytes([1]).expect_err("nobody reads").is_closed());
    }
}

#[test]
fn a_writer_that_waits_for_room_is_told_when_nobody_reads() {
    watchdog();
    let (sender, receiver) = Pipe::<Vec<u8>>::one_way().expect("pipe");
    while sender.try_send(vec![0; 10_000]).expect("open") {}
    let timeout = sender.send_timeout(vec![0; 10_000], Duration::from_millis(2));
    assert!(timeout.expect_err("full").is_timeout());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sender.send(vec![0; 10_000]));
        drop(receiver);
        assert!(in_time(|| waiting.join()).expect("join").expect_err("gone").is_closed());
    });
}

#[test]
fn a_clone_in_another_process_keeps_an_end_open() {
    watchdog();
    let (sender, receiver) = Pipe::one_way().expect("pipe");
    let go = Event::new().expect("event");
    let process = start(hold, (sender.clone(), go.clone()));
    drop(sender);
    assert_eq!(receiver.recv().expect("recv"), 1);
    assert!(receiver.recv_timeout(Duration::from_millis(5)).expect_err("open").is_timeout());
    go.set();
    finish(process);
    assert!(in_time(|| receiver.recv()).expect_err("the end").is_end_of_file());
}

fn serve(requests: PipeReceiver<(PipeSender<u64>, Mutex<u64>)>) -> multiproc::Result<()> {
    for request in &requests {
        let (answer, total) = request?;
        let mut total = total.lock()?;
        *total += 1;
        answer.send(*total)?;
    }
    Ok(())
}

#[test]
fn ends_and_locks_travel_inside_of_messages() {
    watchdog();
    let (requests, receiver) = Pipe::one_way().expect("pipe");
    let process = start(serve, (receiver,));
    let total = Mutex::new(40).expect("mutex");
    for count in 41..=60 {
        let (answer, answered) = Pipe::one_way().expect("pipe");
        requests.send((answer, total.clone())).expect("send");
        assert_eq!(answered.recv().expect("recv"), count);
        assert!(in_time(|| answered.recv()).expect_err("dropped there").is_end_of_file());
    }
    drop(requests);
    finish(process).expect("serve");
}

#[test]
fn an_end_in_flight_is_open_until_it_is_dropped_with_its_message() {
    watchdog();
    let (outer, outer_receiver) = Pipe::<PipeSender<u8>>::one_way().expect("pipe");
    let (inner, inner_receiver) = Pipe::<u8>::one_way().expect("pipe");
    outer.send(inner).expect("send");
    assert_eq!(inner_receiver.try_recv().expect("in flight"), None);
    drop((outer, outer_receiver));
    assert!(in_time(|| inner_receiver.recv()).expect_err("gone").is_end_of_file());
}

fn send_all(sender: PipeSender<(u32, u32)>, who: u32) {
    for number in 0..2000 {
        sender.send((who, number)).expect("send");
    }
}

#[test]
fn several_processes_share_an_end_and_each_message_is_whole() {
    watchdog();
    let (sender, receiver) = Pipe::one_way().expect("pipe");
    let processes: Vec<_> = (0..3).map(|who| start(send_all, (sender.clone(), who))).collect();
    drop(sender);
    let mut next = [0; 3];
    for message in &receiver {
        let (who, number) = message.expect("recv");
        assert_eq!(number, next[who as usize]);
        next[who as usize] += 1;
    }
    assert_eq!(next, [2000; 3]);
    processes.into_iter().for_each(|process| finish(process));
}

fn double(end: PipeEnd<u64>, number: u64) -> u64 {
    end.send(number).expect("send");
    end.recv().expect("recv")
}

#[test]
fn workers_of_a_pool_talk_through_pipes() {
    watchdog();
    let pool = Pool::builder().workers(2).build().expect("pool");
    let (here, there) = Pipe::<u64>::duplex().expect("pipe");
    let result = pool.apply_async(double, (there, 21)).expect("apply");
    let number = here.recv().expect("recv");
    here.send(2 * number).expect("send");
    assert_eq!(result.get().expect("result"), 42);
}

fn answer(end: PipeEnd<u64>) {
    end.send(7).expect("send");
}

#[test]
fn a_worker_of_a_pool_keeps_no_end_after_its_task() {
    watchdog();
    let pool = Pool::builder().workers(1).build().expect("pool");
    for _ in 0..20 {
        let (here, there) = Pipe::<u64>::duplex().expect("pipe");
        pool.apply(answer, (there,)).expect("apply");
        assert_eq!(here.recv().expect("recv"), 7);
        assert!(in_time(|| here.recv()).expect_err("the end").is_end_of_file());
    }
}

#[test]
fn the_last_message_of_a_side_that_did_not_listen_comes_with_its_objects() {
    watchdog();
    let (near, far) = Pipe::<Mutex<u32>>::duplex().expect("pipe");
    near.send(Mutex::new(1).expect("mutex")).expect("send");
    far.send(Mutex::new(2).expect("mutex")).expect("send");
    drop(far);
    assert_eq!(*near.recv().expect("recv").lock().expect("lock"), 2);
    assert!(near.recv().expect_err("the end").is_end_of_file());
}

/// A message that uses its own pipe while it is encoded, and while it is decoded, if it is even;
/// one of 7 panics instead of being encoded.
#[derive(Debug, PartialEq)]
struct Odd(u32);

fn own_pipe() -> &'static (PipeSender<Odd>, PipeReceiver<Odd>) {
    static PIPE: std::sync::OnceLock<(PipeSender<Odd>, PipeReceiver<Odd>)> =
        std::sync::OnceLock::new();
    PIPE.get_or_init(|| Pipe::one_way().expect("pipe"))
}

impl Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != 7, "it does not want to");
        if self.0.is_multiple_of(2) {
            own_pipe().0.send(Odd(self.0 + 1)).expect("send");
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number.is_multiple_of(2) {
            assert_eq!(own_pipe().1.recv().expect("recv"), Odd(99));
        }
        Ok(Self(number))
    }
}

#[test]
fn a_message_may_use_its_own_pipe_while_it_is_encoded_and_decoded() {
    watchdog();
    let (sender, receiver) = own_pipe();
    sender.send(Odd(2)).expect("send");
    sender.send(Odd(99)).expect("send");
    assert!(std::panic::catch_unwind(|| sender.send(Odd(7))).is_err());
    assert_eq!(in_time(|| receiver.recv()).expect("what was sent meanwhile"), Odd(3));
    assert_eq!(in_time(|| receiver.recv()).expect("itself"), Odd(2));
    assert_eq!(receiver.try_recv().expect("open"), None);
}

fn send_two(sender: PipeSender<u8>) -> bool {
    sender.send(2).is_ok()
}

#[test]
fn an_end_that_is_closed_is_gone_from_the_workers_that_were_sent_it() {
    watchdog();
    let pool = Pool::builder().workers(1).build().expect("pool");
    let (sender, receiver) = Pipe::one_way().expect("pipe");
    assert!(pool.apply(send_two, (sender.clone(),)).expect("apply"));
    // The worker keeps it for the next task.
    sender.close().expect("a descriptor");
    assert_eq!(in_time(|| receiver.recv()).expect("it was sent"), 2);
    assert!(in_time(|| receiver.recv()).expect_err("closed").is_end_of_file());
    assert!(!pool.apply(send_two, (sender.clone(),)).expect("apply"), "the end that is closed");
}

fn nothing(end: PipeEnd<u8>) {
    drop(end);
}

#[test]
fn two_gibibytes_arrive_intact() {
    watchdog();
    if !common::has_memory(10) {
        println!("skipped: 10 GiB of memory are needed");
        return;
    }
    let (here, there) = Pipe::<Vec<u64>>::one_way().expect("pipe");
    let process = start(checksum, (there,));
    let words: Vec<u64> = (0..1 << 28).collect();
    here.send(&words).expect("send");
    drop(words);
    assert_eq!(finish(process), (1 << 28, (0..1u64 << 28).fold(0, mix)));
    let (here, there) = Pipe::<u8>::duplex().expect("pipe");
    finish(start(nothing, (there,)));
    wait_until("nobody reads", || here.is_closed());
    assert!(here.send(1).is_err());
}

fn mix(sum: u64, word: u64) -> u64 {
    sum.rotate_left(5) ^ word
}

fn checksum(words: PipeReceiver<Vec<u64>>) -> (usize, u64) {
    let words = words.recv().expect("recv");
    (words.len(), words.iter().copied().fold(0, mix))
}
