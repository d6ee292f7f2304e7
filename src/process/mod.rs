//! One function in one process of its own.

mod builder;
mod current;
mod handle;
mod timer;

pub use builder::{ParentDeath, ProcessBuilder, Stdio};
pub use current::{
    ActiveChild, CurrentProcess, ParentProcess, active_children, available_parallelism,
    current_process, parent_process,
};
pub use handle::Process;
pub use timer::Timer;

#[cfg(all(test, feature = "hook"))]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn a_unit_test_starts_processes_and_pools() {
        let mut process = Process::spawn(|x: u64| x + 1, (1,)).expect("spawn");
        assert_eq!(process.join().expect("join"), 2);
        let pool = Pool::builder().workers(1).build().expect("a pool");
        assert_eq!(pool.map(|x: u64| x * x, 0..3).expect("map"), [0, 1, 4]);
    }
}
