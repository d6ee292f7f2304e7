//! A bound manager, and clients that are other programs of the same types.

mod common;

use common::package::Package;
use common::temp::TempDir;
use common::watchdog;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Both programs: a server, or a client of the server at an address. Each uses the same types.
const PROGRAM: &str = r#"
use multiproc::{Manager, connection::Address, manager::List};

const KEY: &str = "a key for a test";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: alarm has no preconditions.
    unsafe { libc::alarm(200) };
    let Some(address) = std::env::args().nth(1) else {
        let manager = Manager::bind(Address::unique()?, KEY)?;
        manager.publish("list", &manager.list_of([7u64])?)?;
        println!("{}", manager.address().expect("it is bound"));
        // Until nobody needs it any more.
        std::io::read_to_string(std::io::stdin())?;
        return Ok(());
    };
    match Manager::connect(address.parse::<Address>()?, KEY) {
        Ok(manager) => {
            let list: Option<List<u64>> = manager.find("list")?;
            println!("found {:?}", list.expect("it is published").get(0)?);
        }
        Err(error) => println!("refused {} {error}", error.is_authentication()),
    }
    Ok(())
}
"#;

/// The server, which ends when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let ended = self.0.wait();
        assert!(std::thread::panicking() || ended.is_ok_and(|status| status.success()));
    }
}

/// A server of this program, and its address.
fn serve(program: &Path) -> (Server, String) {
    let mut command = Command::new(program);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = Server(command.spawn().expect("the server"));
    let output = server.0.stdout.take().expect("its output");
    let mut address = String::new();
    BufReader::new(output).read_line(&mut address).expect("a line");
    (server, address.trim().to_owned())
}

/// What a client of this program says.
fn call(program: &Path, address: &str) -> String {
    let ran = Command::new(program).arg(address).output().expect("the client");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

#[test]
fn another_program_of_the_same_types_is_refused_and_told_what_to_do() {
    watchdog();
    // The package of the tests of messages, whose dependencies may have been built before.
    let package = Package::new("ui", "[profile.dev]\ndebug = false\n");
    for name in ["one", "other"] {
        package.write(&format!("src/bin/manager_{name}.rs"), PROGRAM);
        let mut build = package.cargo("build");
        let built = build.args(["--quiet", "--bin", &format!("manager_{name}")]).output();
        let built = built.expect("cargo");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    let (one, other) =
        (package.program("debug/manager_one"), package.program("debug/manager_other"));
    let (_server, address) = serve(&one);
    let found = "found Some(7)";
    assert_eq!(call(&one, &address), found);
    let refused = call(&other, &address);
    assert!(refused.starts_with("refused true") && refused.contains(&address), "{refused}");
    assert_eq!(refused.matches("manager of multiproc").count(), 2, "both builds: {refused}");
    assert!(refused.contains("copies of one executable file at both ends"), "{refused}");
    // A copy is the same build, wherever it lies. And the server goes on.
    let scratch = TempDir::new();
    let copy = scratch.join("copy");
    fs::copy(&one, &copy).expect("a copy");
    assert_eq!(call(&copy, &address), found);
}
