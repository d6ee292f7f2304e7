// error: multiproc: this closure captures variables, or is a function pointer
// error: Pass the captured data as an argument, use `map_with` for data that all items share
// error: name the function itself instead of a pointer to it
// error: `Process` with `StartMethod::Fork`, which takes any closure
// error: fn(u64) -> u64

use multiproc::Process;

fn double(x: u64) -> u64 {
    2 * x
}

fn main() {
    let function: fn(u64) -> u64 = double;
    let _ = Process::builder(function, (10,)).name("doubles");
}
