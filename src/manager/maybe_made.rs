//! `MaybeMade`.

/// What a constructor returns that may fail. The attribute `managed` sees an alias of a `Result`
/// and not what the error is.
#[doc(hidden)]
pub trait MaybeMade {
    /// Why there is no object.
    type Error;
}

impl<T, E> MaybeMade for Result<T, E> {
    type Error = E;
}
