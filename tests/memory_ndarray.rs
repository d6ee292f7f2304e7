//! Views of any shape over shared elements.

mod common;

use common::watchdog;
use multiproc::{Array, FrozenVec, Process, SharedVec};
use ndarray::{Axis, Ix2, IxDyn, ShapeBuilder};

#[test]
fn matrices_are_multiplied_in_another_process() {
    watchdog();
    let multiply = |left: FrozenVec<f64>, right: FrozenVec<f64>| {
        let (left, right) = (left.view((2, 3)).expect("2 x 3"), right.view((3, 2)).expect("3 x 2"));
        let mut product = SharedVec::<f64>::zeroed(4).expect("memory");
        product.view_mut((2, 2)).expect("2 x 2").assign(&left.dot(&right));
        product
    };
    let left = FrozenVec::try_from([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("memory");
    let right = FrozenVec::try_from([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]).expect("memory");
    let product = Process::spawn(multiply, (left, right)).expect("spawn").join().expect("join");
    assert_eq!(product, [4.0, 5.0, 10.0, 11.0]);
}

#[test]
fn a_locked_array_is_filled_by_columns_from_several_processes() {
    watchdog();
    let array = Array::<u32>::zeroed(12).expect("memory");
    let fill = |array: Array<u32>, column: usize| {
        let mut guard = array.lock().expect("nobody died");
        let mut matrix = guard.view_mut((3, 4)).expect("3 x 4");
        matrix.column_mut(column).fill(column as u32 + 1);
    };
    let processes: Vec<_> = (0..4)
        .map(|column| Process::spawn(fill, (array.clone(), column)).expect("spawn"))
        .collect();
    processes.into_iter().for_each(|mut process| process.join().expect("join"));
    let guard = array.lock().expect("nobody died");
    let matrix = guard.view((3, 4)).expect("3 x 4");
    assert!(matrix.axis_iter(Axis(0)).all(|row| row.to_vec() == [1, 2, 3, 4]));
}

#[test]
fn shapes_of_any_number_of_dimensions_and_orders_of_elements() {
    watchdog();
    let vec = SharedVec::try_from_iter(0..24u16).expect("memory");
    assert_eq!(vec.view(24).expect("1")[23], 23);
    assert_eq!(vec.view([2, 3, 4]).expect("3")[[1, 2, 3]], 23);
    assert_eq!(vec.view(IxDyn(&[2, 1, 3, 1, 4])).expect("any")[[1, 0, 0, 0, 1].as_slice()], 13);
    assert_eq!(vec.view((4, 6).f()).expect("by columns")[[1, 2]], 9);
    let empty = SharedVec::<u8>::new().expect("memory");
    assert_eq!(empty.view((0, 5)).expect("empty").len(), 0);
}

#[test]
fn a_wrong_shape_is_an_error_that_names_it() {
    watchdog();
    let mut vec = SharedVec::<u8>::zeroed(6).expect("memory");
    let frozen = FrozenVec::try_from([0u8; 6]).expect("memory");
    let array = Array::<u8>::zeroed(6).expect("memory");
    for shape in [(2, 2), (4, 2), (0, 6), (usize::MAX, 2), (1 << 32, 1 << 32)] {
        let errors = [
            vec.view(shape).map(|_| ()).expect_err("wrong"),
            vec.view_mut(shape).map(|_| ()).expect_err("wrong"),
            frozen.view(shape).map(|_| ()).expect_err("wrong"),
            array.lock().expect("new").view(shape).map(|_| ()).expect_err("wrong"),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(error.is_invalid_input() && text.contains(&shape.0.to_string()), "{text}");
            assert!(text.contains("6 elements"), "{text}");
        }
    }
    // Strides that lead outside, or to one element twice.
    let shape = || Ix2(2, 3).strides(Ix2(9, 1));
    assert!(vec.view(shape()).is_err());
    assert!(vec.view_mut(Ix2(2, 3).strides(Ix2(0, 1))).is_err());
}
