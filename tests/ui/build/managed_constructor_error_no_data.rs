// error: cannot travel to another process
struct Log(#[allow(dead_code)] std::fs::File);

#[multiproc::managed]
impl Log {
    pub fn open(path: String) -> std::io::Result<Self> {
        std::fs::File::open(path).map(Self)
    }
}

fn main() {}
