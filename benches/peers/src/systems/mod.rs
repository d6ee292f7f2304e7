//! The systems that are compared.
//!
//! A system with worker pools implements [`Launcher`] and [`Pool`] and is listed
//! as [`Pooled`]; then [`pooled`] measures every workload for it in the same way
//! as for the others. Likewise [`mod@paired`] measures [`Primitives`], locks and the
//! like between two parties, [`arrays`] measures [`Arrays`], [`mod@queued`] measures
//! [`Queues`], and [`mod@answered`] messages to a [`Partner`]. A system that has
//! several of these is put together from its [`Facets`]. A system of another kind
//! (another language, bare system calls) implements [`System`] itself.

use std::ffi::OsString;

use ::multiproc::StartMethod;
use anyhow::Result;

use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::Workload;

mod answered;
mod arrays;
mod crossbeam;
mod facets;
mod forked;
pub mod ipc_channel;
mod limit;
mod multiproc;
mod paired;
mod pooled;
mod procspawn;
mod pthread;
mod python;
mod queued;
mod rayon;
mod std_threads;
mod threaded;

use answered::{Answered, Partner};
use arrays::{Arrays, InPlace};
use facets::Facets;
use paired::{Paired, Primitives};
use pooled::{Launcher, Pool, Pooled};
use queued::{Queued, Queues};
use threaded::{Answering, Channel, Threads};

/// Whether a system takes part in a workload.
pub enum Part {
    /// It does.
    Takes,
    /// It could, but does not for this reason, which is printed.
    Skipped(&'static str),
    /// The workload has no meaning for it.
    None,
}

/// One of the things compared.
pub trait System {
    /// The name on the command line, in the table and in the JSON rows.
    fn name(&self) -> &'static str;

    /// A name that stands for this system and its siblings on the command line.
    fn family(&self) -> &'static str {
        self.name()
    }

    /// Finds out whether the system can run here; the error says why not.
    fn probe(&self) -> Result<()>;

    /// Environment variables for the processes that sample this system: what
    /// [`System::probe`] found out and need not be found out each time.
    fn sample_env(&self) -> Vec<(&'static str, OsString)> {
        Vec::new()
    }

    /// Whether the system takes part in a workload.
    fn part(&self, workload: Workload, settings: &Settings) -> Part;

    /// Takes one sample, in the unit of the workload, all set-up and warm-up
    /// included. It is called once per process, and must leave no process behind.
    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample>;
}

/// All systems.
pub fn all() -> Vec<Box<dyn System>> {
    let mut all: Vec<Box<dyn System>> = vec![
        Box::new(Facets {
            first: Box::new(Pooled(multiproc::Multiproc(StartMethod::Spawn))),
            others: vec![
                paired::<multiproc::primitives::Shared>(),
                in_place::<multiproc::arrays::Array>(),
                queued::<multiproc::channels::Processes>(),
                answered::<multiproc::partners::Answering>(),
                Box::new(multiproc::partners::Clients),
            ],
        }),
        Box::new(Pooled(multiproc::Multiproc(StartMethod::ForkServer))),
        Box::new(Pooled(multiproc::Multiproc(StartMethod::Fork))),
        Box::new(Facets {
            first: Box::new(Pooled(rayon::Rayon)),
            others: vec![in_place::<rayon::arrays::Array>()],
        }),
        Box::new(Facets {
            first: Box::new(Pooled(std_threads::StdThreads)),
            others: vec![
                paired::<std_threads::primitives::Shared>(),
                in_place::<std_threads::arrays::Array>(),
            ],
        }),
        Box::new(Pooled(procspawn::ProcSpawn)),
        Box::new(Facets {
            first: Box::new(Pooled(ipc_channel::IpcChannel)),
            others: vec![
                queued::<ipc_channel::channels::Channel>(),
                answered::<ipc_channel::channels::Answering>(),
            ],
        }),
        threaded::<std_threads::channels::Bounded>(),
        threaded::<std_threads::channels::Unbounded>(),
        threaded::<crossbeam::Bounded>(),
    ];
    all.extend(python::all());
    all.push(paired::<pthread::Pthread>());
    all.extend(limit::all());
    all
}

/// Primitives as a system.
fn paired<P: Primitives + 'static>() -> Box<dyn System> {
    Box::new(Paired::<P>::new())
}

/// An array as a system.
fn in_place<A: Arrays + 'static>() -> Box<dyn System> {
    Box::new(InPlace::<A>::new())
}

/// A queue as a system.
fn queued<Q: Queues + 'static>() -> Box<dyn System> {
    Box::new(Queued::<Q>::new())
}

/// What answers as a system.
fn answered<P: Partner + 'static>() -> Box<dyn System> {
    Box::new(Answered::<P>::new())
}

/// Channels between threads as a system.
fn threaded<C: Channel>() -> Box<dyn System> {
    Box::new(Facets { first: queued::<Threads<C>>(), others: vec![answered::<Answering<C>>()] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_methods_take_part_only_where_they_matter() {
        let settings = Settings { quick: true };
        let systems = all();
        let named = |name| systems.iter().find(|system| system.name() == name).unwrap();
        let (fork, spawn) = (named("multiproc_fork"), named("multiproc"));
        for workload in Workload::all() {
            let matters = workload.depends_on_start_method();
            assert_eq!(matches!(fork.part(workload, &settings), Part::Takes), matters);
            assert!(matches!(spawn.part(workload, &settings), Part::Takes));
        }
    }
}
