struct Log(Vec<String>);

#[multiproc::managed]
impl Log {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    fn wipe(&mut self) {
        self.0.clear();
    }
}

fn main() {
    let manager = multiproc::Manager::start().unwrap();
    let log = LogProxy::new(&manager).unwrap();
    log.wipe();
}
