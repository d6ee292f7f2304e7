//! What all proxies have in common.

use super::link::{Link, LinkHandle};
use super::message::{Made, Reply, garbled};
use super::remote::{self, Share};
use crate::codec::{Data, Encode, NotEncoded, Reader, decode_value, encode_value};
use crate::entry::{self, Caller, Look, ManagedEntry};
use crate::shm::object::Object;
use crate::wire::handles::{self, Received};
use crate::wire::travel::Handle;
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// An object of type `S` that a [`Manager`](super::Manager)'s server holds.
///
/// The proxies of this module, and those that [`#[multiproc::managed]`](macro@crate::managed)
/// writes, are each one of these with methods of their own; [`Manager::create`] gives one for any
/// type. Clones, and what arrives where one was sent, are proxies of the same object, and when the
/// last of them is gone, in whatever process and however it ended, the object is dropped. One that
/// is stored in an object of the server counts as well: an object that has a proxy of itself, or
/// two that have proxies of each other, stay until the manager is shut down.
///
/// A function that is called on the object runs in the server, alone for [`with_mut`], beside
/// others that only look for [`with`]. It may call other objects of the manager through proxies; a
/// call of its own one, also by way of others, is an error ([`is_invalid_input`]), because it would
/// wait for itself. If functions that run on several objects call each other's in a circle, one of
/// these calls is such an error, too, and the others go on. What is not found out is a circle that
/// leads through another process or manager, or through a lock or a queue: who is in one waits until
/// the manager is shut down.
///
/// [`with`]: Proxy::with
/// [`with_mut`]: Proxy::with_mut
/// [`is_invalid_input`]: Error::is_invalid_input
/// [`Manager::create`]: super::Manager::create
///
/// ```
/// use multiproc::Manager;
///
/// #[derive(Default)]
/// struct Tally {
///     words: Vec<String>, // it stays in the server: it need not be serialisable
/// }
///
/// let manager = Manager::start()?;
/// let tally = manager.create(|()| Tally::default(), ())?;
/// tally.with_mut(|tally, word: String| tally.words.push(word), "one".to_owned())?;
/// assert_eq!(tally.with(|tally, ()| tally.words.len(), ())?, 1);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct Proxy<S> {
    link: Arc<Link>,
    number: u64,
    life: Life,
    object: PhantomData<fn() -> S>,
}

/// Kept: while anybody has one, the object is there.
#[derive(Clone)]
pub(super) enum Life {
    /// A token of the kernel's.
    Token(Arc<Object>),
    /// This process's share of a remote object.
    Share(Arc<Share>),
}

impl<S> Clone for Proxy<S> {
    fn clone(&self) -> Self {
        Self::new(self.link.clone(), self.number, self.life.clone())
    }
}

impl<S> fmt::Debug for Proxy<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("object", &self.number).finish_non_exhaustive()
    }
}

/// Two proxies are equal if they are of the same object.
impl<S> PartialEq for Proxy<S> {
    fn eq(&self, other: &Self) -> bool {
        self.link.id() == other.link.id() && self.number == other.number
    }
}

impl<S> Eq for Proxy<S> {}

#[derive(Serialize, Deserialize)]
struct Sent {
    link: LinkHandle,
    number: u64,
    /// None to and from a remote server, which counts.
    life: Option<Handle>,
}

impl<S> Serialize for Proxy<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> std::result::Result<Z::Ok, Z::Error> {
        let life = match &self.life {
            Life::Share(_) => None,
            Life::Token(token) => {
                let is_counted =
                    self.link.is_own() && entry::is_answering() && remote::note(self.number, token);
                (!is_counted).then(|| Handle(token.clone()))
            }
        };
        let link = LinkHandle(self.link.clone());
        Sent { link, number: self.number, life }.serialize(serializer)
    }
}

impl<'de, S> Deserialize<'de> for Proxy<S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let Sent { link: LinkHandle(link), number, life } = Sent::deserialize(from)?;
        let life = Life::of(&link, number, life).ok_or_else(|| {
            handles::refuse_decoding("a proxy of an object of which the sender has none")
        })?;
        Ok(Self::new(link, number, life))
    }
}

impl Life {
    /// What keeps an object, by what came with a proxy of it.
    pub(super) fn of(link: &Arc<Link>, number: u64, came: Option<Handle>) -> Option<Self> {
        match came {
            Some(Handle(token)) => Some(Self::Token(link.life(number, token))),
            None if link.is_own() => remote::token(number).map(Self::Token),
            None => link.remote().map(|_| Self::Share(link.share(number))),
        }
    }
}

/// Arguments that are borrowed for a call, and arrive as the owned tuple `A`.
pub(super) trait Lent<A> {
    fn encode(&self, sink: &mut Vec<u8>) -> std::result::Result<(), NotEncoded>;
}

macro_rules! lent {
    ($($name:ident)*) => {
        #[allow(non_snake_case, unused_variables, reason = "one name for type and value")]
        impl<$($name: Data),*> Lent<($($name,)*)> for ($(&$name,)*) {
            fn encode(&self, sink: &mut Vec<u8>) -> std::result::Result<(), NotEncoded> {
                let ($($name,)*) = self;
                $(encode_value(*$name, sink)?;)*
                Ok(())
            }
        }
    };
}

lent!();
lent!(A);
lent!(A B);
lent!(A B C);
lent!(A B C D);

/// Decodes the value of a reply.
fn decode<R: Data>(link: &Link, (reply, received): (Reply, Received)) -> Result<R> {
    let Reply::Value(bytes) = reply else { return Err(garbled()) };
    let decode = || link.hearing(|| decode_value(&mut Reader(&bytes)));
    handles::providing(received, decode).map_err(Error::result)
}

/// Calls an entry of the object with this number.
pub(super) fn call<A, R: Data>(
    link: &Arc<Link>,
    number: u64,
    entry: ManagedEntry,
    arguments: impl Lent<A>,
) -> Result<R> {
    decode(link, link.call(number, entry, |sink| arguments.encode(sink))?)
}

/// Calls an entry that makes an object; the first proxy of that.
pub(super) fn make<A, S>(
    link: &Arc<Link>,
    number: u64,
    entry: ManagedEntry,
    arguments: impl Lent<A>,
) -> Result<Proxy<S>> {
    first(link, link.call(number, entry, |sink| arguments.encode(sink))?)
}

/// Calls an entry that makes an object, or gives a value that says why not.
pub(super) fn try_make<A, S, E: Data>(
    link: &Arc<Link>,
    number: u64,
    entry: ManagedEntry,
    arguments: impl Lent<A>,
) -> Result<std::result::Result<Proxy<S>, E>> {
    match link.call(number, entry, |sink| arguments.encode(sink))? {
        (why @ Reply::Value(_), received) => decode(link, (why, received)).map(Err),
        made => first(link, made).map(Ok),
    }
}

/// The first proxy of an object that was made.
fn first<S>(link: &Arc<Link>, (reply, received): (Reply, Received)) -> Result<Proxy<S>> {
    let Reply::Made(bytes) = reply else { return Err(garbled()) };
    let decode = || postcard::from_bytes(&bytes).map_err(|_| garbled());
    let Made { number, life } = handles::providing(received, decode)?;
    let life = link.hearing(|| Life::of(link, number, life)).ok_or_else(garbled)?;
    Ok(Proxy::new(link.clone(), number, life))
}

impl<S> Proxy<S> {
    pub(super) fn new(link: Arc<Link>, number: u64, life: Life) -> Self {
        Self { link, number, life, object: PhantomData }
    }

    /// The number of the object.
    #[cfg(all(test, feature = "hook"))]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Calls an entry of the object.
    pub(super) fn call<A, R: Data>(
        &self,
        entry: ManagedEntry,
        arguments: impl Lent<A>,
    ) -> Result<R> {
        self.keep()?;
        call(&self.link, self.number, entry, arguments)
    }

    /// Sees to it that the server keeps the object for this process.
    fn keep(&self) -> Result<()> {
        match &self.life {
            Life::Share(share) => share.keep(),
            Life::Token(_) => Ok(()),
        }
    }
}

impl<O: Send + Sync + 'static> Proxy<O> {
    /// Calls a method of an object that synchronises itself.
    pub(super) fn raw<A: Encode, R: Data>(
        &self,
        method: impl Fn(&Arc<O>, &dyn Caller, A) -> Result<R> + Copy + Send + Sync + 'static,
        arguments: impl Lent<A>,
    ) -> Result<R> {
        self.call(entry::raw_entry(method)?, arguments)
    }

    /// Calls a method of an object that synchronises itself, which makes another object.
    pub(super) fn spawn<A: Encode, N: Send + Sync + 'static>(
        &self,
        method: impl Fn(&Arc<O>, A) -> Result<N> + Copy + Send + Sync + 'static,
        arguments: impl Lent<A>,
    ) -> Result<Proxy<N>> {
        self.keep()?;
        make(&self.link, self.number, entry::spawn_entry(method)?, arguments)
    }
}

impl<S: Send + Sync + 'static> Proxy<S> {
    /// Calls a function on the object, which may change it; nobody else sees it meanwhile.
    ///
    /// The function is a function item or a closure that captures nothing; `argument` (a tuple, if
    /// there are several) travels to it, and what it returns travels back.
    ///
    /// # Errors
    /// [`is_panic`](Error::is_panic) if the function panicked (the object stays as that left it),
    /// [`is_encode`](Error::is_encode) and [`is_decode`](Error::is_decode) if the argument or the
    /// value cannot travel, [`is_disconnected`](Error::is_disconnected) if the server has ended.
    pub fn with_mut<A: Data, R: Data>(
        &self,
        function: impl Fn(&mut S, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.write(move |state: &mut S, (argument,): (A,)| function(state, argument), (&argument,))
    }

    /// Calls a function that looks at the object; others may look at the same time.
    ///
    /// # Errors
    /// As [`with_mut`](Proxy::with_mut).
    pub fn with<A: Data, R: Data>(
        &self,
        function: impl Fn(&S, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.read(move |state: &S, (argument,): (A,)| function(state, argument), (&argument,))
    }

    /// Calls a function that may change the object.
    pub(super) fn write<A: Encode, R: Data>(
        &self,
        method: impl Fn(&mut S, A) -> R + Copy + Send + Sync + 'static,
        arguments: impl Lent<A>,
    ) -> Result<R> {
        self.call(entry::write_entry(method)?, arguments)
    }

    /// Calls a function that looks at the object.
    pub(super) fn read<A: Encode, R: Data>(
        &self,
        method: impl Fn(&S, A) -> R + Copy + Send + Sync + 'static,
        arguments: impl Lent<A>,
    ) -> Result<R> {
        self.call(entry::read_entry(method)?, arguments)
    }

    /// Calls a function that shows an `R` where it is.
    pub(super) fn show<A: Encode, R: Data>(
        &self,
        method: impl Fn(&S, A, &mut Look<'_>) + Copy + Send + Sync + 'static,
        arguments: impl Lent<A>,
    ) -> Result<R> {
        self.call(entry::show_entry(method)?, arguments)
    }
}

/// Declares a type that is a proxy of `state` and nothing else.
macro_rules! proxy_type {
    ($(#[$meta:meta])* $name:ident [$($generic:ident),*] of $state:ty) => {
        $(#[$meta])*
        pub struct $name<$($generic),*>(pub(super) crate::manager::proxy::Proxy<$state>);

        impl<$($generic),*> Clone for $name<$($generic),*> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<$($generic),*> std::fmt::Debug for $name<$($generic),*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0).finish()
            }
        }

        impl<$($generic),*> PartialEq for $name<$($generic),*> {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }

        impl<$($generic),*> Eq for $name<$($generic),*> {}

        impl<$($generic),*> serde::Serialize for $name<$($generic),*> {
            fn serialize<Z: serde::Serializer>(&self, to: Z) -> Result<Z::Ok, Z::Error> {
                serde::Serialize::serialize(&self.0, to)
            }
        }

        impl<'de, $($generic),*> serde::Deserialize<'de> for $name<$($generic),*> {
            fn deserialize<Z: serde::Deserializer<'de>>(from: Z) -> Result<Self, Z::Error> {
                serde::Deserialize::deserialize(from).map(Self)
            }
        }
    };
}
pub(super) use proxy_type;
