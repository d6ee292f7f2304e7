//! Tasks with names: what `#[multiproc::task]` registers.

use crate::shm::memory::number_of;
use crate::{Error, Result};
use linkme::distributed_slice;
use std::any::TypeId;
use std::collections::HashMap;
use std::sync::OnceLock;

/// A function registered by [`#[multiproc::task]`](macro@crate::task).
#[derive(Debug)]
pub struct TaskInfo {
    name: &'static str,
    signature: &'static str,
    place: &'static str,
    types: fn() -> (TypeId, TypeId),
    frame: fn() -> Result<u64>,
}

impl TaskInfo {
    #[doc(hidden)]
    #[must_use]
    pub const fn new<F, A>(
        name: &'static str,
        signature: &'static str,
        place: &'static str,
        _function: F,
    ) -> Self
    where
        F: super::Function<A, Output: crate::Data>,
        A: crate::Arguments,
    {
        Self {
            name,
            signature,
            place,
            types: || (TypeId::of::<A>(), TypeId::of::<F::Output>()),
            frame: || super::frame_entry::<F, A>().map(|entry| entry.0),
        }
    }

    /// The stable name: module path and function, or the one given in the attribute.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The signature as it was written, such as `fn(u64) -> u64`.
    #[must_use]
    pub fn signature(&self) -> &'static str {
        self.signature
    }

    /// A number that differs when the signature does: FNV-1a over its text.
    #[must_use]
    pub fn signature_hash(&self) -> u64 {
        number_of(self.signature)
    }

    /// Where it is defined, as `file:line`.
    #[must_use]
    pub fn place(&self) -> &'static str {
        self.place
    }
}

/// Every registered task of this program, in no particular order.
#[doc(hidden)]
#[distributed_slice]
pub static TASKS: [TaskInfo];

/// Every function of this program that [`#[multiproc::task]`](macro@crate::task) registers.
///
/// ```
/// #[multiproc::task]
/// fn double(x: u64) -> u64 {
///     2 * x
/// }
///
/// # fn main() {
/// let task = multiproc::tasks().iter().find(|task| task.name().ends_with("double")).unwrap();
/// assert_eq!(task.signature(), "fn(u64) -> u64");
/// # }
/// ```
#[must_use]
pub fn tasks() -> &'static [TaskInfo] {
    &TASKS
}

/// Checks once that no two tasks have one name.
pub(crate) fn check() -> Result<()> {
    static CHECKED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let checked = CHECKED.get_or_init(|| {
        let mut seen: HashMap<&str, &TaskInfo> = HashMap::new();
        for task in TASKS {
            if let Some(other) = seen.insert(task.name, task) {
                return Err(format!(
                    "two tasks are named `{}`: {} ({}) and {} ({}); rename one with \
                     #[multiproc::task(name = \"…\")]",
                    task.name, other.place, other.signature, task.place, task.signature
                ));
            }
        }
        Ok(())
    });
    checked.clone().map_err(Error::invalid)
}

/// The frame entry of a task by name, for arguments `A` and result `R`.
#[track_caller]
pub(crate) fn find<A: 'static, R: 'static>(name: &str) -> Result<super::FrameEntry> {
    check()?;
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        return Err(Error::invalid(format!(
            "no task is named `{name}`: {} tasks are registered with #[multiproc::task]",
            TASKS.len()
        )));
    };
    if (task.types)() != (TypeId::of::<A>(), TypeId::of::<R>()) {
        return Err(Error::invalid(format!(
            "the task `{name}` is {} at {}, but it is called with {} and a result of {} at {}",
            task.signature,
            task.place,
            std::any::type_name::<A>(),
            std::any::type_name::<R>(),
            std::panic::Location::caller(),
        )));
    }
    (task.frame)().map(super::FrameEntry)
}
