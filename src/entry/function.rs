use std::fmt;

/// A function that another process can be told to call: a function item, a method, or a closure
/// that captures nothing, with 0 to 12 arguments.
///
/// `A` is the tuple of its arguments. There is nothing to implement.
///
/// A closure that captures a variable, or a function *pointer*, satisfies the bounds, but a call
/// with it does not compile: its data would have to travel, and only its code can. Pass the data
/// as an argument, or use [`Pool::map_with`](crate::Pool::map_with).
///
/// ```compile_fail
/// # let pool = multiproc::Pool::new().unwrap();
/// let factor = 3;
/// pool.map(move |x: u64| x * factor, 0..10); // error: captures a variable
/// ```
///
/// A method of a serialisable type is a function item like any other, so captured state can
/// travel as the receiver:
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Scale {
///     factor: u64,
/// }
///
/// impl Scale {
///     fn apply(self, x: u64) -> u64 {
///         self.factor * x
///     }
/// }
///
/// let pool = multiproc::Pool::builder().workers(1).build()?;
/// assert_eq!(pool.apply(Scale::apply, (Scale { factor: 3 }, 14))?, 42);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function of the arguments `{A}`",
    label = "expected a function item or a closure that captures nothing",
    note = "the arguments are a tuple: `(x,)` for one, `()` for none"
)]
pub trait Function<A>: Copy + Send + Sync + 'static {
    /// What the function returns.
    type Output;

    /// Calls it.
    #[doc(hidden)]
    fn call(self, arguments: A) -> Self::Output;
}

macro_rules! functions {
    ($($name:ident)*) => {
        impl<Func, Output, $($name),*> Function<($($name,)*)> for Func
        where
            Func: Fn($($name),*) -> Output + Copy + Send + Sync + 'static,
        {
            type Output = Output;

            #[inline]
            #[allow(non_snake_case, reason = "one name for type and value")]
            fn call(self, ($($name,)*): ($($name,)*)) -> Output {
                self($($name),*)
            }
        }
    };
}

functions!();
functions!(A);
functions!(A B);
functions!(A B C);
functions!(A B C D);
functions!(A B C D E);
functions!(A B C D E F);
functions!(A B C D E F G);
functions!(A B C D E F G H);
functions!(A B C D E F G H I);
functions!(A B C D E F G H I J);
functions!(A B C D E F G H I J K);
functions!(A B C D E F G H I J K L);

/// What an initializer may return: nothing, or a `Result` whose error fails the pool.
pub trait Fallible {
    /// The error, as text.
    #[doc(hidden)]
    fn into_failure(self) -> Option<String>;
}

impl Fallible for () {
    fn into_failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> Fallible for Result<(), E> {
    fn into_failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}
