//! The attribute macros of the `multiproc` crate.

use proc_macro::TokenStream;

mod task;

/// Registers a function under a stable name, for logs, for
/// [`Pool::apply_named`](../multiproc/struct.Pool.html#method.apply_named), and for
/// [`tasks`](../multiproc/fn.tasks.html).
///
/// The name is the module path and the function's name, or what `name = "…"` says. The function
/// itself is unchanged. Two tasks of one name are an error when the first process is started; the
/// message names both places.
///
/// ```
/// #[multiproc::task]
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// #[multiproc::task(name = "images/resize")]
/// fn resize(width: u32, height: u32) -> u32 {
///     width * height
/// }
///
/// # fn main() {
/// assert_eq!(square(3), 9);
/// assert!(multiproc::tasks().iter().any(|task| task.name() == "images/resize"));
/// # }
/// ```
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(attribute.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
