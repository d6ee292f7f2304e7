//! The command line, and which workloads and systems it selects.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::systems::{self, System};
use crate::workload::Workload;

/// Compares multiproc with its peers, workload by workload.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Args {
    /// Smaller sizes and fewer runs; ends within a minute
    #[arg(long)]
    quick: bool,

    /// Only these workloads and systems (a comma list of either kind of name)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// Write the results to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the command line asks for.
pub struct Options {
    /// Small sizes and few runs.
    pub quick: bool,
    /// Where to write the rows as JSON.
    pub json: Option<PathBuf>,
    /// The selected workloads, in the order of [`Workload::ALL`].
    pub workloads: Vec<Workload>,
    /// The selected systems, in the order of [`systems::all`].
    pub systems: Vec<Box<dyn System>>,
}

/// Parses the command line; ends the process if it is wrong.
pub fn parse() -> Options {
    let args = Args::parse();
    match select(&args) {
        Ok(options) => options,
        Err(message) => Args::command().error(ErrorKind::InvalidValue, message).exit(),
    }
}

/// Finds out what `--only` (and its absence) selects.
///
/// A name selects a workload or a group of them (`growth_tasks`), or a system
/// or a family of them (`cpython`). Without a workload among the names all
/// workloads run (with `--quick`, all that do not take minutes), and without a
/// system among them all systems.
fn select(args: &Args) -> Result<Options, String> {
    let systems = systems::all();
    let is_workload = |name: &str| Workload::all().any(|workload| workload.is_called(name));
    let is_system =
        |name: &str| systems.iter().any(|system| system.name() == name || system.family() == name);

    if let Some(unknown) = args.only.iter().find(|name| !is_workload(name) && !is_system(name)) {
        let workloads: Vec<_> = Workload::all().map(Workload::name).collect();
        let systems: Vec<_> = systems.iter().map(|system| system.name()).collect();
        return Err(format!(
            "'{unknown}' is neither a workload nor a system\n\n  \
             workloads: {}\n  systems: {}",
            workloads.join(", "),
            systems.join(", "),
        ));
    }

    let any_workload = args.only.iter().any(|name| is_workload(name));
    let any_system = args.only.iter().any(|name| is_system(name));
    let named = |name: &str| args.only.iter().any(|only| only == name);
    let workloads = Workload::all()
        .filter(|workload| {
            if any_workload {
                args.only.iter().any(|only| workload.is_called(only))
            } else {
                !(args.quick && workload.beyond_quick())
            }
        })
        .collect();
    let systems = systems
        .into_iter()
        .filter(|system| !any_system || named(system.name()) || named(system.family()))
        .collect();
    Ok(Options { quick: args.quick, json: args.json.clone(), workloads, systems })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command line selects: workloads and systems.
    fn selected(line: &str) -> Result<(Vec<&'static str>, Vec<&'static str>), String> {
        let words = std::iter::once("peers").chain(line.split_whitespace());
        let options = select(&Args::parse_from(words))?;
        let workloads = options.workloads.into_iter().map(Workload::name);
        let systems = options.systems.iter().map(|system| system.name());
        Ok((workloads.collect(), systems.collect()))
    }

    #[test]
    fn everything_by_default() {
        let (workloads, systems) = selected("").unwrap();
        assert_eq!(workloads.len(), Workload::all().count());
        assert_eq!(systems.len(), systems::all().len());
        let (workloads, _) = selected("--quick").unwrap();
        assert!(!workloads.contains(&"growth_workers_1"));
    }

    #[test]
    fn names_and_groups() {
        let (workloads, systems) = selected("--only echo,pool_start,rayon").unwrap();
        assert_eq!(workloads, ["echo_1k", "echo_1m", "echo_16m", "pool_start"]);
        assert_eq!(systems, ["rayon"]);
        let (_, systems) = selected("--only cpython").unwrap();
        assert_eq!(systems.len(), 4);
        let (_, systems) = selected("--only multiproc").unwrap();
        assert_eq!(systems, ["multiproc", "multiproc_forkserver", "multiproc_fork"]);
        let (workloads, _) = selected("--only listener_pingpong,queue_64k").unwrap();
        assert_eq!(workloads, ["queue_64k", "listener_pingpong_unix", "listener_pingpong_tcp"]);
        let (workloads, _) = selected("--only channels").unwrap();
        assert_eq!(workloads.len(), 9);
        assert!(selected("--only rayonn").unwrap_err().contains("std_threads"));
    }
}
