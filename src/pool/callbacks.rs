//! The thread that runs callbacks, so that a slow or waiting one holds nothing up.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, current};

type Job = Box<dyn FnOnce() + Send>;

/// The callback thread, started by the first callback.
#[derive(Debug, Default)]
pub(super) struct Callbacks(Mutex<Option<(Sender<Job>, JoinHandle<()>)>>);

thread_local! {
    static IS_CALLBACK_THREAD: Cell<bool> = const { Cell::new(false) };
}

impl Callbacks {
    /// Whether the caller is a callback (of this pool or another).
    pub(super) fn is_current_thread(&self) -> bool {
        IS_CALLBACK_THREAD.try_with(Cell::get).unwrap_or(false)
    }

    /// Waits until all callbacks so far have run, and ends the thread. From a callback itself
    /// this only tells the thread to end.
    pub(super) fn finish(&self) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = thread {
            drop(sender);
            if thread.thread().id() != current().id() {
                let _ = thread.join();
            }
        }
    }

    /// Lets the thread end after the callbacks that it has, without waiting for them.
    pub(super) fn dismiss(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Runs `job` soon, on the thread, which may block.
    pub(super) fn run(&self, job: Job) {
        let mut thread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (sender, receiver) = channel::<Job>();
            let spawned = Builder::new().name("multiproc-call".to_owned()).spawn(move || {
                IS_CALLBACK_THREAD.set(true);
                for job in receiver {
                    // A panicking callback has been reported by the panic hook; it harms nobody.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            });
            *thread = spawned.ok().map(|handle| (sender, handle));
        }
        if let Some((sender, _)) = &*thread {
            let _ = sender.send(job);
        }
    }
}
