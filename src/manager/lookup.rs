//! Keys as they are given to look something up.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What an item or a key is looked up by: itself, or what is borrowed from it, `str` for a
/// `String`, `[T]` and arrays for a `Vec<T>`, `Path` for a `PathBuf`, `OsStr` for an `OsString`.
/// There is nothing to implement.
///
/// (As [`Borrow`](std::borrow::Borrow) in the methods of [`HashMap`](std::collections::HashMap).
/// But a key travels as what it is, so one that is borrowed becomes one that is owned first.)
///
/// ```
/// use multiproc::Manager;
///
/// let manager = Manager::start()?;
/// let ports = manager.dict_of([("http".to_owned(), 80u16)])?;
/// assert_eq!(ports.get("http")?, Some(80));
/// assert_eq!(ports.get(&"https".to_owned())?, None);
/// assert!(manager.list_of(["a".to_owned()])?.contains("a")?);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a `{T}` is to be looked up, and this is a `{Self}`",
    label = "neither `{T}` nor what is borrowed from one",
    note = "pass a reference to the key, or `&str` for a `String`, `&[T]` for a `Vec<T>`, `&Path` \
            for a `PathBuf`"
)]
pub trait Lookup<T> {
    /// Calls `look` with the key.
    #[doc(hidden)]
    fn look_up<R>(&self, look: impl FnOnce(&T) -> R) -> R;
}

impl<T> Lookup<T> for T {
    #[inline]
    fn look_up<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(self)
    }
}

impl<T: Clone> Lookup<Vec<T>> for [T] {
    fn look_up<R>(&self, look: impl FnOnce(&Vec<T>) -> R) -> R {
        look(&self.to_vec())
    }
}

impl<T: Clone, const N: usize> Lookup<Vec<T>> for [T; N] {
    fn look_up<R>(&self, look: impl FnOnce(&Vec<T>) -> R) -> R {
        look(&self.to_vec())
    }
}

macro_rules! borrowed {
    ($($borrowed:ty => $owned:ty;)*) => {$(
        impl Lookup<$owned> for $borrowed {
            fn look_up<R>(&self, look: impl FnOnce(&$owned) -> R) -> R {
                look(&self.to_owned())
            }
        }
    )*};
}

borrowed! {
    str => String;
    Path => PathBuf;
    OsStr => OsString;
}
