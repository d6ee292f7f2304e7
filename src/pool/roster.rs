//! How the workers of a pool are started.

use super::state::Rules;
use super::worker::Worker;
use crate::entry::{PlainEntry, ValueEntry};
use crate::start::launch::{Launch, Origin, Starting, launch};
use crate::start::{ForkServer, StartMethod};
use crate::wire::control::{Body, Call, Role, WorkerRole};
use crate::wire::parent_link::{ParentLink, Rings};
use crate::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything about workers that stays the same for the life of a pool.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) launch: Launch,
    pub(super) rules: Rules,
    pub(super) method: StartMethod,
    /// For `Fork`: the copy of this process, made once, that workers are forked from.
    pub(super) template: Option<ForkServer>,
    pub(super) initializer: Option<(ValueEntry, Vec<u8>)>,
    pub(super) finalizer: Option<PlainEntry>,
    pub(super) max_tasks: Option<u64>,
    pub(super) max_memory: Option<u64>,
    /// The CPUs that workers are pinned to in turn; empty for no pinning.
    pub(super) pinned: Vec<usize>,
    pub(super) started: AtomicUsize,
}

/// A worker on its way up, with its rings. Dropping it kills it.
struct Recruit {
    starting: Starting,
    rings: Rings,
}

impl Roster {
    /// Starts workers and waits until all are ready; if one fails, none is left.
    pub(super) fn start(&self, count: usize) -> Result<Vec<Worker>> {
        let recruits = (0..count).map(|_| self.recruit()).collect::<Result<Vec<_>>>()?;
        for recruit in &recruits {
            recruit.starting.hello()?;
        }
        recruits.into_iter().map(Recruit::ready).collect()
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
            Some((entry, bytes)) => {
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
        let starting = launch(&plan, origin, Role::Worker(role), &fds)?;
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
