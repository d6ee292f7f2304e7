//! Ends of pipes that a forked child inherits.

mod common;

use common::isolated;
use common::sync::in_time;
use multiproc::{Event, Pipe, PipeEnd, Process};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    isolated::main(
        cases![
            a_forked_child_has_the_same_ends,
            a_forked_child_keeps_what_it_inherited_open,
            a_forked_child_closes_what_its_parent_keeps_and_then_sees_its_end,
            closing_wakes_who_waits_in_the_same_process,
            a_child_that_is_killed_keeps_nothing_open,
            large_messages_and_ends_come_from_a_forked_child,
        ],
        &[],
    )
}

fn a_forked_child_has_the_same_ends() {
    let (near, far): (PipeEnd<u32>, PipeEnd<u32>) = Pipe::duplex().unwrap();
    // Both have looked at the ring before there are two processes.
    near.send(1).unwrap();
    assert_eq!(far.recv().unwrap(), 1);
    let theirs = far.clone();
    let echo = move || {
        for _ in 0..1000 {
            theirs.send(theirs.recv().unwrap() * 2).unwrap();
        }
    };
    let mut child = Process::fork(echo).spawn().unwrap();
    for number in 0..1000 {
        near.send(number).unwrap();
        assert_eq!(near.recv().unwrap(), number * 2);
    }
    child.join().unwrap();
    // This process has that end, too.
    near.send(7).unwrap();
    assert_eq!(far.recv().unwrap(), 7);
}

fn a_forked_child_keeps_what_it_inherited_open() {
    let (sender, receiver) = Pipe::<u32>::one_way().unwrap();
    let go = Event::new().unwrap();
    let theirs = go.clone();
    let mut child = Process::fork(move || theirs.wait()).spawn().unwrap();
    drop(sender);
    assert!(receiver.recv_timeout(Duration::from_millis(5)).unwrap_err().is_timeout());
    go.set();
    child.join().unwrap();
    assert!(in_time(|| receiver.recv()).unwrap_err().is_end_of_file());
}

fn a_forked_child_closes_what_its_parent_keeps_and_then_sees_its_end() {
    let (near, far) = Pipe::<Vec<u8>>::duplex().unwrap();
    let parents = near.clone();
    let child = move || {
        parents.close().unwrap();
        assert!(parents.is_closed() && parents.send(vec![]).unwrap_err().is_closed());
        far.iter().map(|message| message.unwrap().len()).sum::<usize>()
    };
    let mut child = Process::fork(child).spawn().unwrap();
    for len in [1, 10, 1 << 20] {
        near.send(vec![7; len]).unwrap();
    }
    assert!(!near.is_closed());
    drop(near);
    assert_eq!(in_time(|| child.join()).unwrap(), (1 << 20) + 11);
}

fn closing_wakes_who_waits_in_the_same_process() {
    let (near, far) = Pipe::<u8>::duplex().unwrap();
    std::thread::scope(|scope| {
        let waits = [&near, &far].map(|end| scope.spawn(|| in_time(|| end.recv())));
        near.close().unwrap();
        let ends = waits.map(|wait| wait.join().unwrap());
        assert!(ends.into_iter().all(|end| end.unwrap_err().is_end_of_file()));
    });
}

fn a_child_that_is_killed_keeps_nothing_open() {
    let (sender, receiver) = Pipe::<u32>::one_way().unwrap();
    let (ready, theirs) = (Event::new().unwrap(), Event::new().unwrap());
    let (tell, forever) = (ready.clone(), theirs.clone());
    let child = move || {
        tell.set();
        forever.wait();
    };
    let mut child = Process::fork(child).spawn().unwrap();
    ready.wait();
    drop(receiver);
    sender.send(1).expect("the child has the other end, too");
    child.kill().unwrap();
    assert!(child.join().is_err());
    assert!(sender.is_closed());
    assert!(in_time(|| sender.send(2)).unwrap_err().is_closed());
}

fn large_messages_and_ends_come_from_a_forked_child() {
    type Message = (Vec<u8>, PipeEnd<u8>);
    let (near, far): (PipeEnd<Message>, PipeEnd<Message>) = Pipe::duplex().unwrap();
    let send = move || {
        for len in [0, 100, 1 << 17, 3 << 20] {
            let (mine, yours): (PipeEnd<u8>, PipeEnd<u8>) = Pipe::duplex().unwrap();
            far.send((vec![len as u8 | 1; len], yours)).unwrap();
            assert_eq!(mine.recv().unwrap(), 9);
        }
    };
    let mut child = Process::fork(send).spawn().unwrap();
    for len in [0, 100, 1 << 17, 3 << 20] {
        let (bytes, end) = near.recv().unwrap();
        assert!(bytes == vec![len as u8 | 1; len]);
        end.send(9).unwrap();
        assert!(in_time(|| end.recv()).unwrap_err().is_end_of_file());
    }
    child.join().unwrap();
}
