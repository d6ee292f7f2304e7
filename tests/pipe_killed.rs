//! A process is killed in the middle of a call on a pipe, at one instruction after the other: the
//! other side gets whole messages, each once, and then hears of the end.

mod common;

use common::sync::in_time;
use common::traced::{at_many_instructions_of, stopped_at_many_instructions_of};
use common::{PATIENCE, isolated};
use multiproc::{Data, Mutex, Pipe, PipeEnd, PipeReceiver, PipeSender, wait};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    isolated::main(
        cases![
            a_reader_outlives_who_sends,
            a_reader_outlives_who_sends_objects,
            a_writer_outlives_who_receives,
            a_writer_outlives_who_receives_objects,
            a_writer_that_waits_for_room_outlives_who_receives,
            other_readers_outlive_one_of_them,
            both_sides_outlive_who_echoes,
            who_only_tries_does_not_wait_for_who_stands_still,
        ],
        &[],
    )
}

/// The lengths of messages: in a line of the ring, in its bytes, and outside of it.
const LENS: [usize; 3] = [5, 300, 150_000];

fn pipe<T: Data>() -> (PipeSender<T>, PipeReceiver<T>) {
    Pipe::one_way().expect("pipe")
}

/// The messages that come before the end of file, which comes.
fn until_the_end<T: Data>(receiver: &PipeReceiver<T>) -> Vec<T> {
    in_time(|| receiver.iter().collect::<Result<_, _>>().expect("whole messages"))
}

fn until_the_end_of<T: Data>(end: &PipeEnd<T>) -> Vec<T> {
    in_time(|| end.iter().collect::<Result<_, _>>().expect("whole messages"))
}

fn a_reader_outlives_who_sends() {
    for len in LENS {
        let message = vec![7; len];
        at_many_instructions_of(
            || {
                let ends = pipe::<Vec<u8>>();
                ends.0.send(vec![7; len]).expect("there is room");
                ends
            },
            |(sender, _)| sender.send(&message).expect("it is open"),
            |(sender, receiver)| {
                // Others send through the same end.
                sender.send_timeout(&message, PATIENCE).expect("there is room");
                drop(sender);
                let messages = until_the_end(&receiver);
                assert!(messages.len() == 2 || messages.len() == 3, "{}", messages.len());
                assert!(messages.iter().all(|one| *one == message), "a torn message");
            },
        );
    }
}

fn a_reader_outlives_who_sends_objects() {
    let objects = [7, 8].map(|value| Mutex::new(value).expect("mutex"));
    at_many_instructions_of(
        pipe::<(Mutex<u32>, PipeSender<u8>)>,
        |(sender, _)| {
            let inner = pipe().0;
            sender.send((objects[0].clone(), inner)).expect("it is open");
        },
        |(sender, receiver)| {
            let (inner, inner_receiver) = pipe();
            sender.send_timeout((objects[1].clone(), inner), PATIENCE).expect("there is room");
            drop(sender);
            let messages = until_the_end(&receiver);
            let values: Vec<u32> =
                messages.iter().map(|message| *message.0.lock().expect("nobody has it")).collect();
            assert!(values == [8] || values == [7, 8], "{values:?}");
            messages.last().expect("one").1.send(1).expect("it is the end of the other pipe");
            drop(messages);
            assert_eq!(until_the_end(&inner_receiver), [1]);
        },
    );
}

fn a_writer_outlives_who_receives() {
    for len in LENS {
        let message = vec![7; len];
        at_many_instructions_of(
            || {
                let ends = pipe::<Vec<u8>>();
                ends.0.send(vec![7; len]).expect("there is room");
                ends
            },
            |(_, receiver)| {
                assert!(receiver.recv_timeout(PATIENCE).expect("it is there") == message)
            },
            |(sender, receiver)| {
                sender.send_timeout(&message, PATIENCE).expect("there is room");
                let first = receiver.recv_timeout(PATIENCE).expect("one is there");
                assert!(first == message, "a torn message");
                let second = receiver.try_recv().expect("it is open");
                assert!(second.is_none_or(|second| second == message), "a torn message");
                drop(receiver);
                assert!(sender.send(&message).expect_err("nobody reads").is_closed());
            },
        );
    }
}

fn a_writer_outlives_who_receives_objects() {
    let mutex = Mutex::new(7).expect("mutex");
    at_many_instructions_of(
        || {
            let ends = pipe::<Mutex<u32>>();
            ends.0.send(&mutex).expect("there is room");
            ends
        },
        |(_, receiver)| drop(receiver.recv_timeout(PATIENCE).expect("it is there")),
        |(sender, receiver)| {
            // The message that was on its way out may be lost; no other one is.
            let second = Mutex::new(8).expect("mutex");
            sender.send_timeout(second, PATIENCE).expect("there is room");
            drop(sender);
            let values: Vec<u32> = until_the_end(&receiver)
                .iter()
                .map(|mutex| *mutex.lock().expect("nobody has it"))
                .collect();
            assert!(values == [8] || values == [7, 8], "{values:?}");
        },
    );
}

fn a_writer_that_waits_for_room_outlives_who_receives() {
    at_many_instructions_of(
        || {
            let ends = pipe::<Vec<u8>>();
            while ends.0.try_send(vec![7_u8; 50_000]).expect("it is open") {}
            ends
        },
        |(_, receiver)| drop(receiver.recv_timeout(PATIENCE).expect("it is there")),
        |(sender, receiver)| {
            drop(receiver);
            assert!(sender.is_closed());
            assert!(in_time(|| sender.send(vec![7; 50_000])).expect_err("gone").is_closed());
        },
    );
}

fn other_readers_outlive_one_of_them() {
    for len in LENS {
        let (sender, receiver) = pipe::<Vec<u8>>();
        at_many_instructions_of(
            || sender.send(vec![7; len]).expect("there is room"),
            |()| drop(receiver.recv_timeout(PATIENCE).expect("it is there")),
            |()| {
                sender.send_timeout(vec![8; len], PATIENCE).expect("there is room");
                let mut last = receiver.recv_timeout(PATIENCE).expect("one is there");
                if last == vec![7; len] {
                    last = receiver.recv_timeout(PATIENCE).expect("another one is there");
                }
                assert!(last == vec![8; len], "a torn message");
                assert!(receiver.try_recv().expect("it is open").is_none());
            },
        );
    }
}

fn both_sides_outlive_who_echoes() {
    let new = || {
        let (near, far): (PipeEnd<String>, PipeEnd<String>) = Pipe::duplex().expect("pipe");
        near.send("hello".to_owned()).expect("there is room");
        (near, far)
    };
    at_many_instructions_of(
        new,
        |(_, far)| far.send(far.recv().expect("it is there") + "!").expect("it is open"),
        |(near, far)| {
            drop(far);
            let answers = until_the_end_of(&near);
            assert!(answers.is_empty() || answers == ["hello!"], "{answers:?}");
            assert!(near.send("again".to_owned()).expect_err("nobody reads").is_closed());
        },
    );
}

fn who_only_tries_does_not_wait_for_who_stands_still() {
    const SHORT: Duration = Duration::from_millis(2);
    stopped_at_many_instructions_of(
        8,
        || {
            let (near, far): (PipeEnd<Vec<u8>>, PipeEnd<Vec<u8>>) = Pipe::duplex().expect("pipe");
            near.send(vec![7; 200]).expect("there is room");
            (near, far)
        },
        |(_, far)| far.send(far.recv().expect("it is there")).expect("it is open"),
        |(near, far)| {
            in_time(|| {
                near.try_send(vec![7; 200]).expect("it is open");
                let _ = near.send_timeout(vec![7; 200], SHORT);
                near.try_recv().expect("it is open");
                far.try_recv().expect("it is open");
                let _ = far.recv_timeout(SHORT);
                near.poll(SHORT).expect("it is open");
                wait(&[near, far], Some(SHORT)).expect("both are open");
            });
        },
        |(near, far)| {
            drop(far);
            let messages = until_the_end_of(&near);
            assert!(messages.iter().all(|one| *one == vec![7; 200]), "a torn message");
        },
    );
}
