//! Tasks that crash, abort, hang, eat all memory and panic, among tasks that do not.
//!
//! Each bad task costs its own worker, which is replaced, and becomes an error that says what
//! happened. All good tasks come back. (In a thread, all of them but the panic would take the
//! program down, and the one that hangs could not be stopped.)
//!
//! `cargo run --example crash_containment`

use multiproc::{Error, Pool};
use std::time::Duration;

/// Stands for a parser in a C library that one cannot trust.
fn parse(document: String) -> usize {
    match document.as_str() {
        "segfault" => {
            let nowhere = std::ptr::without_provenance(8);
            // SAFETY: none: this is the bug in the library that the example is about.
            unsafe { libc::strlen(nowhere) }
        }
        "abort" => std::process::abort(),
        "hang" => loop {
            std::hint::spin_loop();
        },
        "eat" => {
            let mut memory = Vec::new();
            loop {
                memory.push(vec![1_u8; 1 << 24]);
            }
        }
        "panic" => panic!("what a document"),
        good => good.len(),
    }
}

type Check = fn(&Error) -> bool;

fn signal(error: &Error) -> Option<i32> {
    error.exit_status().and_then(|status| status.signal())
}

fn main() -> multiproc::Result<()> {
    let bad: [(&str, Check); 5] = [
        ("segfault", |error| signal(error) == Some(libc::SIGSEGV)),
        ("abort", |error| signal(error) == Some(libc::SIGABRT)),
        ("hang", Error::is_timeout),
        ("eat", |error| signal(error) == Some(libc::SIGABRT)), // Rust aborts when out of memory
        ("panic", Error::is_panic),
    ];
    let mut documents: Vec<String> = (0..95).map(|i| format!("document {i}")).collect();
    for (i, (name, _)) in bad.iter().enumerate() {
        documents.insert(20 * i + 10, (*name).to_owned());
    }

    let pool = Pool::builder()
        .task_timeout(Duration::from_secs(5))
        .memory_limit(1 << 30)
        .core_limit(0)
        .build()?;
    let results = pool.imap(parse, documents.clone())?; // gives the result or error of each

    let mut expected = bad.iter();
    for (document, result) in documents.iter().zip(results) {
        match result {
            Ok(length) => assert_eq!(length, document.len()),
            Err(error) => {
                println!("{document:8} -> {error}");
                let (name, is_expected) = expected.next().expect("five errors at most");
                assert!(document == name && is_expected(&error));
            }
        }
    }
    assert!(expected.next().is_none(), "each bad document has an error");
    println!("all 95 good documents came back");
    Ok(())
}
