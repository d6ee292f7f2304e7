use super::Connection;
use crate::{Data, Result};

/// The messages of a connection until its end; see [`Connection::iter`].
#[derive(Debug)]
pub struct Messages<'a, S, R> {
    connection: Option<&'a Connection<S, R>>,
}

impl<'a, S, R> Messages<'a, S, R> {
    pub(super) fn of(connection: &'a Connection<S, R>) -> Self {
        Self { connection: Some(connection) }
    }
}

impl<S, R: Data> Iterator for Messages<'_, S, R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        let message = self.connection?.recv();
        match &message {
            Err(error) if error.is_end_of_file() => {
                self.connection = None;
                return None;
            }
            // Nothing comes after it.
            Err(error) if error.is_disconnected() => self.connection = None,
            _ => {}
        }
        Some(message)
    }
}

impl<'a, S, R: Data> IntoIterator for &'a Connection<S, R> {
    type Item = Result<R>;
    type IntoIter = Messages<'a, S, R>;

    fn into_iter(self) -> Messages<'a, S, R> {
        self.iter()
    }
}
