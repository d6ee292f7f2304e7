//! Panics of the functions that a child runs.

use crate::error::PanicInfo;
use crate::sys::socket::MAX_MESSAGE;
use crate::wire::control::Failure;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<PanicInfo>> = const { RefCell::new(None) };
}

/// Runs a function of the user's; a panic becomes a failure with message, place and backtrace.
pub(crate) fn catch<R>(function: impl FnOnce() -> R) -> Result<R, Failure> {
    let outer = CATCHING.replace(true);
    // The function gets owned arguments and global state, as in a thread of its own; what it
    // broke in global state stays broken for the next task, as with std's thread pools.
    let result = catch_unwind(AssertUnwindSafe(function));
    CATCHING.set(outer);
    result.map_err(|payload| {
        let info = LAST.take().unwrap_or_else(|| {
            // The user replaced our hook: the payload is all there is.
            PanicInfo::new(shortened(text_of(&*payload)), None, None)
        });
        // The payload's own drop may panic, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Failure::Panicked(info)
    })
}

/// What the hook does in this process; a forked child replaces what it inherited.
struct Handler {
    loud: bool,
    last_words: Box<dyn Fn(&PanicInfo) + Send + Sync>,
}

static HANDLER: Mutex<Option<Arc<Handler>>> = Mutex::new(None);

/// Makes panics of caught functions kept for the parent, and silent unless `loud`; other panics go
/// on to the hook that was there. `last_words` hears of a panic that will abort the process.
pub(crate) fn install_hook(loud: bool, last_words: impl Fn(&PanicInfo) + Send + Sync + 'static) {
    let handler = Arc::new(Handler { loud, last_words: Box::new(last_words) });
    let inherited = HANDLER.lock().unwrap_or_else(PoisonError::into_inner).replace(handler);
    if inherited.is_some() {
        // This process was forked from one of ours: the hook is there.
        return;
    }
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if !CATCHING.try_with(Cell::get).unwrap_or(false) {
            return previous(info);
        }
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        let location = info.location().map(ToString::to_string);
        let kept =
            PanicInfo::new(shortened(text_of(info.payload())), location, trace.map(shortened));
        let handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if cfg!(panic = "abort")
            && let Some(handler) = &handler
        {
            (handler.last_words)(&kept);
        }
        // The cell is borrowed only for this one assignment.
        let _ = LAST.try_with(|last| *last.borrow_mut() = Some(kept));
        if handler.is_none_or(|handler| handler.loud) {
            previous(info);
        }
    }));
}

/// Cuts a text so that a few of its kind fit a control message.
pub(crate) fn shortened(text: String) -> String {
    const MOST: usize = MAX_MESSAGE / 4;
    if text.len() <= MOST {
        return text;
    }
    format!("{}… (cut)", &text[..text.floor_char_boundary(MOST - 16)])
}

fn text_of(payload: &dyn Any) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "<non-string payload>".to_owned(),
    }
}
