use super::raw_array::check;
use super::shared_memory::{Owned, check_name, not_created, not_opened, unique};
use crate::shm::list::{self, Slots, Tagged};
use crate::shm::named::{Content, Named};
use crate::wire::handles;
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io;
use std::sync::Arc;

/// A value in a [`ShareableList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ListValue {
    /// Nothing. (Python: `None`.)
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A list of fixed length of numbers, texts and the like, in memory with a name. (Python:
/// `ShareableList`.)
///
/// The room of each element is that of its first value, rounded up to a multiple of 8 bytes; what
/// does not fit is an error, and its neighbours are never touched. Within its room an element may
/// change its type. Each `get` and `set` is whole: nobody ever reads half of a value, also if a
/// process is killed while it writes one (then the old value stays).
///
/// Any process of the same user opens it by its name; it can also be an argument. What is said of
/// the name of a [`SharedMemory`](super::SharedMemory), and who removes it, holds here, too.
///
/// A clone is another handle of the same list.
///
/// ```
/// use multiproc::{ListValue, ShareableList};
///
/// let list = ShareableList::create_unique([
///     ListValue::from("howdy"), ListValue::from(273.154), ListValue::from(100), ListValue::None,
/// ])?;
///
/// // In any other program:
/// let same = ShareableList::open(list.name())?;
/// assert_eq!(same.get(2)?, ListValue::Int(100));
/// same.set(0, "hello")?;
/// assert!(same.set(1, "far too long for its place").is_err());
/// assert_eq!(list.get(0)?, ListValue::from("hello"));
/// assert_eq!(list.get(1)?, ListValue::Float(273.154));
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct ShareableList(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Arc<Owned>,
    slots: Slots,
}

impl ShareableList {
    /// Makes a list of these values, with this name.
    ///
    /// # Errors
    /// Invalid input, for a wrong name and a name that is in use; out of memory.
    pub fn create(
        name: &str,
        values: impl IntoIterator<Item = impl Into<ListValue>>,
    ) -> Result<Self> {
        check_name(name)?;
        let values = tagged(values);
        let created = list::create(name, &values);
        created.map(Self::created).map_err(|error| not_created(name, error))
    }

    /// Makes a list with a name that nobody else uses; [`name`](Self::name) tells it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn create_unique(values: impl IntoIterator<Item = impl Into<ListValue>>) -> Result<Self> {
        let values = tagged(values);
        unique(|name| list::create(name, &values)).map(Self::created)
    }

    fn created((named, slots): (Named, Slots)) -> Self {
        Self(Arc::new(Inner { memory: Owned::created(named), slots }))
    }

    /// Opens a list that somebody created.
    ///
    /// # Errors
    /// Invalid input, for a wrong name and one that nothing has; an OS error if what has the name
    /// is no list, is damaged, belongs to another user, or was created in another pid namespace.
    pub fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let opened = Named::open(name, Content::List, true);
        let opened = opened.and_then(|named| Self::over(Owned::opened(named)));
        opened.map_err(|error| not_opened(name, error))
    }

    fn over(memory: Arc<Owned>) -> io::Result<Self> {
        if !memory.named.is_of_this_namespace() {
            let what = "it was created in another pid namespace";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let slots = Slots::of(&memory.named)?;
        Ok(Self(Arc::new(Inner { memory, slots })))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.memory.named.name()
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of an element.
    ///
    /// # Errors
    /// Invalid input, if there is no element `index`; an OS error if another program has damaged
    /// it.
    pub fn get(&self, index: usize) -> Result<ListValue> {
        check(index, self.len())?;
        let loaded = self.0.slots.load(&self.0.memory.named, index);
        loaded.and_then(untagged).map_err(|error| self.damaged(index, error))
    }

    /// Overwrites an element, also by a value of another type.
    ///
    /// # Errors
    /// Invalid input, if there is no element `index`, or the value does not fit; then the element
    /// is as it was.
    pub fn set(&self, index: usize, value: impl Into<ListValue>) -> Result<()> {
        check(index, self.len())?;
        let (tag, bytes) = tag(value.into());
        let slots = &self.0.slots;
        match slots.store(&self.0.memory.named, index, tag, &bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::invalid(format!(
                "a value of {} bytes for element {index} of list {:?}, which has room for {}",
                bytes.len(),
                self.name(),
                slots.capacity(index)
            ))),
            Err(error) => Err(self.damaged(index, error)),
        }
    }

    fn damaged(&self, index: usize, error: io::Error) -> Error {
        Error::os(format!("element {index} of list {:?} is damaged", self.name()), error)
    }

    /// Copies of the elements, each as it is when the iterator comes to it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<ListValue>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// How many elements are equal to a value.
    ///
    /// # Errors
    /// An OS error if another program has damaged an element.
    pub fn count(&self, value: impl Into<ListValue>) -> Result<usize> {
        let value = value.into();
        self.iter().try_fold(0, |count, element| Ok(count + usize::from(element? == value)))
    }

    /// The first element that is equal to a value.
    ///
    /// # Errors
    /// An OS error if another program has damaged an element.
    pub fn index(&self, value: impl Into<ListValue>) -> Result<Option<usize>> {
        let value = value.into();
        for (index, element) in self.iter().enumerate() {
            if element? == value {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// From now on the list outlives its creator: it stays until [`unlink`](Self::unlink).
    pub fn keep(&self) {
        // A list is always open for writing, so this succeeds.
        let _ = self.0.memory.named.keep();
    }

    /// Removes the name: nobody can open the list any more. Those who have it keep it. Returns
    /// whether it had the name still.
    ///
    /// # Errors
    /// An OS error if the kernel refuses.
    pub fn unlink(&self) -> Result<bool> {
        self.0.memory.unlink()
    }
}

impl fmt::Debug for ShareableList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ShareableList");
        debug.field("name", &self.name()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Serialize for ShareableList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.memory.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ShareableList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let memory = Owned::received(deserializer, Content::List)?;
        Self::over(memory).map_err(|_| handles::refuse_decoding("a ShareableList that is damaged"))
    }
}

fn tagged(values: impl IntoIterator<Item = impl Into<ListValue>>) -> Vec<Tagged> {
    values.into_iter().map(|value| tag(value.into())).collect()
}

fn tag(value: ListValue) -> Tagged {
    match value {
        ListValue::None => (0, Vec::new()),
        ListValue::Bool(value) => (1, vec![value.into()]),
        ListValue::Int(value) => (2, value.to_ne_bytes().to_vec()),
        ListValue::Float(value) => (3, value.to_ne_bytes().to_vec()),
        ListValue::Str(value) => (4, value.into_bytes()),
        ListValue::Bytes(value) => (5, value),
    }
}

fn untagged((tag, bytes): Tagged) -> io::Result<ListValue> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it holds no value of any type");
    let eight = || <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| invalid());
    match tag {
        0 if bytes.is_empty() => Ok(ListValue::None),
        1 if bytes.len() == 1 => Ok(ListValue::Bool(bytes[0] != 0)),
        2 => eight().map(i64::from_ne_bytes).map(ListValue::Int),
        3 => eight().map(f64::from_ne_bytes).map(ListValue::Float),
        4 => String::from_utf8(bytes).map(ListValue::Str).map_err(|_| invalid()),
        5 => Ok(ListValue::Bytes(bytes)),
        _ => Err(invalid()),
    }
}

macro_rules! from {
    ($variant:ident: $($type:ty),*) => { $(
        impl From<$type> for ListValue {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )* };
}

from!(Bool: bool);
from!(Int: i8, i16, i32, i64, u8, u16, u32);
from!(Float: f32, f64);
from!(Str: String, &str);
from!(Bytes: Vec<u8>, &[u8]);

impl<const N: usize> From<&[u8; N]> for ListValue {
    fn from(value: &[u8; N]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl<V: Into<Self>> From<Option<V>> for ListValue {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}
