//! A program without the hook that forgot `multiproc::init()`: it gets an error that says so, and
//! no process is started.

mod common;

use common::processes::own_children;
use multiproc::{Error, Pool, Process, StartMethod};

fn main() {
    if cfg!(feature = "hook") {
        println!("test a_forgotten_init ... ok (the hook is there, so it cannot be forgotten)");
        return;
    }
    // A worker that ran this program again would come here, too, and start more.
    assert!(std::env::var_os("MULTIPROC_CHILD").is_none(), "a child runs main again");
    let refused = |error: Error| {
        assert!(error.is_start() && error.to_string().contains("multiproc::init()"), "{error}");
        assert!(own_children().is_empty(), "{:?}", own_children());
    };
    for method in [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork] {
        refused(Pool::builder().start_method(method).build().expect_err("no init"));
        let builder = Process::builder(|| 1, ()).start_method(method);
        refused(builder.spawn().expect_err("no init"));
    }
    refused(Process::fork(|| 1).spawn().expect_err("no init"));
    println!("test a_forgotten_init_is_an_error_that_says_so ... ok");
}
