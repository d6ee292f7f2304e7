//! What connections do when processes are killed, forked, or have no descriptors left, and when a
//! hundred thousand strangers knock: each in a process of its own.

mod common;

use common::isolated::{self, helper};
use common::sync::{finish, kill, start};
use common::wire::{HELLO, Raw, header, hello};
use common::{PATIENCE, wait_until};
use multiproc::connection::{Address, Client, Connection, Listener};
use multiproc::{Event, Mutex, Process};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

const KEY: &str = "a key for tests";

fn main() -> ExitCode {
    isolated::main(
        cases![
            a_hundred_thousand_strangers_do_not_keep_a_client_out,
            a_client_killed_at_any_stage_harms_only_itself,
            a_listener_killed_at_any_stage_is_an_error_for_the_client,
            a_forked_child_has_the_connection_and_removes_nothing,
            a_message_whose_descriptors_cannot_be_taken_spoils_only_itself,
            too_many_descriptors_on_their_way_are_an_error_of_that_send,
            a_listener_without_descriptors_says_so_and_goes_on_later,
            strangers_that_have_all_descriptors_do_not_keep_a_client_out,
            a_message_of_more_than_two_gibibytes_arrives_whole,
            ten_thousand_connections_leave_no_descriptor_behind,
        ],
        cases![flood],
    )
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// How many descriptors this process may have from now on.
fn limit_descriptors(count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: 4096 };
    // SAFETY: setrlimit only reads the limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Two ends in this process.
fn pair<S: multiproc::Data, R: multiproc::Data>() -> (Connection<S, R>, Connection<R, S>) {
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let address = listener.address().clone();
    let client = std::thread::spawn(move || Client::connect(address).unwrap());
    let accepted = listener.accept_timeout(PATIENCE).unwrap();
    (client.join().unwrap(), accepted)
}

const STRANGERS: u32 = 100_000;
const FLOODERS: u32 = 2;

/// Knocks, says something, and waits to be sent away. The address comes on stdin.
fn flood() {
    let mut address = String::new();
    std::io::stdin().read_line(&mut address).expect("an address");
    let address: Address = address.trim().parse().expect("an address");
    let mut wrong_proof = hello(true).to_vec();
    wrong_proof.extend([7; 32]);
    let words: [&[u8]; 6] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0; 64], b"m", &header(1, 0, u64::MAX), &wrong_proof, b""];
    for number in 0..STRANGERS / FLOODERS {
        let mut raw = Raw::connect(&address).expect("the listener is there");
        let word = words[number as usize % words.len()];
        // It may have been sent away by then.
        let _ = raw.write_all(word);
        // Those who may say more go by themselves, the others are sent away.
        if word.len() > 1 {
            raw.wait_for_end();
        }
    }
}

fn a_hundred_thousand_strangers_do_not_keep_a_client_out() {
    let listener = Listener::builder().key(KEY).bind("tcp:127.0.0.1:0".parse::<Address>().unwrap());
    let listener = listener.unwrap();
    let before = descriptors();
    let mut flooders: Vec<_> = (0..FLOODERS)
        .map(|_| {
            let mut flooder = helper("flood").stdin(Stdio::piped()).spawn().expect("a flooder");
            let mut stdin = flooder.stdin.take().expect("a pipe");
            writeln!(stdin, "{}", listener.address()).expect("write");
            flooder
        })
        .collect();
    // One good client after the other, for as long as strangers come.
    let come = |address: Address, enough: Event| {
        let mut came = 0_u64;
        while !enough.is_set() {
            let client = Client::builder().key(KEY);
            let connection: Connection<u64> = client.connect(&address).expect("connect");
            connection.send(came).expect("send");
            came += u64::from(connection.recv().is_ok());
        }
        came
    };
    let enough = Event::new().unwrap();
    let mut client = Process::spawn(come, (listener.address().clone(), enough.clone())).unwrap();
    let mut accepted = 0;
    let client = loop {
        match listener.accept_timeout::<u64, u64>(Duration::from_millis(50)) {
            Ok(connection) => {
                assert_eq!(connection.recv_timeout(PATIENCE).unwrap(), accepted);
                connection.send(accepted).unwrap();
                accepted += 1;
            }
            Err(error) => assert!(error.is_timeout(), "{error}"),
        }
        for flooder in &mut flooders {
            let ended = flooder.try_wait().expect("a flooder");
            assert!(ended.is_none_or(|status| status.success()), "it knocked in vain");
        }
        let stats = listener.stats();
        if stats.refused + stats.crowded_out + stats.timed_out >= u64::from(STRANGERS) {
            enough.set();
        }
        if let Some(came) = client.try_join().unwrap() {
            break came;
        }
    };
    assert!(client == accepted && accepted > 0);
    for flooder in &mut flooders {
        assert!(flooder.wait().expect("it ends").success());
    }
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.pending), (accepted, 0), "{stats:?}");
    assert_eq!(
        stats.refused + stats.crowded_out + stats.timed_out,
        u64::from(STRANGERS),
        "{stats:?}"
    );
    drop(listener);
    wait_until("no descriptor is left", || descriptors() < before + 4);
}

/// How far a client comes before it is killed.
const STAGES: u32 = 7;

fn come_as_far_as(stage: u32, address: Address, reached: Event) {
    let connection = (stage > 2).then(|| Client::connect::<u8, u8>(&address).expect("connect"));
    let mut raw = match &connection {
        Some(connection) => Raw::of(connection),
        None => Raw::connect(&address).expect("connect"),
    };
    let (hello, header) = (hello(false), header(2, 0, 9));
    match stage {
        0 | 3 => {}
        1 => raw.write_all(&hello[..HELLO / 2]).expect("write"),
        2 => {
            raw.write_all(&hello).expect("write");
            raw.get(HELLO);
        }
        4 => raw.write_all(&header[..7]).expect("write"),
        5 => {
            raw.write_all(&header).expect("write");
            raw.write_all(b"half").expect("write");
        }
        _ => raw.write_all(&[&common::wire::header(1, 0, 1)[..], &[1]].concat()).expect("write"),
    }
    reached.set();
    std::thread::park();
}

fn a_client_killed_at_any_stage_harms_only_itself() {
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    for stage in 0..STAGES {
        let reached = Event::new().unwrap();
        let arguments = (stage, listener.address().clone(), reached.clone());
        let process = start(come_as_far_as, arguments);
        let connection = (stage > 2).then(|| listener.accept_timeout::<u8, u8>(PATIENCE).unwrap());
        wait_until("it has come as far", || {
            assert!(listener.try_accept::<u8, u8>().unwrap().is_none());
            reached.is_set()
        });
        kill(process);
        if let Some(connection) = connection {
            if stage == 6 {
                assert_eq!(connection.recv().unwrap(), 1, "what it sent is not lost");
            }
            let error = connection.recv_bytes(9).unwrap_err();
            let is_torn = stage == 4 || stage == 5;
            assert_eq!((error.is_disconnected(), error.is_end_of_file()), (is_torn, !is_torn));
            assert!(connection.send(1).unwrap_err().is_closed());
        }
    }
    // Blocked in the middle of a large message.
    let send = |address: Address| {
        Client::connect::<u8, u8>(address).expect("connect").send_bytes(vec![1; 64 << 20])
    };
    let process = start(send, (listener.address().clone(),));
    let connection: Connection<u8> = listener.accept_timeout(PATIENCE).unwrap();
    assert!(connection.poll(PATIENCE).unwrap());
    kill(process);
    assert!(connection.recv_bytes(usize::MAX).unwrap_err().is_disconnected());
    wait_until("those that did not get in are gone", || {
        assert!(listener.try_accept::<u8, u8>().unwrap().is_none());
        listener.stats().refused == 3
    });
    assert_eq!((listener.stats().accepted, listener.stats().pending), (5, 0));
}

/// A listener's process, killed when it has come so far.
fn serve_as_far_as(stage: u32, path: std::path::PathBuf, reached: Event) {
    let listener = Listener::builder().replace_stale(true).bind(path).expect("bind");
    if stage == 0 {
        reached.set();
        std::thread::park();
    }
    // In stage 1 the client goes no further than to say hello.
    reached.set();
    let connection: Connection<u8> = listener.accept().expect("accept");
    match stage {
        2 => drop(connection.send(1)),
        3 => Raw::of(&connection).write_all(&header(1, 0, 1)).expect("write"),
        _ => drop(connection.recv()),
    }
    std::thread::park();
}

fn a_listener_killed_at_any_stage_is_an_error_for_the_client() {
    let directory = common::temp::TempDir::new();
    let path = directory.join("socket");
    let connect = || Client::connect::<u8, u8>(path.as_path());
    for stage in 0..5 {
        let reached = Event::new().unwrap();
        let process = start(serve_as_far_as, (stage, path.clone(), reached.clone()));
        assert!(reached.wait_timeout(PATIENCE));
        match stage {
            // Nobody has accepted, or it has not gone on.
            0 | 1 => std::thread::scope(|scope| {
                let mut raw = Raw::connect(&Address::unix(&path)).unwrap();
                raw.write_all(&hello(false)).unwrap();
                let client = (stage == 0).then(|| scope.spawn(connect));
                if stage == 1 {
                    raw.get(HELLO);
                }
                kill(process);
                raw.wait_for_end();
                if let Some(client) = client {
                    let error = client.join().unwrap().unwrap_err();
                    assert!(error.is_disconnected() || error.is_os(), "{error}");
                }
            }),
            2 => {
                let connection = connect().unwrap();
                assert!(connection.poll(PATIENCE).unwrap());
                kill(process);
                assert_eq!(connection.recv().unwrap(), 1);
                assert!(connection.recv().unwrap_err().is_end_of_file());
                assert!(connection.send(1).unwrap_err().is_closed());
            }
            3 => {
                let connection = connect().unwrap();
                assert!(connection.poll(PATIENCE).unwrap());
                kill(process);
                assert!(connection.recv().unwrap_err().is_disconnected());
            }
            _ => {
                let connection = connect().unwrap();
                std::thread::scope(|scope| {
                    let waiting = scope.spawn(|| connection.recv());
                    connection.send(1).unwrap();
                    let sending = scope.spawn(|| connection.send_bytes(vec![0; 64 << 20]));
                    kill(process);
                    assert!(waiting.join().unwrap().unwrap_err().is_end_of_file());
                    let error = sending.join().unwrap().unwrap_err();
                    assert!(error.is_disconnected() || error.is_closed(), "{error}");
                });
            }
        }
        let error = connect().unwrap_err();
        assert!(error.is_os(), "nobody listens at what it left: {error}");
    }
}

fn a_forked_child_has_the_connection_and_removes_nothing() {
    let directory = common::temp::TempDir::new();
    let path = directory.join("socket");
    let listener = Listener::bind(path.as_path()).unwrap();
    let client = start(
        |address: Address| {
            let connection: Connection<String> = Client::connect(address).expect("connect");
            let (one, two) = (connection.recv().expect("one"), connection.recv().expect("two"));
            assert!(connection.recv().expect_err("both are gone").is_end_of_file());
            (one, two)
        },
        (listener.address().clone(),),
    );
    let connection: Connection<String> = listener.accept_timeout(PATIENCE).unwrap();
    let child = {
        let connection = connection.clone();
        Process::fork(move || {
            connection.send("child".to_owned()).expect("send");
            drop(listener);
        })
    };
    child.spawn().unwrap().join_timeout(PATIENCE).unwrap();
    connection.send("parent".to_owned()).unwrap();
    drop(connection);
    assert_eq!(finish(client), ("child".to_owned(), "parent".to_owned()));
}

fn a_message_whose_descriptors_cannot_be_taken_spoils_only_itself() {
    let (here, there) = pair::<(u8, Vec<Mutex<u8>>), (u8, Vec<Mutex<u8>>)>();
    let mutexes: Vec<_> = (0..5).map(|_| Mutex::new(3).unwrap()).collect();
    here.send((1, mutexes.clone())).unwrap();
    here.send((2, Vec::new())).unwrap();
    here.send((3, mutexes)).unwrap();
    here.send_fd(std::io::stderr()).unwrap();
    here.send_fd(std::io::stderr()).unwrap();
    let open = descriptors();
    // Room for two of the five.
    let highest = here.as_fd().try_clone_to_owned().unwrap();
    limit_descriptors(highest.as_raw_fd() as u64 + 2);
    drop(highest);
    let error = there.recv().unwrap_err();
    assert!(error.is_os() && error.to_string().contains("too many open files"), "{error}");
    limit_descriptors(1024);
    assert_eq!(descriptors(), open, "those that came are closed");
    assert_eq!(there.recv().unwrap().0, 2);
    let (number, mutexes) = there.recv().unwrap();
    assert_eq!((number, *mutexes[4].lock().unwrap()), (3, 3));
    limit_descriptors(3);
    assert!(there.recv_fd().unwrap_err().is_os());
    limit_descriptors(1024);
    there.recv_fd().unwrap();
}

fn too_many_descriptors_on_their_way_are_an_error_of_that_send() {
    // For root there is no limit. For a user it is one of all its processes: so one of its own.
    let user = 10_000 + std::process::id() % 50_000;
    // SAFETY: setuid and geteuid have no preconditions.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setuid(user), 0);
        }
    }
    limit_descriptors(40);
    let (here, there) = pair::<u8, u8>();
    let mut sent = 0;
    let error = loop {
        match here.send_fd(std::io::stderr()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "there is no limit");
    };
    assert!(error.is_os() && error.to_string().contains("could not be sent"), "{error}");
    here.send(7).unwrap();
    for _ in 0..sent {
        there.recv_fd().unwrap();
    }
    assert_eq!(there.recv().unwrap(), 7);
    here.send_fd(std::io::stderr()).unwrap();
    there.recv_fd().unwrap();
}

fn a_listener_without_descriptors_says_so_and_goes_on_later() {
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let client = start(
        |address: Address| {
            Client::connect::<u8, u8>(address).expect("connect").recv().expect("a number")
        },
        (listener.address().clone(),),
    );
    let fd = next_descriptor();
    limit_descriptors(fd);
    wait_until("it says so", || {
        match listener.accept_timeout::<u8, u8>(Duration::from_millis(1)) {
            Ok(_) => panic!("it had a descriptor"),
            Err(error) if error.is_timeout() => false,
            Err(error) => {
                assert!(
                    error.is_os() && error.to_string().contains("no more connections"),
                    "{error}"
                );
                true
            }
        }
    });
    limit_descriptors(1024);
    listener.accept_timeout::<u8, u8>(PATIENCE).unwrap().send(8).unwrap();
    assert_eq!(finish(client), 8);
}

fn strangers_that_have_all_descriptors_do_not_keep_a_client_out() {
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let address = listener.address().clone();
    let knock = |address: Address, knocking: Event| {
        let strangers: Vec<Raw> =
            (0..20).map(|_| Raw::connect(&address).expect("connect")).collect();
        knocking.set();
        std::thread::park();
        drop(strangers);
    };
    let knocking = Event::new().unwrap();
    let strangers = start(knock, (address.clone(), knocking.clone()));
    assert!(knocking.wait_timeout(PATIENCE));
    let come = |address: Address| {
        Client::connect::<u8, u8>(address).expect("connect").recv().expect("a number")
    };
    let client = start(come, (address,));
    limit_descriptors(next_descriptor() + 3);
    let connection = listener.accept_timeout::<u8, u8>(PATIENCE).unwrap();
    connection.send(8).unwrap();
    assert!(listener.stats().crowded_out > 0);
    limit_descriptors(1024);
    assert_eq!(finish(client), 8);
    kill(strangers);
}

fn a_message_of_more_than_two_gibibytes_arrives_whole() {
    const LEN: usize = (2 << 30) + 5;
    if !common::has_memory(6) {
        println!("skipped: 6 GiB of memory are needed");
        return;
    }
    let builder = Listener::builder().max_message(LEN as u64);
    let listener = builder.bind(Address::unique().unwrap()).unwrap();
    let send = |address: Address| {
        let client = Client::builder().max_message(LEN as u64);
        let connection: Connection<u8> = client.connect(address).expect("connect");
        let mut bytes = vec![0; LEN];
        (bytes[0], bytes[LEN / 2], bytes[LEN - 1]) = (1, 2, 3);
        connection.send_bytes(&bytes).expect("send");
        connection.send(4).expect("send");
    };
    let process = start(send, (listener.address().clone(),));
    let connection: Connection<u8> = listener.accept_timeout(PATIENCE).unwrap();
    let bytes = connection.recv_bytes(LEN).unwrap();
    assert_eq!(bytes.len(), LEN);
    assert_eq!((bytes[0], bytes[LEN / 2], bytes[LEN - 1]), (1, 2, 3));
    assert_eq!(connection.recv().unwrap(), 4);
    finish(process);
}

/// The number that the next descriptor of this process would have.
fn next_descriptor() -> u64 {
    let next = std::fs::File::open("/dev/null").expect("null");
    next.as_raw_fd() as u64
}

fn ten_thousand_connections_leave_no_descriptor_behind() {
    const COUNT: u32 = 10_000;
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let come = |address: Address| {
        let fds = || std::fs::read_dir("/proc/self/fd").expect("/proc").count();
        let before = fds();
        for number in 0..COUNT {
            let connection: Connection<(u32, Option<Mutex<u32>>), u32> =
                Client::connect(&address).expect("connect");
            let handle = (number % 100 == 0).then(|| Mutex::new(number).expect("a mutex"));
            connection.send((number, handle)).expect("send");
            assert_eq!(connection.recv().expect("an answer"), number);
        }
        fds() - before
    };
    let client = Process::spawn(come, (listener.address().clone(),)).unwrap();
    let after_start = descriptors();
    for number in 0..COUNT {
        let connection: Connection<u32, (u32, Option<Mutex<u32>>)> =
            listener.accept_timeout(PATIENCE).unwrap();
        let (came, handle) = connection.recv().unwrap();
        assert_eq!(came, number);
        assert_eq!(
            handle.map(|mutex| *mutex.lock().unwrap()),
            (number % 100 == 0).then_some(number)
        );
        connection.send(number).unwrap();
    }
    assert_eq!(descriptors(), after_start);
    assert_eq!(finish(client), 0);
}
