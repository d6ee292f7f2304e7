// error: `value` does not live long enough

use multiproc::Value;

fn main() {
    let guard;
    {
        let value = Value::new(1u8).expect("memory");
        guard = value.lock().expect("new");
    }
    assert_eq!(*guard, 1);
}
