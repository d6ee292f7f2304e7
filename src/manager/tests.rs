//! What a client can do that does not keep to the protocol, or dies in the middle of it.

use super::channel::Channel;
use super::link::Link;
use super::message::{self, Knock, Reply};
use super::{List, Manager};
use crate::entry;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::socket;
use crate::wire::control;
use crate::wire::handles::Carried;
use crate::{Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// A small generator of numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.roll() % most).map(|_| self.roll() as u8).collect()
    }
}

fn manager() -> (Manager, List<u64>) {
    let manager = Manager::start().expect("a manager");
    let list = manager.list_of([1, 2, 3]).expect("a list");
    (manager, list)
}

/// A channel that was opened by hand.
fn open(link: &Link) -> Channel {
    let (here, there) = Channel::pair().expect("a channel");
    knock(link.door(), &there);
    here
}

fn knock(door: &Arc<Object>, there: &[Arc<Object>]) {
    let fds: Vec<BorrowedFd<'_>> = there.iter().map(|object| object.fd()).collect();
    control::send(door.fd(), &Knock::Channel, &fds, true).expect("knock");
}

/// Asks by hand.
fn ask(channel: &Channel, request: Vec<u8>) -> Result<Reply> {
    channel.send(&request, &Carried::new()).expect("the server is there");
    let packet = channel.recv().expect("the server answers");
    message::parse_reply(packet.bytes)
}

#[track_caller]
fn is_well(list: &List<u64>) {
    assert_eq!(list.snapshot().expect("the server lives"), [1, 2, 3]);
}

/// The entry of `List::len`, and one that does not fit a list of numbers.
fn entries() -> (u64, u64) {
    let len = entry::read_entry(|list: &Vec<u64>, (): ()| list.len()).expect("an entry");
    let other = entry::read_entry(|text: &String, (): ()| text.len()).expect("an entry");
    (len.0, other.0)
}

#[test]
fn wrong_entries_objects_and_arguments_are_errors_of_the_call_alone() {
    let (manager, list) = manager();
    let channel = open(&manager.link);
    let (len, other) = entries();
    let object = list.0.number();
    let request = |entry, object| message::begin_request(entry, object);
    assert!(ask(&channel, request(len, object)).is_ok());
    let refused =
        |request: Vec<u8>| ask(&channel, request).expect_err("garbage").is_invalid_input();
    assert!(refused(request(other, object)), "the method of another type");
    assert!(refused(request(len, object + 1000)), "no such object");
    assert!(refused(request(len, 0)), "the manager is no list");
    for entry in [0, 1, len + 1, len + 8, len ^ 1 << 40, u64::MAX, u64::MAX - 7] {
        assert!(refused(request(entry, object)), "{entry:#x}");
    }
    // None at all would be a farewell.
    for len in 1..16 {
        assert!(refused(vec![7; len]), "a request of {len} bytes");
    }
    let push = entry::write_entry(|list: &mut Vec<u64>, (all,): (Vec<u64>,)| list.extend(all));
    let mut lies = request(push.expect("an entry").0, object);
    lies.extend(u64::MAX.to_ne_bytes());
    assert!(ask(&channel, lies).expect_err("a length that lies").is_decode());
    is_well(&list);
}

#[test]
fn random_requests_hurt_nobody() {
    let (manager, list) = manager();
    let channel = open(&manager.link);
    let (len, _) = entries();
    let mut dice = Dice(42);
    for round in 0..5000u64 {
        let mut request = match round % 4 {
            // Offsets all over the executable.
            0 => message::begin_request(dice.roll() % (1 << 26), list.0.number()),
            1 => message::begin_request((dice.roll() % (1 << 26)) & !7, dice.roll() % 8),
            2 => message::begin_request(len.wrapping_add(dice.roll() % 4096), list.0.number()),
            _ => vec![dice.roll() as u8],
        };
        request.extend(dice.bytes(64));
        let _ = ask(&channel, request);
    }
    // Some were right: they pushed what nobody knows.
    assert!(list.len().expect("the server lives") >= 3);
}

#[test]
fn a_channel_whose_memory_is_written_over_ends_without_harm() {
    let (manager, list) = manager();
    let mut dice = Dice(7);
    for round in 0..100 {
        let (here, there) = Channel::pair().expect("a channel");
        knock(manager.link.door(), &there);
        let request = message::begin_request(0, 0);
        here.send(&request, &Carried::new()).expect("the server is there");
        // A ring, and what is sent beside it.
        let file = std::fs::File::from(there[round % 2].fd().try_clone_to_owned().expect("dup"));
        for _ in 0..20 {
            let at = dice.roll() % (128 * 1024);
            let _ = file.write_at(&dice.bytes(64), at);
        }
        let _ = socket::send(there[2].fd(), &[1, 2, 3], &[], false);
        drop((there, here));
    }
    is_well(&list);
}

#[test]
fn garbage_at_the_door_is_left_outside() {
    let (manager, list) = manager();
    let door = manager.link.door();
    let mut dice = Dice(99);
    let null = std::fs::File::open("/dev/null").expect("null");
    let (read, write) = std::io::pipe().expect("a pipe");
    for round in 0..500 {
        let mut bytes = dice.bytes(if round % 50 == 0 { 100_000 } else { 64 });
        if bytes.first() == Some(&1) {
            // That would be the word for the end.
            bytes[0] = 2;
        }
        bytes.push(0);
        let fds: &[BorrowedFd<'_>] =
            if round % 3 == 0 { &[null.as_fd(), read.as_fd(), write.as_fd()] } else { &[] };
        let _ = socket::send(door.fd(), &bytes, fds, true);
    }
    // What is sent as the end of a channel need not be one.
    for fd in [null.as_fd(), read.as_fd(), write.as_fd(), door.fd()] {
        control::send(door.fd(), &Knock::Channel, &[fd], true).expect("knock");
    }
    control::send(door.fd(), &Knock::Channel, &[], true).expect("knock");
    control::send(door.fd(), &Knock::Channel, &[null.as_fd(); 9], true).expect("knock");
    is_well(&list);
    let fresh = std::thread::scope(|scope| {
        scope.spawn(|| list.len().expect("a new channel")).join().expect("join")
    });
    assert_eq!(fresh, 3);
}

/// A client can die after each of its steps; what it leaves is what the kernel closes.
#[test]
fn a_client_that_dies_at_any_step_leaves_nothing() {
    let (manager, list) = manager();
    let (len, _) = entries();
    for step in 0..3 {
        let (here, there) = Channel::pair().expect("a channel");
        match step {
            0 => drop(there),
            _ => knock(manager.link.door(), &there),
        }
        if step == 2 {
            let request = message::begin_request(len, list.0.number());
            here.send(&request, &Carried::new()).expect("send");
        }
        drop(here);
    }
    // An object whose proxy nobody lived to receive.
    let make = entry::make_entry(|(): ()| Ok(std::sync::RwLock::new(Vec::<u64>::new())));
    let channel = open(&manager.link);
    let request = message::begin_request(make.expect("an entry").0, 0);
    channel.send(&request, &Carried::new()).expect("send");
    drop(channel);
    let start = std::time::Instant::now();
    while manager.objects().expect("the server lives") > 1 {
        assert!(start.elapsed().as_secs() < 60, "the object was left");
        std::thread::yield_now();
    }
    is_well(&list);
}

#[test]
fn a_proxy_of_a_manager_that_is_unknown_here_is_an_error() {
    let (manager, list) = manager();
    let encoded = crate::codec::encode_arguments(&(list.clone(),)).expect("encode");
    let (bytes, carried) = encoded;
    assert_eq!(carried.len(), 2, "the door and the life");
    drop((list, manager));
    let decode = || crate::codec::decode_value::<List<u64>>(&mut crate::codec::Reader(&bytes));
    let outside: Error = Error::result(decode().expect_err("outside of a message"));
    assert!(outside.to_string().contains("multiproc call"), "{outside}");
    let decoded = crate::wire::handles::providing(Default::default(), decode);
    assert!(decoded.is_err(), "its descriptors did not come");
}

#[test]
fn outside_of_a_message_a_proxy_cannot_be_encoded() {
    let (_manager, list) = manager();
    assert!(postcard::to_stdvec(&list).is_err());
}

/// The word for the end must not be lost because many want to come in at the same time.
#[test]
fn the_word_for_the_end_waits_for_room_in_the_door() {
    let manager = Manager::builder().detached().start().expect("a manager");
    let list = manager.list_of([1u64]).expect("a list");
    let pid = Pid::from_raw(manager.pid().expect("it lives") as i32);
    kill(pid, Signal::SIGSTOP).expect("our own child");
    let door = manager.link.door();
    while socket::send(door.fd(), &[9], &[], false).is_ok() {}
    let link = manager.link.clone();
    let told = std::thread::spawn(move || link.shut_down());
    // It is on its way, or about to: either way it has to arrive.
    std::thread::yield_now();
    kill(pid, Signal::SIGCONT).expect("our own child");
    told.join().expect("no panic");
    assert!(manager.link.wait_for_the_end(Deadline::after(Duration::from_secs(60))));
    assert!(list.len().expect_err("gone").is_disconnected());
}

#[test]
fn a_door_whose_server_is_gone_is_readable() {
    let (manager, list) = manager();
    assert!(manager.is_alive());
    manager.shutdown();
    assert!(manager.link.wait_for_the_end(Deadline::NEVER));
    assert!(list.len().expect_err("gone").is_disconnected());
    assert!(!manager.is_alive());
    manager.shutdown();
}

/// Connections of somebody who has the key and the same program, and says what comes to mind.
#[test]
fn garbage_over_connections_hurts_nobody() {
    use super::remote::{Hello, Line, Release, service};
    use crate::connection::{Address, Client};

    let key = "a key for a test";
    let manager = Manager::bind(Address::unique().expect("an address"), key).expect("a manager");
    let list = manager.list_of([1u64, 2, 3]).expect("a list");
    let address = manager.address().expect("it is bound").clone();
    let connect = || -> Line {
        let builder = Client::builder().key(key).service(service());
        builder.connect(address.clone()).expect("a connection")
    };
    let encoded = |hello: Hello| postcard::to_stdvec(&hello).expect("encode");
    let mut dice = Dice(5);
    for _ in 0..50 {
        connect().send_bytes(dice.bytes(200)).expect("send");
    }
    // The channel of a process that has no base.
    let stray = connect();
    stray.send_bytes(encoded(Hello::Channel { client: (1, 2) })).expect("send");
    assert!(stray.recv_bytes(64).is_err());
    // A base that gives back what it never had, and garbage.
    let base = connect();
    base.send_bytes(encoded(Hello::Base { client: (3, 4) })).expect("send");
    assert_eq!(base.recv_bytes(64).expect("the name").len(), 16);
    let again = connect();
    again.send_bytes(encoded(Hello::Base { client: (3, 4) })).expect("send");
    assert!(again.recv_bytes(64).is_err(), "somebody has that name");
    for number in 0..10 {
        let release = Release { number, times: u64::MAX };
        base.send_bytes(postcard::to_stdvec(&release).expect("encode")).expect("send");
    }
    // Requests: of an object that this process has no proxy of, which is known by its number.
    let line = connect();
    line.send_bytes(encoded(Hello::Channel { client: (3, 4) })).expect("send");
    let (len, _) = entries();
    for round in 0..500u64 {
        let mut request = message::begin_request(len.wrapping_add(dice.roll() % 64), round % 8);
        request.extend(dice.bytes(64));
        request.truncate((dice.roll() % 80) as usize + 1);
        line.send_bytes(&request).expect("send");
        line.recv_bytes(1 << 20).expect("a reply");
    }
    base.send_bytes([0xff; 40]).expect("send");
    is_well(&list);
    assert_eq!(manager.objects().expect("it lives"), 1);
}
