use std::cell::RefCell;
use std::mem::ManuallyDrop;

/// What a thread is in the middle of: for a `thread_local!`.
///
/// It has no destructor. The thread's other variables have, and the user's may put something into a
/// queue or call a manager there, when one with a destructor may be gone already. So whoever puts
/// a value in takes it out again; one that is there at the end of the thread is leaked.
#[derive(Debug)]
pub(crate) struct Lasting<T>(RefCell<Option<ManuallyDrop<T>>>);

impl<T> Lasting<T> {
    /// Without a value.
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// Puts another value, or none, and returns the one that was there.
    pub(crate) fn replace(&self, value: Option<T>) -> Option<T> {
        self.0.replace(value.map(ManuallyDrop::new)).map(ManuallyDrop::into_inner)
    }

    /// Takes the value out.
    pub(crate) fn take(&self) -> Option<T> {
        self.replace(None)
    }

    /// Uses the value where it is. No code of the user's may run in `usage`.
    pub(crate) fn with<R>(&self, usage: impl FnOnce(Option<&mut T>) -> R) -> R {
        usage(self.0.borrow_mut().as_deref_mut())
    }

    /// As [`with`](Self::with); there is a value from now on.
    pub(crate) fn with_default<R>(&self, usage: impl FnOnce(&mut T) -> R) -> R
    where
        T: Default,
    {
        usage(self.0.borrow_mut().get_or_insert_with(Default::default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::needs_drop;
    use std::rc::Rc;

    #[test]
    fn it_has_no_destructor_and_gives_back_what_it_has() {
        assert!(!needs_drop::<Lasting<Vec<Rc<u8>>>>());
        let (cell, value) = (Lasting::new(), Rc::new(7));
        assert!(cell.replace(Some(value.clone())).is_none());
        assert_eq!(cell.with(|value| value.map(|value| **value)), Some(7));
        drop(cell.take());
        assert_eq!(Rc::strong_count(&value), 1);
    }
}
