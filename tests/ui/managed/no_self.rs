struct Log(Vec<String>);

#[multiproc::managed]
impl Log {
    pub fn level() -> u32 {
        3
    }
}

fn main() {}
