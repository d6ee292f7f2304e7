// error: &u8
// error: Pod
// error: is not satisfied

use multiproc::Value;

fn main() {
    let _ = Value::new(&5u8);
}
