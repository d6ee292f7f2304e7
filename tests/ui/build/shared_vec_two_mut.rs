// error: cannot borrow `vec` as mutable more than once at a time

use multiproc::SharedVec;

fn main() {
    let mut vec = SharedVec::<u8>::zeroed(8).expect("memory");
    let one = &mut vec[..4];
    let other = &mut vec[4..];
    one[0] = other[0];
}
