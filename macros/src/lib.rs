//! The attribute macros of the `multiproc` crate.

use proc_macro::TokenStream;

mod managed;
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

/// Writes a proxy for a type of one's own, so that a
/// [`Manager`](../multiproc/struct.Manager.html)'s server can hold objects of it.
///
/// The attribute stands on the `impl` block with the type's methods, which stay as they are. It
/// adds a type named like this one with `Proxy` after it, or as `proxy = Name` says: a handle with
/// the same methods, each of which calls the object in the server and returns what that returns in
/// a [`multiproc::Result`](../multiproc/type.Result.html). Public methods with `&self` run beside
/// each other, those with `&mut self` alone. A public function that returns `Self` is a
/// constructor; the proxy's has the manager in front. One that returns a `Result<Self, E>` (or an
/// alias of that) may fail: the proxy's returns a `Result` of the proxy, or the `E`, in that of the
/// call, and after an `E` there is no object. Whatever is not `pub` does not exist for clients.
///
/// Arguments and values travel, so they are [`Data`](../multiproc/trait.Data.html); the type itself
/// does not, so it can have anything in it that threads can share. An `Err` of a method is a value
/// like any other. A panic is an error of the call, and leaves the object as it is then.
///
/// A method may have proxies of other objects and call them. If methods of several objects call
/// each other's in a circle, so that they would wait for each other, one of the calls is an error
/// that says so; see [`Proxy`](../multiproc/manager/struct.Proxy.html) for what is not found out.
///
/// ```
/// use multiproc::{Manager, Process};
///
/// struct Counter {
///     count: u64,
/// }
///
/// #[multiproc::managed]
/// impl Counter {
///     pub fn new(start: u64) -> Self {
///         Self { count: start }
///     }
///
///     pub fn add(&mut self, number: u64) -> u64 {
///         self.count += number;
///         self.count
///     }
///
///     pub fn count(&self) -> u64 {
///         self.count
///     }
/// }
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::start()?;
/// let counter = CounterProxy::new(&manager, 5)?;
/// let add = |counter: CounterProxy| counter.add(2).ok();
/// let mut child = Process::spawn(add, (counter.clone(),))?;
/// assert_eq!(child.join()?, Some(7));
/// assert_eq!(counter.count()?, 7);
/// # Ok(())
/// # }
/// ```
#[proc_macro_attribute]
pub fn managed(attribute: TokenStream, item: TokenStream) -> TokenStream {
    managed::expand(attribute.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
