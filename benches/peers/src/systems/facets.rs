//! A system with more than one kind of workload.

use anyhow::Result;

use super::{Part, System};
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::Workload;

/// Several measurements of one system, each with workloads of its own.
pub struct Facets {
    /// The first, which also gives the names.
    pub first: Box<dyn System>,
    /// The others.
    pub others: Vec<Box<dyn System>>,
}

impl Facets {
    /// All of them.
    fn all(&self) -> impl Iterator<Item = &dyn System> {
        std::iter::once(&self.first).chain(&self.others).map(AsRef::as_ref)
    }

    /// That which knows the workload, or the first.
    fn of(&self, workload: Workload, settings: &Settings) -> &dyn System {
        self.all()
            .find(|facet| !matches!(facet.part(workload, settings), Part::None))
            .unwrap_or(self.first.as_ref())
    }
}

impl System for Facets {
    fn name(&self) -> &'static str {
        self.first.name()
    }

    fn family(&self) -> &'static str {
        self.first.family()
    }

    fn probe(&self) -> Result<()> {
        self.all().try_for_each(System::probe)
    }

    fn part(&self, workload: Workload, settings: &Settings) -> Part {
        self.of(workload, settings).part(workload, settings)
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        self.of(workload, settings).sample(workload, settings)
    }
}
