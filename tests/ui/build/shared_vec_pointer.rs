// error: String
// error: Pod
// error: is not satisfied

use multiproc::SharedVec;

fn main() {
    let _ = SharedVec::try_from([String::from("the bytes are elsewhere")]);
}
