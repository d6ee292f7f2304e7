//! Peers that are not what they should be: none of them keeps a good one from being accepted.

mod common;

use common::sync::{finish, start};
use common::wire::{HELLO, PROOF, Raw, VERDICT, header, hello};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::connection::{Address, Client, Connection, Listener, ListenerBuilder};
use multiproc::{Process, Value};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

const KEY: &str = "a key for tests";

fn both() -> [Address; 2] {
    [Address::unique().unwrap(), "tcp:127.0.0.1:0".parse().unwrap()]
}

fn builder() -> ListenerBuilder {
    Listener::builder().key(KEY)
}

fn come(address: Address) -> u32 {
    let connection: Connection<u32> = Client::builder().key(KEY).connect(address).expect("connect");
    connection.send(std::process::id()).expect("send");
    connection.recv_timeout(PATIENCE).expect("an answer")
}

/// A client of another process gets in, and a message of it, too.
#[track_caller]
fn a_good_client_gets_in(listener: &Listener) {
    greet(listener, start(come, (listener.address().clone(),)));
}

/// Accepts this client, and answers it.
#[track_caller]
fn greet(listener: &Listener, process: Process<u32>) {
    let connection: Connection<u32> = listener.accept_timeout(PATIENCE).unwrap();
    assert_eq!(connection.recv_timeout(PATIENCE).unwrap(), process.pid());
    connection.send(5).unwrap();
    assert_eq!(finish(process), 5);
}

/// As [`a_good_client_gets_in`], when the listener has so little patience that the client may be
/// too late, if the machine has other things to do: then it comes again. How often it was too late.
#[track_caller]
fn a_good_client_gets_in_at_last(listener: &Listener) -> u64 {
    let timed_out = Value::new(0).unwrap();
    let come_again = |address: Address, timed_out: Value<u64>| {
        let connection: Connection<u32> = loop {
            match Client::builder().key(KEY).connect(&address) {
                Ok(connection) => break connection,
                Err(error) => assert!(error.is_disconnected(), "{error}"),
            }
            *timed_out.lock().expect("nobody dies") += 1;
        };
        connection.send(std::process::id()).expect("send");
        connection.recv_timeout(PATIENCE).expect("an answer")
    };
    greet(listener, start(come_again, (listener.address().clone(), timed_out.clone())));
    timed_out.get().unwrap()
}

/// Lets the listener deal with whoever knocks until something is so.
#[track_caller]
fn until(listener: &Listener, what: &str, so: impl Fn() -> bool) {
    wait_until(what, || {
        assert!(listener.try_accept::<(), ()>().unwrap().is_none(), "a stranger was let in");
        so()
    });
}

#[test]
fn a_wrong_key_is_refused_on_both_sides_and_nobody_else_notices() {
    watchdog();
    for address in both() {
        let listener = builder().bind(address).unwrap();
        let wrong = |address: Address, key: Option<String>| {
            let mut client = Client::builder().allow_anyone(true);
            if let Some(key) = key {
                client = client.key(key);
            }
            client.connect::<u8, u8>(address).map(drop)
        };
        for (number, key) in [Some("another"), Some("a key for test"), None].into_iter().enumerate()
        {
            let key = key.map(str::to_owned);
            let process = start(wrong, (listener.address().clone(), key));
            until(&listener, "it is refused", || listener.stats().refused > number as u64);
            let error = finish(process).unwrap_err();
            assert!(error.is_authentication(), "{error}");
            assert!(error.to_string().contains(&listener.address().to_string()), "{error}");
            assert!(error.to_string().contains("key"), "{error}");
        }
        a_good_client_gets_in(&listener);
        assert_eq!((listener.stats().accepted, listener.stats().refused), (1, 3));
    }
}

#[test]
fn a_client_with_a_key_does_not_talk_to_a_listener_without_one() {
    watchdog();
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let connect =
        |address: Address| Client::builder().key(KEY).connect::<u8, u8>(address).map(drop);
    let process = start(connect, (listener.address().clone(),));
    until(&listener, "it is refused", || listener.stats().refused == 1);
    let error = finish(process).unwrap_err();
    assert!(error.is_authentication() && error.to_string().contains("no key"), "{error}");
}

#[test]
fn who_wants_another_service_hears_what_differs() {
    watchdog();
    let listener = builder().service("bank/1").bind(Address::unique().unwrap()).unwrap();
    let connect = |address: Address, service: String| {
        Client::builder().key(KEY).service(service).connect::<u8, u8>(address).map(drop)
    };
    let process = start(connect, (listener.address().clone(), "bank/2".to_owned()));
    until(&listener, "it is refused", || listener.stats().refused == 1);
    let error = finish(process).unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_authentication() && text.contains("bank/1") && text.contains("bank/2"),
        "{text}"
    );
    let process = start(connect, (listener.address().clone(), "bank/1".to_owned()));
    listener.accept_timeout::<u8, u8>(PATIENCE).unwrap();
    finish(process).unwrap();
}

/// Passes a handshake on, byte for byte, and returns what the client said.
fn record(proxy: &TcpListener, listener: &Address) -> (Vec<u8>, Vec<u8>) {
    let (client, _) = proxy.accept().unwrap();
    let mut client = Raw::Tcp(client).patient(Some(PATIENCE)).unwrap();
    let mut server = Raw::connect(listener).unwrap();
    let hello = client.get(HELLO);
    server.write_all(&hello).unwrap();
    client.write_all(&server.get(HELLO)).unwrap();
    let proof = client.get(PROOF);
    server.write_all(&proof).unwrap();
    client.write_all(&server.get(VERDICT)).unwrap();
    (hello, proof)
}

#[test]
fn a_recorded_handshake_is_of_no_use_later() {
    watchdog();
    let listener = builder().bind("tcp:127.0.0.1:0".parse::<Address>().unwrap()).unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let through = Address::Tcp(proxy.local_addr().unwrap());
    let (hello, proof) = std::thread::scope(|scope| {
        let client = scope.spawn(|| Client::builder().key(KEY).connect::<u8, u8>(&through));
        let recording = scope.spawn(|| record(&proxy, listener.address()));
        listener.accept_timeout::<u8, u8>(PATIENCE).unwrap();
        client.join().unwrap().unwrap();
        recording.join().unwrap()
    });
    let replay = |hello: &[u8], proof: &[u8]| {
        let mut raw = Raw::connect(listener.address()).unwrap();
        raw.write_all(hello).unwrap();
        std::thread::scope(|scope| {
            let replaying = scope.spawn(move || {
                raw.get(HELLO);
                raw.write_all(proof).unwrap();
                let verdict = raw.get(VERDICT);
                raw.wait_for_end();
                verdict
            });
            let refused = listener.stats().refused;
            until(&listener, "it is refused", || listener.stats().refused > refused);
            assert_eq!(replaying.join().unwrap(), [0; VERDICT], "it tells no more than that");
        });
    };
    replay(&hello, &proof);
    // Also not with a hello of one's own.
    replay(&common::wire::hello(true), &proof);
    replay(&hello, &[0; PROOF]);
    a_good_client_gets_in(&listener);
}

#[test]
fn a_client_is_not_taken_in_by_its_own_words() {
    watchdog();
    let false_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(false_listener.local_addr().unwrap());
    let connect = || Client::builder().key(KEY).connect::<u8, u8>(&address).map(drop);
    let reflect = |role: Option<u8>| {
        std::thread::scope(|scope| {
            let client = scope.spawn(connect);
            let (stream, _) = false_listener.accept().unwrap();
            let mut raw = Raw::Tcp(stream).patient(Some(PATIENCE)).unwrap();
            let mut hello = raw.get(HELLO);
            if let Some(role) = role {
                hello[7] = role;
            }
            raw.write_all(&hello).unwrap();
            if role.is_some() {
                let proof = raw.get(PROOF);
                let mut verdict = vec![0; VERDICT - PROOF];
                verdict[0] = 1;
                verdict.extend(proof);
                raw.write_all(&verdict).unwrap();
            }
            raw.wait_for_end();
            client.join().unwrap().unwrap_err()
        })
    };
    for role in [None, Some(1)] {
        let error = reflect(role);
        assert!(error.is_authentication(), "{error}");
    }
}

#[test]
fn what_answers_something_else_is_no_listener_and_what_answers_nothing_is_too_slow() {
    watchdog();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(other.local_addr().unwrap());
    let client = Client::builder().key(KEY).timeout(Duration::from_millis(5));
    let error = client.connect::<u8, u8>(&address).unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains(&address.to_string()), "{error}");
    // Another one: the time may have passed before it knocked, or just after.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(other.local_addr().unwrap());
    for (answer, is_stranger) in [(vec![b'x'; HELLO], true), (vec![b'x'; 7], false)] {
        std::thread::scope(|scope| {
            let client = scope.spawn(|| Client::builder().key(KEY).connect::<u8, u8>(&address));
            let (mut stream, _) = other.accept().unwrap();
            stream.read_exact(&mut [0; HELLO]).unwrap();
            stream.write_all(&answer).unwrap();
            drop(stream);
            let error = client.join().unwrap().unwrap_err();
            assert!(error.is_authentication() == is_stranger, "{error}");
            assert!(error.is_disconnected() != is_stranger, "{error}");
        });
    }
}

#[test]
fn peers_that_say_nothing_or_half_of_it_are_forgotten_in_time() {
    watchdog();
    for address in both() {
        let patience = Duration::from_millis(300);
        let listener = builder().handshake_timeout(patience).bind(address).unwrap();
        let mut half_open: Vec<Raw> =
            (0..5).map(|_| Raw::connect(listener.address()).unwrap()).collect();
        for (raw, count) in half_open.iter_mut().zip([0, 1, 8, HELLO - 1, HELLO]) {
            raw.write_all(&hello(true)[..count]).unwrap();
        }
        let late = a_good_client_gets_in_at_last(&listener);
        until(&listener, "all are gone", || listener.stats().timed_out == 5 + late);
        half_open.iter_mut().for_each(Raw::wait_for_end);
        assert_eq!((listener.stats().refused, listener.stats().pending), (0, 0));
        a_good_client_gets_in_at_last(&listener);
    }
}

/// Whether a read says only that nothing came in time, or that this process was stopped meanwhile.
fn is_no_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

#[test]
fn a_peer_that_sends_a_byte_at_a_time_has_no_more_time_than_others() {
    watchdog();
    for address in both() {
        let patience = Duration::from_millis(300);
        let listener = builder().handshake_timeout(patience).bind(address).unwrap();
        let raw = Raw::connect(listener.address()).unwrap();
        std::thread::scope(|scope| {
            // Until it is sent away, one byte after the other of a hello as it should be. The wait
            // between two of them is one for the end. All of it would take ten seconds and more.
            let slow = scope.spawn(|| {
                let mut raw = raw.patient(Some(Duration::from_millis(40))).unwrap();
                let mut sent = 0;
                for byte in hello(true) {
                    let gone = raw.write_all(&[byte]).is_err();
                    match raw.read(&mut [0; 1]) {
                        Err(error) if is_no_end(&error) && !gone => {}
                        _ => break,
                    }
                    sent += 1;
                }
                sent
            });
            let late = a_good_client_gets_in_at_last(&listener);
            until(&listener, "it is gone", || listener.stats().timed_out == 1 + late);
            assert!(slow.join().unwrap() < HELLO);
        });
    }
}

#[test]
fn garbage_is_refused_at_its_first_bytes_and_not_waited_for() {
    watchdog();
    for address in both() {
        let listener = builder().bind(address).unwrap();
        let garbage: [&[u8]; 5] = [
            b"G",
            b"mpconm",
            b"mpconn\x02",
            &[0; 1000],
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ];
        for (number, garbage) in garbage.into_iter().enumerate() {
            let mut raw = Raw::connect(listener.address()).unwrap();
            raw.write_all(garbage).unwrap();
            until(&listener, "it is refused", || listener.stats().refused == number as u64 + 1);
            raw.wait_for_end();
        }
        // A message before the handshake is garbage, too, however large it says that it is.
        let mut raw = Raw::connect(listener.address()).unwrap();
        raw.write_all(&header(1, 0, u64::MAX)).unwrap();
        until(&listener, "it is refused", || listener.stats().refused == 6);
        raw.wait_for_end();
        a_good_client_gets_in(&listener);
    }
}

#[test]
fn a_peer_that_has_no_more_to_say_is_forgotten_at_once() {
    watchdog();
    for address in both() {
        let listener = builder().bind(address).unwrap();
        for count in [0, 5, HELLO] {
            let mut raw = Raw::connect(listener.address()).unwrap();
            raw.write_all(&hello(true)[..count]).unwrap();
        }
        until(&listener, "they are gone", || listener.stats().refused == 3);
        assert_eq!(listener.stats().pending, 0);
    }
}

#[test]
fn more_half_open_peers_than_there_is_room_for_crowd_nobody_out_for_long() {
    watchdog();
    for address in both() {
        let listener = builder().max_pending(4).bind(address).unwrap();
        let half_open: Vec<Raw> = (0..30)
            .map(|number| {
                let mut raw = Raw::connect(listener.address()).unwrap();
                raw.write_all(&hello(true)[..if number % 2 == 0 { 0 } else { HELLO }]).unwrap();
                raw
            })
            .collect();
        a_good_client_gets_in(&listener);
        assert!(listener.stats().crowded_out >= 26, "{:?}", listener.stats());
        assert!(listener.stats().pending <= 4);
        drop(half_open);
    }
}

#[test]
fn a_listener_that_is_closed_sends_away_those_in_a_handshake() {
    watchdog();
    for address in both() {
        let listener = builder().bind(address).unwrap();
        let mut raw = Raw::connect(listener.address()).unwrap();
        until(&listener, "it has knocked", || listener.stats().pending == 1);
        listener.close();
        raw.wait_for_end();
        assert_eq!(listener.stats().pending, 0);
        assert!(listener.accept::<u8, u8>().unwrap_err().is_closed());
    }
}

#[test]
fn a_message_that_comes_right_behind_the_handshake_is_a_message() {
    watchdog();
    // Without a key a stranger can do a handshake, too.
    let listener = Listener::bind(Address::unique().unwrap()).unwrap();
    let mut good = Raw::connect(listener.address()).unwrap();
    let process = start(
        |address: Address| {
            let connection: Connection<u8> = Client::connect(address).expect("connect");
            connection.send_bytes(b"first").expect("send");
            connection.recv().expect("an answer")
        },
        (listener.address().clone(),),
    );
    let connection: Connection<u8> = listener.accept_timeout(PATIENCE).unwrap();
    assert_eq!(connection.recv_bytes(9).unwrap(), b"first");
    connection.send(1).unwrap();
    assert_eq!(finish(process), 1);

    // Who does not wait for the verdict has proved nothing: its proof is not right.
    let mut all = hello(false).to_vec();
    all.extend([0; PROOF]);
    all.extend(header(2, 0, 1));
    good.write_all(&all).unwrap();
    until(&listener, "it is refused", || listener.stats().refused == 1);
}

#[test]
fn a_peer_that_is_let_in_and_sends_a_giant_length_harms_nobody_else() {
    watchdog();
    let listener =
        Listener::builder().max_message(1 << 20).bind(Address::unique().unwrap()).unwrap();
    let liar = |address: Address| {
        let connection: Connection<u8> = Client::connect(address).expect("connect");
        Raw::of(&connection).write_all(&header(2, 0, u64::MAX)).expect("write");
        assert!(connection.recv().expect_err("it ends").is_end_of_file());
    };
    let process = start(liar, (listener.address().clone(),));
    let connection: Connection<u8> = listener.accept_timeout(PATIENCE).unwrap();
    assert!(connection.recv_bytes(usize::MAX).unwrap_err().is_too_large());
    let other = start(
        |address: Address| {
            Client::connect::<u8, u8>(address).expect("connect").send(9).expect("send")
        },
        (listener.address().clone(),),
    );
    assert_eq!(listener.accept_timeout::<u8, u8>(PATIENCE).unwrap().recv().unwrap(), 9);
    drop(connection);
    finish(other);
    finish(process);
}
