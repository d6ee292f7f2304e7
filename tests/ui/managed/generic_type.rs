struct Log<T>(Vec<T>);

#[multiproc::managed]
impl<T> Log<T> {
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn main() {}
