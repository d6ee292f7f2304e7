//! Shared elements as arrays of any shape, of the `ndarray` crate.

use super::{ArrayGuard, FrozenVec, SharedVec};
use crate::{Error, Result};
use bytemuck::Pod;
use ndarray::{ArrayView, ArrayViewMut, Dimension, ShapeError, StrideShape};

/// Makes a view of `len` elements with this shape, which must have as many.
fn shaped<D: Dimension, V>(
    shape: impl Into<StrideShape<D>>,
    len: usize,
    make: impl FnOnce(StrideShape<D>) -> std::result::Result<V, ShapeError>,
) -> Result<V> {
    let shape = shape.into();
    let dimensions = shape.raw_dim().clone();
    let wrong = |why: &str| {
        let dimensions = dimensions.slice();
        Error::invalid(format!("the shape {dimensions:?} for {len} elements{why}"))
    };
    let size = dimensions.slice().iter().try_fold(1usize, |size, len| size.checked_mul(*len));
    if size != Some(len) {
        return Err(wrong(""));
    }
    make(shape).map_err(|error| wrong(&format!(": {error}")))
}

impl<T: Pod> SharedVec<T> {
    /// The elements as an array of this shape, in place. (Feature `ndarray`.)
    ///
    /// # Errors
    /// Invalid input, if the shape has not as many elements as the vector.
    ///
    /// ```
    /// use multiproc::SharedVec;
    ///
    /// let vec = SharedVec::try_from([1, 2, 3, 4, 5, 6])?;
    /// let matrix = vec.view((2, 3))?;
    /// assert_eq!(matrix[[1, 0]], 4);
    /// assert!(vec.view((4, 2)).is_err());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn view<D: Dimension>(
        &self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayView<'_, T, D>> {
        shaped(shape, self.len(), |shape| ArrayView::from_shape(shape, self))
    }

    /// The elements as an array of this shape, for writing in place. (Feature `ndarray`.)
    ///
    /// # Errors
    /// Invalid input, if the shape has not as many elements as the vector; out of memory, if the
    /// vector is sealed and cannot be copied.
    ///
    /// ```
    /// let mut vec = multiproc::SharedVec::<f64>::zeroed(12)?;
    /// let mut cube = vec.view_mut((2, 2, 3))?;
    /// cube[[1, 1, 2]] = 0.5;
    /// assert_eq!(vec[11], 0.5);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn view_mut<D: Dimension>(
        &mut self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayViewMut<'_, T, D>> {
        let elements = self.make_mut()?;
        shaped(shape, elements.len(), |shape| ArrayViewMut::from_shape(shape, elements))
    }
}

impl<T: Pod> FrozenVec<T> {
    /// The elements as an array of this shape, in place. (Feature `ndarray`.)
    ///
    /// # Errors
    /// Invalid input, if the shape has not as many elements as the vector.
    ///
    /// ```
    /// let frozen = multiproc::FrozenVec::try_from([1.0, 2.0, 3.0, 4.0])?;
    /// let matrix = frozen.view((2, 2))?;
    /// assert_eq!(matrix.dot(&matrix.row(0))[1], 11.0);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn view<D: Dimension>(
        &self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayView<'_, T, D>> {
        shaped(shape, self.len(), |shape| ArrayView::from_shape(shape, self))
    }
}

impl<T: Pod> ArrayGuard<'_, T> {
    /// The elements as an array of this shape, in place, while the lock is held. (Feature
    /// `ndarray`.)
    ///
    /// # Errors
    /// Invalid input, if the shape has not as many elements as the array.
    pub fn view<D: Dimension>(
        &self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayView<'_, T, D>> {
        shaped(shape, self.len(), |shape| ArrayView::from_shape(shape, self))
    }

    /// The elements as an array of this shape, for writing in place, while the lock is held.
    /// (Feature `ndarray`.)
    ///
    /// # Errors
    /// Invalid input, if the shape has not as many elements as the array.
    ///
    /// ```
    /// let array = multiproc::Array::<u8>::zeroed(6)?;
    /// array.lock()?.view_mut((3, 2))?.row_mut(1).fill(7);
    /// assert_eq!(array.to_vec()?, [0, 0, 7, 7, 0, 0]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn view_mut<D: Dimension>(
        &mut self,
        shape: impl Into<StrideShape<D>>,
    ) -> Result<ArrayViewMut<'_, T, D>> {
        shaped(shape, self.len(), |shape| ArrayViewMut::from_shape(shape, self))
    }
}
