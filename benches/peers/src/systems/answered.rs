//! How a message to another party and its answer are measured, once for all systems.

use std::marker::PhantomData;

use anyhow::{Result, ensure};

use super::{Part, System};
use crate::measure::per_op;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::Workload;

/// Another party (a thread or a process, whichever the system is about) which answers
/// every number by the next one.
///
/// It ends when this is dropped. It is asked as a user of the system would.
pub trait Partner: Sized {
    /// The name of the system, see [`System::name`].
    const NAME: &'static str;

    /// The name that includes its siblings, see [`System::family`].
    const FAMILY: &'static str = Self::NAME;

    /// What it can be asked through.
    const WORKLOADS: &'static [Workload];

    /// Starts it, and connects.
    fn start(workload: Workload) -> Result<Self>;

    /// Sends a number and waits for the answer.
    fn ask(&mut self, number: u64) -> Result<u64>;

    /// Lets it end, and waits for that.
    fn stop(self) -> Result<()>;
}

/// [`Partner`] as a [`System`].
pub struct Answered<P>(PhantomData<P>);

impl<P> Answered<P> {
    /// The only one there is.
    pub fn new() -> Answered<P> {
        Answered(PhantomData)
    }
}

impl<P: Partner> System for Answered<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn family(&self) -> &'static str {
        P::FAMILY
    }

    fn probe(&self) -> Result<()> {
        Ok(())
    }

    fn part(&self, workload: Workload, _: &Settings) -> Part {
        if P::WORKLOADS.contains(&workload) { Part::Takes } else { Part::None }
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        let mut partner = P::start(workload)?;
        let mut number = 0;
        let each = per_op(settings.loop_time(), || {
            number += 1;
            let answer = partner.ask(number)?;
            ensure!(answer == number + 1, "the answer to {number} is {answer}");
            Ok(())
        })?;
        partner.stop()?;
        Sample::here(each * 1e6)
    }
}
