//! What this process knows of itself: its name and its parent.

use crate::sys::fork;
use crate::sys::lifeline::Lifeline;
use std::sync::{Arc, Mutex, PoisonError};

/// This process, as a child of ours or as the program itself.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) parent: Option<Parent>,
    generation: u32,
}

/// The process that started this one.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) pid: i32,
    pub(crate) lifeline: Lifeline,
}

impl Context {
    /// The context of a child.
    pub(crate) fn child(name: String, daemon: bool, pid: i32, lifeline: Lifeline) -> Self {
        let parent = Some(Parent { pid, lifeline });
        Self { name, daemon, parent, generation: fork::generation() }
    }

    fn program() -> Self {
        let name = "MainProcess".to_owned();
        Self { name, daemon: false, parent: None, generation: fork::generation() }
    }
}

static CURRENT: Mutex<Option<Arc<Context>>> = Mutex::new(None);

/// This process becomes a child.
pub(crate) fn enter(context: Context) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(context));
}

/// What this process is.
pub(crate) fn current() -> Arc<Context> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let generation = fork::generation();
    match current.as_ref() {
        Some(context) if context.generation == generation => context.clone(),
        // The program itself, or a fork that user code made.
        _ => current.insert(Arc::new(Context::program())).clone(),
    }
}
