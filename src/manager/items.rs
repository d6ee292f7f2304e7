use crate::Result;
use std::fmt;

/// The items of a manager's queue, as they can be taken, until it is closed and empty; see
/// [`Queue::iter`](super::Queue::iter). An error is the last item.
pub struct Items<'a, T> {
    get: Option<Box<dyn FnMut() -> Result<T> + 'a>>,
}

impl<T> fmt::Debug for Items<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

impl<'a, T> Items<'a, T> {
    pub(super) fn new(get: impl FnMut() -> Result<T> + 'a) -> Self {
        Self { get: Some(Box::new(get)) }
    }
}

impl<T> Iterator for Items<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let item = (self.get.as_mut()?)();
        if item.is_err() {
            self.get = None;
        }
        match item {
            Err(error) if error.is_closed() => None,
            item => Some(item),
        }
    }
}
