//! A `Vec` and threads of the standard library.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow};

use crate::settings::WORKERS;
use crate::systems::arrays::{Arrays, CHUNK, Frozen, element, ends, mirror, sum};

/// A vector; the threads are started anew whenever it is borrowed to them.
pub struct Array(Vec<f64>);

/// A vector that threads share, and a thread.
pub struct SharedArray {
    /// The vector.
    values: Arc<Vec<f64>>,
    /// To the thread; `None` ends it.
    tasks: Option<mpsc::Sender<Arc<Vec<f64>>>>,
    /// From the thread.
    results: mpsc::Receiver<f64>,
    /// The thread.
    thread: Option<JoinHandle<()>>,
}

impl Arrays for Array {
    type Frozen = SharedArray;

    const NAME: &'static str = "std_threads";

    fn create(len: usize) -> Result<Array> {
        Ok(Array((0..len).map(element).collect()))
    }

    fn sum(&mut self) -> Result<f64> {
        let chunks = Mutex::new(self.0.chunks(CHUNK));
        let take = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            let work = || std::iter::from_fn(take).map(sum).sum::<f64>();
            let threads = [(); WORKERS].map(|()| scope.spawn(work));
            let sums = threads.into_iter().map(ScopedJoinHandle::join);
            sums.sum::<thread::Result<f64>>().map_err(|_| anyhow!("a thread panicked"))
        })
    }

    fn mirror(&mut self) -> Result<()> {
        let chunks = Mutex::new(self.0.chunks_mut(CHUNK));
        let take = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| std::iter::from_fn(take).for_each(mirror));
            }
        });
        Ok(())
    }

    fn values(&self) -> &[f64] {
        &self.0
    }

    fn freeze(self) -> Result<SharedArray> {
        let (tasks, inbox) = mpsc::channel::<Arc<Vec<f64>>>();
        let (sender, results) = mpsc::channel();
        let thread = thread::spawn(move || {
            for values in inbox {
                // Without a receiver there are no more tasks either.
                sender.send(ends(&values)).unwrap_or_default();
            }
        });
        Ok(SharedArray {
            values: Arc::new(self.0),
            tasks: Some(tasks),
            results,
            thread: Some(thread),
        })
    }
}

impl Frozen for SharedArray {
    fn send(&mut self) -> Result<f64> {
        let tasks = self.tasks.as_ref().context("the thread is being ended")?;
        tasks.send(Arc::clone(&self.values)).context("the thread has ended")?;
        self.results.recv().context("the thread has ended")
    }
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        self.tasks = None;
        // A panic has been reported by the thread itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
