// error: multiproc: a type without a size cannot be shared

use multiproc::RawValue;

fn main() {
    let _ = RawValue::new(());
}
