//! How the workers of a pool are started.

use super::state::Rules;
use super::worker::Worker;
use crate::entry::{PlainEntry, ValueEntry};
use crate::start::launch::{Launch, Origin, Starting, launch};
use crate::start::{ForkServer, StartMethod};
use crate::sys::pidfd::Child;
use crate::wire::control::{Body, Call, Role, WorkerRole};
use crate::wire::handles::Carried;
use crate::wire::parent_link::{ParentLink, Rings};
use crate::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Everything about workers that stays the same for the life of a pool.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) launch: Launch,
    pub(super) rules: Rules,
    pub(super) method: StartMethod,
    /// For `Fork`: the copy of this process, made once, that workers are forked from.
    pub(super) template: Option<ForkServer>,
    pub(super) initializer: Option<(ValueEntry, Vec<u8>, Carried)>,
    pub(super) finalizer: Option<PlainEntry>,
    pub(super) max_tasks: Option<u64>,
    pub(super) max_memory: Option<u64>,
    /// The CPUs that workers are pinned to in turn; empty for no pinning.
    pub(super) pinned: Vec<usize>,
    pub(super) started: AtomicUsize,
    pub(super) coming: Mutex<Coming>,
}

/// The workers that are being started, so that the end of the pool need not wait for them.
#[derive(Debug, Default)]
pub(super) struct Coming {
    children: Vec<Arc<Child>>,
    called_off: bool,
}

/// A worker on its way up, with its rings. Dropping it kills it.
struct Recruit {
    starting: Starting,
    rings: Rings,
}

impl Roster {
    /// Starts workers and waits until all are ready; if one fails, none is left.
    pub(super) fn start(&self, count: usize) -> Result<Vec<Worker>> {
        let workers = self.start_registered(count);
        self.coming().children.clear();
        workers
    }

    fn start_registered(&self, count: usize) -> Result<Vec<Worker>> {
        let mut recruits = Vec::new();
        for _ in 0..count {
            let recruit = self.recruit()?;
            let mut coming = self.coming();
            if coming.called_off {
                return Err(Error::closed());
            }
            coming.children.extend(recruit.starting.child());
            recruits.push(recruit);
        }
        for recruit in &recruits {
            recruit.starting.hello()?;
        }
        let ready = recruits.into_iter().map(Recruit::ready);
        // Not collected at the first error: the workers before it would just be dropped.
        let (ready, failed): (Vec<_>, Vec<_>) = ready.partition(Result::is_ok);
        let workers: Vec<Worker> = ready.into_iter().flatten().collect();
        match failed.into_iter().find_map(Result::err) {
            None => Ok(workers),
            Some(error) => {
                workers.iter().for_each(|worker| worker.child.kill_and_wait());
                Err(error)
            }
        }
    }

    /// Kills the workers that are being started, and those that would be.
    pub(super) fn call_off(&self) {
        let mut coming = self.coming();
        coming.called_off = true;
        for child in &coming.children {
            let _ = child.signal(libc::SIGKILL);
        }
    }

    fn coming(&self) -> MutexGuard<'_, Coming> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recruit(&self) -> Result<Recruit> {
        // Relaxed: only the numbers must differ.
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let mut plan = self.launch.clone();
        plan.name = format!("{}-{}", self.launch.name, number + 1);
        if let Some(cpu) = self.pinned.get(number % self.pinned.len().max(1)) {
            plan.settings.affinity = vec![*cpu];
        }
        let failed = |error| Error::os("no shared memory for a worker", error);
        let (rings, fds) = Rings::create().map_err(failed)?;
        let mut fds = Vec::from(fds);
        let initializer = match &self.initializer {
            None => None,
            Some((entry, bytes, _)) => {
                let arguments = Body::pack(bytes.clone(), &mut fds).map_err(failed)?;
                Some(Call { entry: entry.0, arguments })
            }
        };
        let role = WorkerRole {
            initializer,
            finalizer: self.finalizer.map(|entry| entry.0),
            max_tasks: self.max_tasks,
            max_memory: self.max_memory,
        };
        let origin = match &self.template {
            Some(template) => Origin::Template(template),
            None => Origin::of(self.method),
        };
        let none = Carried::new();
        let carried = self.initializer.as_ref().map_or(&none, |(_, _, carried)| carried);
        let starting = launch(&plan, origin, Role::Worker(role), &fds, carried)?;
        Ok(Recruit { starting, rings })
    }
}

impl Recruit {
    fn ready(mut self) -> Result<Worker> {
        self.starting.ready()?;
        let (child, socket) = self.starting.finish()?;
        Ok(Worker::new(child, ParentLink::new(self.rings, socket)))
    }
}
