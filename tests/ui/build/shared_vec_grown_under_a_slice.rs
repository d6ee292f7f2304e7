// error: cannot borrow `vec` as mutable because it is also borrowed as immutable

use multiproc::SharedVec;

fn main() {
    let mut vec = SharedVec::<u8>::zeroed(8).expect("memory");
    let slice = &vec[..];
    vec.push(1).expect("memory");
    assert_eq!(slice[0], 0);
}
