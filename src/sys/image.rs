//! The executable that this process runs: where it is loaded and which build it is.
//!
//! A function is named to another process by its offset from the image base. That is sound only
//! if both run the same build, so the identity is compared when a child says hello.

use std::ops::Range;
use std::sync::OnceLock;

/// The main program as the loader mapped it.
#[derive(Debug)]
pub(crate) struct Image {
    base: usize,
    code: Vec<Range<usize>>,
    /// What nobody writes to once the loader has relocated it.
    constants: Vec<Range<usize>>,
    /// What is mapped as it is in the file, wherever the program is loaded.
    fixed: Vec<Range<usize>>,
    identity: Vec<u8>,
    has_build_id: bool,
}

/// The image of this process.
pub(crate) fn current() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(Image::find)
}

impl Image {
    /// The offset of a code address, or `None` if it lies in a shared library.
    pub(crate) fn offset_of(&self, address: usize) -> Option<u64> {
        let inside = self.code.iter().any(|range| range.contains(&address));
        inside.then(|| (address - self.base) as u64)
    }

    /// The address of a code offset, or `None` if there is no code there.
    pub(crate) fn address_of(&self, offset: u64) -> Option<usize> {
        let address = self.base.checked_add(usize::try_from(offset).ok()?)?;
        self.code.iter().any(|range| range.contains(&address)).then_some(address)
    }

    /// The offset of a constant of the program, or `None` if it lies in a shared library, or where
    /// something could write to it.
    pub(crate) fn offset_of_constant<T>(&self, constant: &'static T) -> Option<u64> {
        let address = std::ptr::from_ref(constant).expose_provenance();
        self.is_constant::<T>(address).then(|| (address - self.base) as u64)
    }

    /// The address at this offset, or `None` unless a whole, aligned `T` of constant memory of the
    /// program is there. Which bytes it has, the caller has to see.
    pub(crate) fn address_of_constant<T>(&self, offset: u64) -> Option<usize> {
        let address = self.base.checked_add(usize::try_from(offset).ok()?)?;
        self.is_constant::<T>(address).then_some(address)
    }

    /// Where constants are.
    #[cfg(test)]
    pub(crate) fn constants(&self) -> &[Range<usize>] {
        &self.constants
    }

    fn is_constant<T>(&self, start: usize) -> bool {
        let Some(end) = start.checked_add(size_of::<T>()) else { return false };
        let holds = |range: &Range<usize>| range.start <= start && end <= range.end;
        start.is_multiple_of(align_of::<T>()) && self.constants.iter().any(holds)
    }

    /// What tells this build from another: the linker's build-id, or else a digest of the
    /// program headers.
    pub(crate) fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// Whether the linker has given the build a name. If not, other builds may have the same
    /// [`identity`](Self::identity).
    pub(crate) fn has_build_id(&self) -> bool {
        self.has_build_id
    }

    /// Code and constants as they are in the file, the same in every process that runs it.
    pub(crate) fn fixed_bytes(&self) -> impl Iterator<Item = &'static [u8]> {
        self.fixed.iter().map(|range| {
            // SAFETY: the loader has mapped these bytes of the main program readable and not
            // writable, for the life of the process.
            unsafe {
                let start = std::ptr::with_exposed_provenance::<u8>(range.start);
                std::slice::from_raw_parts(start, range.len())
            }
        })
    }

    fn find() -> Self {
        let mut image = Self {
            base: 0,
            code: Vec::new(),
            constants: Vec::new(),
            fixed: Vec::new(),
            identity: Vec::new(),
            has_build_id: false,
        };
        // SAFETY: the callback matches the type that dl_iterate_phdr wants and gets back the
        // pointer to `image`, which outlives the call and is not used otherwise meanwhile.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut image).cast()) };
        image
    }
}

/// Records the first object, which is the main program, and stops there.
unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    image: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid info for the duration of the call, and `image` is the
    // pointer that `Image::find` gave.
    let (info, image) = unsafe { (&*info, &mut *image.cast::<Image>()) };
    image.base = info.dlpi_addr as usize;
    // SAFETY: `dlpi_phdr` points to `dlpi_phnum` program headers of the loaded object.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let mut digest = Fnv::default();
    for header in headers {
        let start = image.base.wrapping_add(header.p_vaddr as usize);
        digest.add(header.p_vaddr);
        digest.add(header.p_memsz);
        digest.add(header.p_flags.into());
        let range = start..start + header.p_memsz as usize;
        match header.p_type {
            libc::PT_LOAD => {
                if header.p_flags & libc::PF_X != 0 {
                    image.code.push(range.clone());
                }
                // Bytes of the file only: what comes after them is zeros, and no constant.
                if header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R {
                    let filled = start..start + header.p_filesz as usize;
                    image.constants.push(filled.clone());
                    image.fixed.push(filled);
                }
            }
            // Constants with addresses in them: written by the loader before anything runs, then
            // protected, but for the page that the end of it may share with variables.
            libc::PT_GNU_RELRO => image.constants.push(range),
            libc::PT_NOTE if image.identity.is_empty() => {
                // SAFETY: the loader maps note segments of the main program readable, for the
                // life of the process.
                let notes = unsafe {
                    std::slice::from_raw_parts(start as *const u8, header.p_memsz as usize)
                };
                image.identity = build_id(notes).map(<[u8]>::to_vec).unwrap_or_default();
            }
            _ => {}
        }
    }
    image.has_build_id = !image.identity.is_empty();
    if !image.has_build_id {
        image.identity = digest.0.to_le_bytes().to_vec();
    }
    1
}

/// Finds the build-id in a note segment: elf(5), "Notes (Nhdr)".
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const GNU_BUILD_ID: u32 = 3;
    while notes.len() >= 12 {
        let word = |at: usize| {
            u32::from_ne_bytes([notes[at], notes[at + 1], notes[at + 2], notes[at + 3]])
        };
        let (name_len, len, kind) = (word(0) as usize, word(4) as usize, word(8));
        let name = notes.get(12..12usize.checked_add(name_len)?)?;
        let start = 12 + name_len.next_multiple_of(4);
        let body = notes.get(start..start.checked_add(len)?)?;
        if kind == GNU_BUILD_ID && name == b"GNU\0" {
            return Some(body);
        }
        notes = notes.get(start + len.next_multiple_of(4)..)?;
    }
    None
}

/// FNV-1a, 64 bits: a small digest where no adversary chooses the input.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_this_image_has_an_offset_that_leads_back() {
        let address = Image::find as *const () as usize;
        let offset = current().offset_of(address).expect("our own code");
        assert_eq!(current().address_of(offset), Some(address));
    }

    #[test]
    fn a_function_of_a_shared_library_has_none() {
        assert_eq!(current().offset_of(libc::getpid as *const () as usize), None);
        assert_eq!(current().address_of(u64::MAX), None);
    }

    #[test]
    fn a_constant_has_an_offset_that_leads_back_and_a_variable_has_none() {
        static CONSTANT: [u64; 2] = [7, 9];
        static ADDRESSES: [fn(); 2] = [|| (), || ()];
        static VARIABLE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(5);
        let image = current();
        let offset = image.offset_of_constant(&CONSTANT).expect("a constant");
        let address = std::ptr::from_ref(&CONSTANT) as usize;
        assert_eq!(image.address_of_constant::<[u64; 2]>(offset), Some(address));
        assert_eq!(image.address_of_constant::<[u64; 2]>(offset + 1), None, "not aligned");
        assert!(image.offset_of_constant(&ADDRESSES).is_some());
        assert_eq!(image.offset_of_constant(&VARIABLE), None);
        let on_the_heap: &'static u64 = Box::leak(Box::new(3));
        assert_eq!(image.offset_of_constant(on_the_heap), None);
    }

    /// What the kernel says of the memory that we take for constant.
    #[test]
    fn nobody_can_write_to_what_counts_as_constant() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let page = crate::sys::mmap::page_size();
        let writable = |address: usize| {
            maps.lines().any(|line| {
                let (range, rest) = line.split_once(' ').expect("a range");
                let (start, end) = range.split_once('-').expect("two ends");
                let parse = |text| usize::from_str_radix(text, 16).expect("a number");
                (parse(start)..parse(end)).contains(&address) && rest.as_bytes()[1] == b'w'
            })
        };
        for range in &current().constants {
            // The last page of the relocated part may be shared with variables.
            for address in (range.start..range.end / page * page).step_by(page) {
                assert!(!writable(address), "{address:#x} of {range:x?}");
            }
        }
    }

    #[test]
    fn the_fixed_bytes_are_those_of_the_file() {
        let file = std::fs::read("/proc/self/exe").expect("our file");
        let mut pieces = 0;
        for piece in current().fixed_bytes().filter(|piece| piece.len() >= 64) {
            let found = file.windows(64).any(|window| window == &piece[..64]);
            assert!(found, "a piece of {} bytes", piece.len());
            pieces += 1;
        }
        assert!(pieces > 0);
    }

    #[test]
    fn a_truncated_note_is_no_build_id() {
        assert_eq!(build_id(&[1, 0, 0, 0, 255, 255, 255, 255, 3, 0, 0, 0, b'G']), None);
        assert!(!current().identity().is_empty());
    }
}
