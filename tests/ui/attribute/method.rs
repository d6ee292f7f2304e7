struct Scale(u64);

impl Scale {
    #[multiproc::task]
    fn apply(self, x: u64) -> u64 {
        self.0 * x
    }
}

fn main() {}
