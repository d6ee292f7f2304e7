//! Values that are given as they are, or by reference.

/// A value, or a reference to one: what can be put and sent. There is nothing to implement.
///
/// (As [`Borrow`](std::borrow::Borrow), but only these two, so that the type of a queue follows
/// from what is put into it.)
#[diagnostic::on_unimplemented(
    message = "a `{T}` is to be put or sent, and this is a `{Self}`",
    label = "neither `{T}` nor `&{T}`",
    note = "a borrowed value cannot travel: pass an owned one (`String` instead of `&str`)"
)]
pub trait Given<T> {
    /// The value.
    #[doc(hidden)]
    fn given(&self) -> &T;
}

impl<T> Given<T> for T {
    #[inline]
    fn given(&self) -> &T {
        self
    }
}

impl<T> Given<T> for &T {
    #[inline]
    fn given(&self) -> &T {
        self
    }
}
