//! multiproc inside a shared library that a foreign program loads: an error that says so, and the
//! program is not run a second time.

mod common;

use common::package::Package;
use std::process::Command;

const LIBRARY: &str = r#"
use multiproc::{Pool, Process, StartMethod};

fn square(x: u64) -> u64 {
    x * x
}

#[unsafe(no_mangle)]
pub extern "C" fn run() {
    for method in [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork] {
        let pool = Pool::builder().workers(1).start_method(method).build();
        println!("pool: {}", pool.err().map_or_else(String::new, |error| error.to_string()));
        let process = Process::builder(square, (3,)).start_method(method).spawn();
        println!("process: {}", process.err().map_or_else(String::new, |error| error.to_string()));
    }
}
"#;

const HOST: &str = r#"
fn main() {
    println!("main");
    let path = std::ffi::CString::new(std::env::args().nth(1).expect("a path")).expect("no NUL");
    // SAFETY: the library has a function of this name and type.
    unsafe {
        libc::alarm(60);
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        let run = libc::dlsym(library, c"run".as_ptr());
        std::mem::transmute::<_, extern "C" fn()>(run)();
    }
}
"#;

#[test]
fn a_library_loaded_by_a_foreign_program_is_refused() {
    let package = Package::new(
        "shared_library",
        "[lib]\ncrate-type = [\"cdylib\"]\n\n[profile.dev]\ndebug = false\n",
    );
    package.write("src/lib.rs", LIBRARY);
    package.write("src/bin/host.rs", HOST);
    let built = package.cargo("build").arg("--quiet").output().expect("cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut host = Command::new(package.program("debug/host"));
    let ran = host.arg(package.program("debug/libshared_library.so")).output().expect("the host");
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{}\n{out}", ran.status);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "main");
    assert_eq!(lines.len(), 7, "main ran once: {out}");
    assert!(lines[1..].iter().all(|line| line.contains("shared library")), "{out}");
}
