// error: multiproc: this closure captures variables, or is a function pointer
// error: Pass the captured data as an argument, use `map_with` for data that all items share
// error: name the function itself instead of a pointer to it
// error: `Process` with `StartMethod::Fork`, which takes any closure
// error: closure@src/bin/process_capture.rs:

use multiproc::Process;

fn main() {
    let factor = 3;
    let _ = Process::spawn(move |x: u64| x * factor, (10,));
}
