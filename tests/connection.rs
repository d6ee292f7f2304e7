//! Connections between processes that know each other's address only.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start};
use common::temp::TempDir;
use common::wire::{Raw, header};
use common::{PATIENCE, watchdog};
use multiproc::connection::{Address, Client, Connection, Listener};
use multiproc::{Data, Event, Execution, Mutex, Process, wait};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "a key for tests";
const LOCALHOST: &str = "tcp:127.0.0.1:0";

/// An address of each sort.
fn addresses(scratch: &TempDir) -> [Address; 3] {
    let path = Address::unix(scratch.join("socket"));
    [path, Address::unique().unwrap(), LOCALHOST.parse().unwrap()]
}

fn listen(address: impl Into<Address>) -> Listener {
    Listener::builder().key(KEY).bind(address).unwrap()
}

#[track_caller]
fn connect<S, R>(address: &Address) -> Connection<S, R> {
    Client::builder().key(KEY).connect(address).unwrap()
}

#[track_caller]
fn accept<S, R>(listener: &Listener) -> Connection<S, R> {
    listener.accept_timeout(PATIENCE).unwrap()
}

/// Two ends in this process, over a Unix socket without a key.
fn pair<S: Data, R: Data>() -> (Connection<S, R>, Connection<R, S>) {
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let address = listener.address().clone();
    let client = std::thread::spawn(move || Client::connect(address).unwrap());
    let accepted = accept(&listener);
    (client.join().unwrap(), accepted)
}

/// Two ends over TCP.
fn tcp_pair<S: Data, R: Data>() -> (Connection<S, R>, Connection<R, S>) {
    let listener = listen(LOCALHOST.parse::<Address>().unwrap());
    let address = listener.address().clone();
    let client = std::thread::spawn(move || connect(&address));
    let accepted = accept(&listener);
    (client.join().unwrap(), accepted)
}

type Table = BTreeMap<String, Vec<Option<f32>>>;

#[test]
fn values_and_bytes_go_both_ways_over_every_sort_of_address() {
    watchdog();
    let scratch = TempDir::new();
    let answer = |address: Address| {
        let connection: Connection<Table, (u32, String)> = connect(&address);
        let (number, text) = connection.recv_timeout(PATIENCE).expect("a value");
        let values = vec![None, Some(number as f32)];
        connection.send(BTreeMap::from([(text, values)])).expect("send");
        let mut bytes = connection.recv_bytes(100).expect("bytes");
        bytes.reverse();
        connection.send_bytes(&bytes).expect("send bytes");
        assert!(connection.recv().expect_err("it ends").is_end_of_file());
    };
    for address in addresses(&scratch) {
        let listener = listen(address);
        let process = start(answer, (listener.address().clone(),));
        let connection: Connection<(u32, String), Table> = accept(&listener);
        connection.send((7, "seven".to_owned())).unwrap();
        let table = connection.recv_timeout(PATIENCE).unwrap();
        assert_eq!(table, BTreeMap::from([("seven".to_owned(), vec![None, Some(7.0)])]));
        connection.send_bytes(b"stressed").unwrap();
        let mut bytes = [0; 20];
        assert_eq!(connection.recv_bytes_into(&mut bytes).unwrap(), 8);
        assert_eq!(&bytes[..8], b"desserts");
        drop(connection);
        finish(process);
    }
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order() {
    watchdog();
    let scratch = TempDir::new();
    const SIZES: [usize; 9] = [0, 1, 15, 4096, 65_535, 65_536, 300_000, 1 << 20, (16 << 20) + 3];
    let echo = |address: Address| {
        let connection: Connection<Vec<u64>> = connect(&address);
        for _ in SIZES {
            connection.send_bytes(connection.recv_bytes(usize::MAX).expect("bytes")).expect("send");
            connection.send(connection.recv().expect("a value")).expect("send");
        }
    };
    for address in addresses(&scratch) {
        let listener = listen(address);
        let process = start(echo, (listener.address().clone(),));
        let connection: Connection<Vec<u64>> = accept(&listener);
        for size in SIZES {
            let bytes: Vec<u8> = (0..size).map(|index| (index * 7 + size) as u8).collect();
            connection.send_bytes(&bytes).unwrap();
            assert!(connection.recv_bytes(size).unwrap() == bytes, "{size} bytes");
            let numbers: Vec<u64> = (0..size as u64 / 8).collect();
            connection.send(&numbers).unwrap();
            assert!(connection.recv().unwrap() == numbers, "{size} bytes of numbers");
        }
        finish(process);
    }
}

#[test]
fn a_peer_that_has_closed_is_the_end_for_the_reader_and_an_error_for_the_writer() {
    watchdog();
    for (here, there) in [pair::<u32, u32>(), tcp_pair()] {
        there.send(1).unwrap();
        there.send(2).unwrap();
        drop(there);
        assert_eq!((here.recv().unwrap(), here.try_recv().unwrap()), (1, Some(2)));
        assert!(here.poll(PATIENCE).unwrap(), "the end is something to be received");
        for _ in 0..2 {
            assert!(here.recv().unwrap_err().is_end_of_file());
            assert!(here.try_recv().unwrap_err().is_end_of_file());
            assert!(here.recv_timeout(PATIENCE).unwrap_err().is_end_of_file());
            assert!(here.recv_bytes(1).unwrap_err().is_end_of_file());
        }
        // TCP hears of it when the peer's system has answered the first message.
        let error = loop {
            match here.send(3) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(error.is_closed(), "{error}");
    }
}

#[test]
fn a_peer_that_did_not_read_everything_still_leaves_what_it_sent() {
    watchdog();
    let (here, there) = pair::<u32, u32>();
    here.send(1).unwrap();
    there.send(2).unwrap();
    drop(there);
    assert_eq!(here.recv().unwrap(), 2);
    assert!(here.recv().unwrap_err().is_end_of_file());
}

#[test]
fn a_peer_that_went_without_reading_is_an_error_for_the_writer_too() {
    watchdog();
    for (here, there) in [pair::<u32, u32>(), tcp_pair()] {
        here.send(1).unwrap();
        assert!(there.poll(PATIENCE).unwrap());
        drop(there);
        let error = loop {
            if let Err(error) = here.send(2) {
                break error;
            }
        };
        assert!(error.is_closed(), "{error}");
    }
}

#[test]
fn a_message_that_cannot_be_received_spoils_only_itself() {
    watchdog();
    for (here, there) in [pair::<String, String>(), tcp_pair()] {
        there.send_bytes([1; 1000]).unwrap();
        there.send_bytes([2; 10]).unwrap();
        let error = here.recv_bytes(999).unwrap_err();
        assert!(error.is_too_large() && error.to_string().contains("1000 bytes (at most 999"));
        assert_eq!(here.recv_bytes(10).unwrap(), [2; 10]);

        there.send_bytes(b"x").unwrap();
        there.send("y".to_owned()).unwrap();
        there.send("z".to_owned()).unwrap();
        let error = here.recv().unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`recv_bytes`"), "{error}");
        let error = here.recv_bytes(100).unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`recv`"), "{error}");
        assert_eq!(here.recv().unwrap(), "z");

        let mut small = [0; 3];
        there.send_bytes([3; 4]).unwrap();
        assert!(here.recv_bytes_into(&mut small).unwrap_err().is_too_large());
        there.send_bytes([4; 3]).unwrap();
        assert_eq!((here.recv_bytes_into(&mut small).unwrap(), small), (3, [4; 3]));
    }
}

#[test]
fn a_value_of_another_type_is_an_error_and_the_next_one_is_not() {
    watchdog();
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let address = listener.address().clone();
    let client = std::thread::spawn(move || {
        let connection: Connection<String, ()> = Client::connect(address).unwrap();
        connection.send("no number".to_owned()).unwrap();
        connection.send("12345678".to_owned()[..7].to_owned()).unwrap();
    });
    let connection: Connection<(), u64> = accept(&listener);
    client.join().unwrap();
    let error = connection.recv().unwrap_err();
    assert!(error.is_decode() && error.to_string().contains("u64"), "{error}");
    // Eight bytes: a length, and seven letters.
    connection.recv().expect("a number as good as any other");
    assert!(connection.recv().unwrap_err().is_end_of_file());
}

#[test]
fn the_largest_message_is_what_was_set_on_either_side() {
    watchdog();
    let listener = Listener::builder().max_message(1000).bind(Address::unique().unwrap()).unwrap();
    let address = listener.address().clone();
    let client = std::thread::spawn(move || {
        let connection: Connection<()> =
            Client::builder().max_message(2000).connect(address).unwrap();
        assert!(connection.send_bytes([0; 2001]).unwrap_err().is_too_large());
        connection.send_bytes([0; 1001]).unwrap();
        connection.send_bytes([0; 1000]).unwrap();
    });
    let connection: Connection<()> = accept(&listener);
    client.join().unwrap();
    assert!(connection.recv_bytes(usize::MAX).unwrap_err().is_too_large());
    assert_eq!(connection.recv_bytes(usize::MAX).unwrap().len(), 1000);
}

#[test]
fn an_item_that_cannot_be_encoded_is_the_senders_error_and_nothing_is_sent() {
    watchdog();
    let (here, there) = pair::<Result<u8, Outside>, Result<u8, Outside>>();
    let error = here.send(Err(Outside)).unwrap_err();
    assert!(error.is_encode() && error.to_string().contains("Outside"), "{error}");
    here.send(Ok(1)).unwrap();
    assert!(matches!(there.recv().unwrap(), Ok(1)));
}

/// Something that does not travel.
#[derive(Debug)]
struct Outside;

impl serde::Serialize for Outside {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it stays"))
    }
}

impl<'de> serde::Deserialize<'de> for Outside {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("it stays"))
    }
}

#[test]
fn a_receive_that_gives_up_in_the_middle_of_a_message_keeps_what_has_come() {
    watchdog();
    let (here, there) = pair::<String, String>();
    let mut raw = Raw::of(&there);
    let mut bytes = header(2, 0, 10);
    bytes.extend(b"0123456789");
    let timeout = Duration::from_millis(1);
    for piece in bytes.chunks(3) {
        assert!(here.recv_bytes_timeout(10, timeout).unwrap_err().is_timeout());
        assert!(here.recv_bytes_timeout(10, Duration::ZERO).unwrap_err().is_timeout());
        raw.write_all(piece).unwrap();
        assert!(here.poll(PATIENCE).unwrap());
    }
    assert_eq!(here.recv_bytes(10).unwrap(), b"0123456789");
    assert!(!here.poll(Duration::ZERO).unwrap());
    assert_eq!(here.try_recv().unwrap(), None);
    let error = here.recv_timeout(timeout).unwrap_err();
    assert!(error.is_timeout() && error.execution() == Execution::NotStarted);
}

#[test]
fn the_end_in_the_middle_of_a_message_is_a_disconnection() {
    watchdog();
    let mut message = header(2, 0, 5);
    message.extend(b"12345");
    for count in 1..message.len() {
        let (here, there) = pair::<u8, u8>();
        Raw::of(&there).write_all(&message[..count]).unwrap();
        drop(there);
        for _ in 0..2 {
            let error = here.recv_bytes(9).unwrap_err();
            assert!(error.is_disconnected(), "after {count} bytes: {error}");
        }
    }
}

#[test]
fn the_messages_can_be_gone_through_until_the_end() {
    watchdog();
    let (here, there) = pair::<u8, u8>();
    for number in 0..5 {
        there.send(number).unwrap();
    }
    there.send_bytes(b"no number").unwrap();
    let mut raw = Raw::of(&there);
    drop(there);
    let came: Vec<_> = here.iter().take(6).map(Result::ok).collect();
    assert_eq!(came, [Some(0), Some(1), Some(2), Some(3), Some(4), None]);
    raw.write_all(&header(1, 0, 1)).unwrap();
    drop(raw);
    let rest: Vec<_> = here.iter().collect();
    assert!(matches!(&rest[..], [Err(error)] if error.is_disconnected()), "{rest:?}");
    let (here, there) = pair::<u8, u8>();
    there.send(7).unwrap();
    drop(there);
    let mut sum = 0;
    for number in &here {
        sum += number.unwrap();
    }
    assert_eq!(sum, 7);
}

#[test]
fn what_is_no_message_ends_the_connection_and_a_giant_length_takes_no_memory() {
    watchdog();
    let (here, there) = pair::<u8, u8>();
    Raw::of(&there).write_all(&header(2, 0, u64::MAX)).unwrap();
    Raw::of(&there).write_all(&header(2, 0, 3)).unwrap();
    assert!(here.recv_bytes(usize::MAX).unwrap_err().is_too_large());
    // The rest of it is still to come, and will never have done so.
    assert!(here.recv_bytes_timeout(9, Duration::from_millis(1)).unwrap_err().is_timeout());
    for wrong in
        [header(0, 0, 1), header(4, 0, 1), header(2, 225, 1), b"GET / HTTP/1.1\r\n".to_vec()]
    {
        let (here, there) = pair::<u8, u8>();
        Raw::of(&there).write_all(&wrong).unwrap();
        for _ in 0..2 {
            assert!(here.recv().unwrap_err().is_disconnected(), "{wrong:?}");
        }
        assert!(here.send(1).is_err());
        Raw::of(&there).wait_for_end();
    }
}

#[test]
fn objects_that_a_message_only_claims_to_have_are_an_error_of_that_message() {
    watchdog();
    let (here, there) = pair::<u8, u8>();
    let mut raw = Raw::of(&there);
    let mut message = header(1, 2, 1);
    message.extend([0; 17]);
    raw.write_all(&message).unwrap();
    there.send(5).unwrap();
    let error = here.recv().unwrap_err();
    assert!(error.is_decode(), "{error}");
    assert_eq!(here.recv().unwrap(), 5);
}

#[test]
fn many_threads_of_both_processes_use_one_connection_and_every_message_is_whole() {
    watchdog();
    const THREADS: u32 = 4;
    const EACH: u32 = 300;
    fn talk(connection: &Connection<Vec<u32>>) -> Vec<u32> {
        let taken = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let taken = &taken;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let id = thread * EACH + number;
                        connection.send(vec![id; 1 + id as usize * 5]).expect("send");
                    }
                });
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let message = connection.recv_timeout(PATIENCE).expect("a message");
                        assert!(message.len() == 1 + message[0] as usize * 5);
                        assert!(message.iter().all(|&id| id == message[0]), "it is torn");
                        taken.lock().unwrap().push(message[0]);
                    }
                });
            }
        });
        let mut taken = taken.into_inner().unwrap();
        taken.sort_unstable();
        taken
    }
    let scratch = TempDir::new();
    for address in addresses(&scratch) {
        let listener = listen(address);
        let other = |address: Address| talk(&connect(&address));
        let process = start(other, (listener.address().clone(),));
        let all: Vec<u32> = (0..THREADS * EACH).collect();
        assert_eq!(talk(&accept(&listener)), all);
        assert_eq!(finish(process), all);
    }
}

#[test]
fn a_send_to_a_peer_that_does_not_read_gives_up_in_time() {
    watchdog();
    let (here, there) = pair::<u8, u8>();
    let short = Duration::from_millis(5);
    // Small messages fill the buffer to the last one that goes in whole.
    let mut sent = 0;
    let error = loop {
        match here.send_timeout(1, short) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
    for _ in 0..sent {
        assert_eq!(there.recv().unwrap(), 1);
    }
    here.send_timeout(2, Duration::ZERO).unwrap();
    assert_eq!(there.recv().unwrap(), 2);

    // Of a large one a part goes.
    let error = here.send_bytes_timeout(vec![0; 64 << 20], short).unwrap_err();
    assert!(error.is_timeout() && error.execution() == Execution::Unknown, "{error}");
    assert!(here.send(3).unwrap_err().is_disconnected());
    assert!(there.recv_bytes(usize::MAX).unwrap_err().is_disconnected());
    there.send(4).unwrap();
    assert_eq!(here.recv().unwrap(), 4, "the other direction is all right");
}

#[test]
fn a_thread_that_waits_to_send_does_not_hold_up_the_timeout_of_another() {
    watchdog();
    let (here, there) = pair::<u8, u8>();
    let large = vec![7; 64 << 20];
    std::thread::scope(|scope| {
        let first = scope.spawn(|| here.send_bytes(&large));
        assert!(there.poll(PATIENCE).unwrap());
        let error = here.send_timeout(1, Duration::from_millis(1)).unwrap_err();
        assert!(error.is_timeout() && error.execution() == Execution::NotStarted, "{error}");
        assert!(there.recv_bytes(usize::MAX).unwrap() == large);
        first.join().unwrap().unwrap();
    });
    here.send(1).unwrap();
    assert_eq!(there.recv().unwrap(), 1);
}

#[test]
fn closing_wakes_who_waits_in_every_thread() {
    watchdog();
    let (here, there) = pair::<u8, u8>();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| here.recv())).collect();
        let sending = scope.spawn(|| here.send_bytes(vec![0; 64 << 20]));
        assert!(there.poll(PATIENCE).unwrap());
        here.close();
        for waiting in waiting {
            assert!(waiting.join().unwrap().unwrap_err().is_end_of_file());
        }
        assert!(sending.join().unwrap().unwrap_err().is_disconnected());
    });
    let listener = Arc::new(listen(LOCALHOST.parse::<Address>().unwrap()));
    for listener in [listener, Arc::new(listen(Address::unique().unwrap()))] {
        let accepting: Vec<_> = (0..3)
            .map(|_| {
                let listener = listener.clone();
                std::thread::spawn(move || listener.accept::<u8, u8>())
            })
            .collect();
        listener.close();
        for accepting in accepting {
            assert!(accepting.join().unwrap().unwrap_err().is_closed());
        }
        let gone = Client::builder().key(KEY).connect::<u8, u8>(listener.address()).unwrap_err();
        assert!(gone.is_os() || gone.is_disconnected(), "{gone}");
    }
}

#[test]
fn accept_tells_who_came_last_and_gives_up_in_time() {
    watchdog();
    let listener = listen(LOCALHOST.parse::<Address>().unwrap());
    let Address::Tcp(address) = listener.address() else { panic!("{:?}", listener.address()) };
    assert_ne!(address.port(), 0, "the port that the kernel chose");
    assert_eq!(listener.last_accepted(), None);
    let error = listener.accept_timeout::<u8, u8>(Duration::from_millis(1)).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(listener.try_accept::<u8, u8>().unwrap().is_none());

    let address = listener.address().clone();
    let client = std::thread::spawn(move || connect::<u8, u8>(&address));
    let accepted = loop {
        match listener.try_accept::<u8, u8>().unwrap() {
            Some(accepted) => break accepted,
            None => std::thread::yield_now(),
        }
    };
    let client = client.join().unwrap();
    assert_eq!(client.peer(), Some(listener.address()));
    let last = listener.last_accepted();
    assert!(matches!(&last, Some(Address::Tcp(from)) if from.ip().is_loopback()));
    assert_eq!(accepted.peer(), last.as_ref());
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.refused, stats.pending), (1, 0, 0));

    let unix = Listener::bind(Address::unique().unwrap()).unwrap();
    let address = unix.address().clone();
    let client = std::thread::spawn(move || Client::connect::<u8, u8>(address).unwrap());
    assert_eq!(accept::<u8, u8>(&unix).peer(), None, "a Unix client has no address");
    assert_eq!(unix.last_accepted(), None);
    client.join().unwrap();
}

#[test]
fn a_listener_is_ready_when_a_client_has_knocked_and_when_it_was_closed() {
    watchdog();
    let listener = listen(Address::unique().unwrap());
    assert!(wait(&[&listener], Some(Duration::ZERO)).unwrap().is_empty());
    std::thread::scope(|scope| {
        let client = scope.spawn(|| connect::<u8, u8>(listener.address()));
        assert_eq!(wait(&[&listener], Some(PATIENCE)).unwrap(), [0]);
        accept::<u8, u8>(&listener);
        client.join().unwrap();
    });
    assert!(wait(&[&listener], Some(Duration::ZERO)).unwrap().is_empty());
    listener.close();
    assert_eq!(wait(&[&listener], Some(PATIENCE)).unwrap(), [0]);
}

#[test]
fn a_thread_that_accepts_does_not_hold_up_the_timeout_of_another() {
    watchdog();
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| listener.accept::<u8, u8>().unwrap());
        let short = Duration::from_millis(1);
        assert!(listener.accept_timeout::<u8, u8>(short).unwrap_err().is_timeout());
        assert!(listener.try_accept::<u8, u8>().unwrap().is_none());
        let client: Connection<u8> = Client::connect(listener.address()).unwrap();
        client.send(1).unwrap();
        assert_eq!(first.join().unwrap().recv().unwrap(), 1);
    });
}

#[test]
fn what_would_be_dangerous_has_to_be_asked_for_by_name() {
    watchdog();
    let everywhere: Address = "tcp:0.0.0.0:0".parse().unwrap();
    let localhost: Address = LOCALHOST.parse().unwrap();
    let refused = |what: multiproc::Result<Listener>, method: &str| {
        let error = what.expect_err(method);
        assert!(error.is_invalid_input() && error.to_string().contains(method), "{error}");
    };
    refused(Listener::bind(&localhost), "allow_anyone");
    refused(Listener::builder().key(KEY).bind(&everywhere), "allow_remote");
    refused(Listener::builder().allow_anyone(true).bind(&everywhere), "allow_remote");
    refused(Listener::builder().allow_remote(true).bind(&everywhere), "allow_anyone");
    refused(Listener::builder().key(KEY).allow_uids([0]).bind(&localhost), "allow_uids");
    refused(Listener::builder().key("").bind(&localhost), "empty key");
    refused(Listener::builder().key(KEY).service([0; 209]).bind(&localhost), "209");
    refused(Listener::builder().key(KEY).max_pending(0).bind(&localhost), "max_pending");
    let error = Client::connect::<u8, u8>(&localhost).unwrap_err();
    assert!(error.is_invalid_input() && error.to_string().contains("allow_anyone"), "{error}");

    Listener::builder().key(KEY).allow_remote(true).bind(&everywhere).unwrap();
    let open = Listener::builder().allow_anyone(true).bind(&localhost).unwrap();
    let address = open.address().clone();
    let client = std::thread::spawn(move || {
        Client::builder().allow_anyone(true).connect::<u8, u8>(address).unwrap().send(1).unwrap();
    });
    assert_eq!(accept::<u8, u8>(&open).recv().unwrap(), 1);
    client.join().unwrap();
}

/// A port that is taken, by a socket that does not listen.
fn port_without_listener() -> (OwnedFd, u16) {
    // SAFETY: an address of IPv4 is plain numbers, for which all zeros is valid.
    let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
    let mut len = size_of_val(&name) as libc::socklen_t;
    // SAFETY: the descriptor is new, and both calls get a name of that length, which lives.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0 && libc::bind(fd, (&raw const name).cast(), len) == 0);
        assert_eq!(libc::getsockname(fd, (&raw mut name).cast(), &raw mut len), 0);
        OwnedFd::from_raw_fd(fd)
    };
    (socket, u16::from_be(name.sin_port))
}

#[test]
fn an_address_where_nobody_listens_is_an_error_with_the_address() {
    watchdog();
    let scratch = TempDir::new();
    let path = Address::unix(scratch.join("nobody"));
    let (_bound, port) = port_without_listener();
    let tcp = Address::tcp(("127.0.0.1", port)).unwrap();
    for address in [path, Address::unique().unwrap(), tcp] {
        let error = Client::builder().key(KEY).connect::<u8, u8>(&address).unwrap_err();
        assert!(error.is_os() && error.to_string().contains(&address.to_string()), "{error}");
    }
    let listener = listen(Address::unix(scratch.join("taken")));
    let error = Listener::bind(listener.address()).unwrap_err();
    assert!(error.is_os() && error.to_string().contains("taken"), "{error}");
    // It was not the second one's to remove.
    assert!(std::fs::metadata(scratch.join("taken")).unwrap().file_type().is_socket());
}

#[test]
fn a_listener_removes_its_path_and_no_other() {
    watchdog();
    let scratch = TempDir::new();
    let path = scratch.join("socket");
    let listener = Listener::bind(path.as_path()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else may connect: {mode:o}");
    drop(listener);
    assert!(!path.exists());

    let first = Listener::bind(path.as_path()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Listener::bind(path.as_path()).unwrap();
    let made = std::fs::metadata(&path).unwrap().ino();
    drop(first);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), made);
    second.close();
    assert!(!path.exists());
}

#[test]
fn what_a_killed_listener_leaves_can_be_replaced_and_a_living_one_cannot() {
    watchdog();
    let scratch = TempDir::new();
    let path = scratch.join("socket");
    let hold = |path: std::path::PathBuf, bound: Event| {
        let _listener = Listener::bind(path).expect("bind");
        bound.set();
        std::thread::park();
    };
    let bound = Event::new().unwrap();
    let process = start(hold, (path.clone(), bound.clone()));
    assert!(bound.wait_timeout(PATIENCE));
    let replace = || Listener::builder().replace_stale(true).bind(path.as_path());
    assert!(replace().unwrap_err().is_os(), "it lives");
    kill(process);
    assert!(path.exists());
    assert!(Listener::bind(path.as_path()).is_err(), "nobody asked to replace it");
    let listener = replace().unwrap();
    let address = listener.address().clone();
    let client = std::thread::spawn(move || Client::connect::<u8, u8>(address).map(drop));
    accept::<u8, u8>(&listener);
    client.join().unwrap().unwrap();
    drop(listener);
    std::fs::write(&path, "no socket").unwrap();
    assert!(replace().is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"no socket");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left");
}

#[test]
fn the_kernel_tells_who_is_at_the_other_end() {
    watchdog();
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let ask = |address: Address| {
        let connection: Connection<u8> = Client::connect(address).expect("connect");
        let server = connection.credentials().expect("credentials");
        connection.recv().expect("a message");
        server.pid
    };
    let process = start(ask, (listener.address().clone(),));
    let connection: Connection<u8> = accept(&listener);
    let peer = connection.credentials().unwrap();
    // SAFETY: geteuid and getegid have no preconditions.
    let own = unsafe { (libc::geteuid(), libc::getegid()) };
    assert_eq!((peer.pid, peer.uid, peer.gid), (process.pid(), own.0, own.1));
    connection.send(0).unwrap();
    assert_eq!(finish(process), std::process::id());
    let error = tcp_pair::<u8, u8>().0.credentials().unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
}

#[test]
fn a_process_that_may_not_connect_is_told_so() {
    watchdog();
    let try_it = |address: Address| Client::connect::<u8, u8>(address).map(drop);
    let refusing = [
        Listener::builder().allow_uids([u32::MAX - 5]),
        Listener::builder().check(|peer| peer.pid == std::process::id()),
    ];
    for builder in refusing {
        let listener = builder.bind(Address::unique().unwrap()).unwrap();
        let process = start(try_it, (listener.address().clone(),));
        let refused = || listener.stats().refused == 1;
        while !refused() {
            assert!(listener.try_accept::<u8, u8>().unwrap().is_none());
        }
        let error = finish(process).unwrap_err();
        assert!(error.is_authentication() && error.to_string().contains("user"), "{error}");
    }
}

#[test]
fn another_user_is_refused_unless_named_and_a_foreign_listener_is_not_trusted() {
    watchdog();
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return; // Only root can become somebody else.
    }
    const NOBODY: u32 = 65534;
    let as_nobody = |address: Address| {
        // SAFETY: setuid has no preconditions.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
        let client = Client::builder().allow_uids([0]);
        client.connect::<u8, u8>(address).map(|connection| connection.send(7).expect("send"))
    };
    let own = Listener::bind(Address::unique().unwrap()).unwrap();
    let process = start(as_nobody, (own.address().clone(),));
    while own.stats().refused == 0 {
        assert!(own.try_accept::<u8, u8>().unwrap().is_none());
    }
    assert!(finish(process).unwrap_err().is_authentication());

    let named = Listener::builder().allow_uids([NOBODY]).bind(Address::unique().unwrap()).unwrap();
    let process = start(as_nobody, (named.address().clone(),));
    let connection: Connection<u8> = accept(&named);
    assert_eq!(connection.credentials().unwrap().uid, NOBODY);
    assert_eq!(connection.recv().unwrap(), 7);
    finish(process).unwrap();

    // This listener would let nobody in; but nobody does not trust it in the first place.
    let distrust = |address: Address| {
        // SAFETY: setuid has no preconditions.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
        Client::connect::<u8, u8>(address).map(drop)
    };
    let error = finish(start(distrust, (named.address().clone(),))).unwrap_err();
    assert!(error.is_authentication() && error.to_string().contains("another user"), "{error}");
}

#[test]
fn shared_objects_go_over_unix_sockets_and_stay_shared() {
    watchdog();
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let count = |address: Address| {
        let connection: Connection<Event, (Mutex<u64>, Mutex<u64>, Event)> =
            Client::connect(address).expect("connect");
        let (first, second, go) = connection.recv().expect("handles");
        let done = Event::new().expect("an event");
        connection.send(&done).expect("send");
        assert!(go.wait_timeout(PATIENCE));
        for _ in 0..1000 {
            *first.lock().expect("nobody dies") += 1;
        }
        let sum = *first.lock().expect("nobody dies");
        assert_eq!(*second.lock().expect("nobody dies"), sum, "they are one and the same");
        done.set();
        // The objects outlive this process, and the connection.
    };
    let process = start(count, (listener.address().clone(),));
    let connection: Connection<(Mutex<u64>, Mutex<u64>, Event), Event> = accept(&listener);
    let (counter, go) = (Mutex::new(5).unwrap(), Event::new().unwrap());
    connection.send((counter.clone(), counter.clone(), go.clone())).unwrap();
    let done = connection.recv_timeout(PATIENCE).unwrap();
    go.set();
    assert!(done.wait_timeout(PATIENCE));
    assert_eq!(*counter.lock().unwrap(), 1005);
    finish(process);
}

#[test]
fn tcp_carries_neither_objects_nor_descriptors_and_says_why() {
    watchdog();
    let (here, there) = tcp_pair::<Option<Mutex<u8>>, Option<Mutex<u8>>>();
    let error = here.send(Some(Mutex::new(1).unwrap())).unwrap_err();
    assert!(error.is_encode() && error.to_string().contains("TCP"), "{error}");
    let error = here.send_fd(std::io::stdin()).unwrap_err();
    assert!(error.is_encode() && error.to_string().contains("TCP"), "{error}");
    here.send(None).unwrap();
    assert!(there.recv().unwrap().is_none());
}

#[test]
fn open_files_go_over_unix_sockets_between_other_messages() {
    watchdog();
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let write = |address: Address| {
        let connection: Connection<u8, String> = Client::connect(address).expect("connect");
        let text = connection.recv().expect("a text");
        let fd = connection.recv_fd_timeout(PATIENCE).expect("a descriptor");
        std::fs::File::from(fd).write_all(text.as_bytes()).expect("write");
        assert!(connection.recv_fd().expect_err("bytes").is_decode());
        connection.send_bytes(b"done").expect("send");
    };
    let process = start(write, (listener.address().clone(),));
    let connection: Connection<String, u8> = accept(&listener);
    let (mut reader, writer) = std::io::pipe().unwrap();
    connection.send("through a pipe".to_owned()).unwrap();
    connection.send_fd(&writer).unwrap();
    connection.send_bytes(b"no descriptor").unwrap();
    drop(writer);
    assert_eq!(connection.recv_bytes(9).unwrap(), b"done");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through a pipe");
    finish(process);
}

#[test]
fn descriptors_in_many_messages_in_a_row_do_not_get_mixed_up() {
    watchdog();
    let (here, there) = pair::<(u32, Option<Mutex<u32>>), (u32, Option<Mutex<u32>>)>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..300 {
                let handle = (number % 3 == 0).then(|| Mutex::new(number).unwrap());
                here.send((number, handle)).unwrap();
            }
        });
        for number in 0..300 {
            let (came, handle) = there.recv_timeout(PATIENCE).unwrap();
            assert_eq!(came, number);
            assert_eq!(
                handle.map(|mutex| *mutex.lock().unwrap()),
                (number % 3 == 0).then_some(number)
            );
        }
    });
}

#[test]
fn an_end_can_be_handed_to_another_process_as_argument_or_in_a_message() {
    watchdog();
    fn serve(connection: Connection<u64, u64>) -> u64 {
        let mut served = 0;
        while let Ok(number) = connection.recv() {
            connection.send(number * 2).expect("send");
            served += 1;
        }
        served
    }
    for (here, there) in [pair::<u64, u64>(), tcp_pair()] {
        let mut process = Process::spawn(serve, (there.clone(),)).unwrap();
        drop(there);
        for number in 0..10 {
            here.send(number).unwrap();
            assert_eq!(here.recv_timeout(PATIENCE).unwrap(), number * 2);
        }
        assert!(here.peer().is_some());
        drop(here);
        assert_eq!(process.join_timeout(PATIENCE).unwrap(), 10);
    }

    let (here, there) = pair::<Connection<u64>, Connection<u64>>();
    let (inner, other) = tcp_pair::<u64, u64>();
    here.send(inner).unwrap();
    let inner = there.recv().unwrap();
    inner.send(5).unwrap();
    assert_eq!(other.recv().unwrap(), 5);

    let mut raw = Raw::of(&other);
    raw.write_all(&header(1, 0, 8)[..5]).unwrap();
    assert!(inner.recv_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    let error = here.send(inner).unwrap_err();
    assert!(error.is_encode() && error.to_string().contains("part of a message"), "{error}");
}

#[test]
fn what_comes_in_place_of_a_connection_is_refused() {
    watchdog();
    // Sent as one type, received as another.
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let address = listener.address().clone();
    let sender = std::thread::spawn(move || {
        let sender: Connection<(Mutex<u64>, u64, Option<Address>), ()> =
            Client::connect(address).unwrap();
        sender.send((Mutex::new(0).unwrap(), 5, None)).unwrap();
    });
    let error = accept::<(), Connection<u64>>(&listener).recv().unwrap_err();
    sender.join().unwrap();
    assert!(error.is_decode() && error.to_string().contains("no connection"), "{error}");
}

#[test]
fn processes_that_connect_at_the_same_time_all_get_in() {
    watchdog();
    let scratch = TempDir::new();
    for address in addresses(&scratch) {
        let listener = listen(address);
        let greet = |address: Address, number: u32| {
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let address = &address;
                    scope.spawn(move || {
                        let connection: Connection<u32> = connect(address);
                        connection.send(number * 8 + thread).expect("send");
                        assert!(connection.recv().expect_err("it ends").is_end_of_file());
                    });
                }
            });
        };
        let processes: Vec<_> =
            (0..3).map(|number| start(greet, (listener.address().clone(), number))).collect();
        let mut came: Vec<u32> =
            (0..24).map(|_| in_time(|| accept::<u32, u32>(&listener).recv().unwrap())).collect();
        came.sort_unstable();
        assert_eq!(came, (0..24).collect::<Vec<_>>());
        finish_all(processes);
        assert_eq!(listener.stats().accepted, 24);
    }
}

#[test]
fn a_connection_is_readable_for_others_when_it_is_for_itself() {
    watchdog();
    let (here, there) = pair::<u8, u8>();
    let fd: OwnedFd = here.as_fd().try_clone_to_owned().unwrap();
    let readable = || {
        let mut poll = libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&fd),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, which lives as long as the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    };
    assert!(!readable());
    there.send(1).unwrap();
    assert!(readable() && here.poll(Duration::ZERO).unwrap());
    assert_eq!(here.recv().unwrap(), 1);
    assert!(!readable() && !here.poll(Duration::ZERO).unwrap());
    drop(there);
    // A process that another test starts in this moment has it, too, until it executes.
    assert!(here.poll(PATIENCE).unwrap());
    assert!(readable());
}
