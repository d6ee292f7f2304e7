struct Log(Vec<String>);

#[multiproc::managed]
impl Drop for Log {
    fn drop(&mut self) {}
}

fn main() {}
