struct Log(Vec<String>);

#[multiproc::managed(name = "LogHandle")]
impl Log {}

fn main() {}
