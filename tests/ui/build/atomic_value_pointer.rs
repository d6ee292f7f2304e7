// error: *const u8
// error: Scalar
// error: is not satisfied

use multiproc::AtomicValue;

fn main() {
    let _ = AtomicValue::new(std::ptr::null::<u8>());
}
