//! A chat: a server with a listener, and guests that know nothing but its address and a key. (All
//! are this program, started anew.) Whatever a guest says goes to everybody; a stranger with a
//! wrong key hears nothing.
//!
//! `cargo run --example chat`

use multiproc::connection::{Address, Client, Connection, Listener};
use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

const KEY: &str = "swordfish, but longer";
const GUESTS: [&str; 3] = ["Ada", "Grace", "Edsger"];

/// What a guest sends is a line, what it gets is a line and who said it.
type ToGuest = Connection<(String, String), String>;
type ToServer = Connection<String, (String, String)>;

/// Serves one guest: its first line is its name. Returns when it has left.
fn serve(guest: &ToGuest, everybody: &Mutex<Vec<ToGuest>>) -> multiproc::Result<()> {
    let name = guest.recv()?;
    loop {
        match guest.recv() {
            Ok(line) => {
                for other in &*everybody.lock().expect("no guest panics") {
                    // One that has left already need not hear it.
                    let _ = other.send((name.clone(), line.clone()));
                }
            }
            Err(error) if error.is_end_of_file() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn server() -> Result<(), Box<dyn Error>> {
    let listener = Listener::builder().key(KEY).service("chat/1").bind(Address::unique()?)?;
    println!("{}", listener.address());
    let everybody = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in GUESTS {
            let guest: ToGuest = listener.accept()?;
            everybody.lock().expect("no guest panics").push(guest.clone());
            threads.push((guest, &everybody));
        }
        // Everybody is there: who speaks is heard by all.
        let serving: Vec<_> = threads
            .into_iter()
            .map(|(guest, everybody)| scope.spawn(move || serve(&guest, everybody)))
            .collect();
        serving.into_iter().try_for_each(|thread| thread.join().expect("no guest panics"))
    })?;
    println!("{} were refused", listener.stats().refused);
    Ok(())
}

fn guest(address: Address, name: &str) -> Result<(), Box<dyn Error>> {
    let server: ToServer = Client::builder().key(KEY).service("chat/1").connect(address)?;
    server.send(name.to_owned())?;
    server.send(format!("hello, I am {name}"))?;
    // Until everybody has spoken.
    let mut heard = BTreeSet::new();
    while heard.len() < GUESTS.len() {
        let (from, line) = server.recv()?;
        println!("{from}: {line}");
        heard.insert(from);
    }
    Ok(())
}

fn stranger(address: Address) -> Result<(), Box<dyn Error>> {
    let guessed = Client::builder().key("password").service("chat/1");
    let error = guessed.connect::<String, String>(address).expect_err("the key is wrong");
    assert!(error.is_authentication());
    println!("{error}");
    Ok(())
}

fn start(arguments: &[&str]) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()
}

/// What a program has printed when it has ended well.
fn printed(mut program: Child) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    program.stdout.take().expect("a pipe").read_to_string(&mut text)?;
    assert!(program.wait()?.success());
    Ok(text)
}

fn everybody() -> Result<(), Box<dyn Error>> {
    let mut server = start(&["server"])?;
    let mut output = BufReader::new(server.stdout.take().expect("a pipe"));
    let mut address = String::new();
    output.read_line(&mut address)?;
    let address = address.trim();

    println!("the stranger: {}", printed(start(&["stranger", address])?)?);
    let guests = GUESTS.map(|name| start(&["guest", address, name]));
    for (name, guest) in GUESTS.iter().zip(guests) {
        let heard = printed(guest?)?;
        println!("{name} heard\n{heard}");
        assert!(GUESTS.iter().all(|name| heard.contains(&format!("{name}: hello, I am {name}\n"))));
    }
    let mut text = String::new();
    output.read_to_string(&mut text)?;
    assert!(server.wait()?.success());
    println!("the server: {text}");
    assert_eq!(text, "1 were refused\n");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match &std::env::args().collect::<Vec<_>>()[..] {
        [_, role] if role == "server" => server(),
        [_, role, address, name] if role == "guest" => guest(address.parse()?, name),
        [_, role, address] if role == "stranger" => stranger(address.parse()?),
        _ => everybody(),
    }
}
