// error: cannot assign to data in dereference of `FrozenVec<u8>`

use multiproc::FrozenVec;

fn main() {
    let frozen = FrozenVec::try_from([1u8, 2]).expect("memory");
    frozen[0] = 2;
}
