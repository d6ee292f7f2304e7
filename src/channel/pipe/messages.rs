use crate::Result;
use std::fmt;

/// The messages of a pipe until its end of file; see
/// [`PipeReceiver::iter`](super::PipeReceiver::iter).
pub struct Messages<'a, T> {
    recv: Option<Box<dyn FnMut() -> Result<T> + 'a>>,
}

impl<T> fmt::Debug for Messages<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl<'a, T> Messages<'a, T> {
    pub(super) fn new(recv: impl FnMut() -> Result<T> + 'a) -> Self {
        Self { recv: Some(Box::new(recv)) }
    }
}

impl<T> Iterator for Messages<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match (self.recv.as_mut()?)() {
            Err(error) if error.is_end_of_file() => {
                self.recv = None;
                None
            }
            message => Some(message),
        }
    }
}
