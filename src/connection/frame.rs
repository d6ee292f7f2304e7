//! Frames: messages in a stream of bytes. What comes is hostile: nothing is allocated before the
//! bytes for it are there, and nothing but a wrong header spoils the stream.

use crate::sys::stream::Came;
use crate::wire::handles::MAX_HANDLES;
use std::io;
use std::os::fd::OwnedFd;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An encoded value.
    Value = 1,
    /// Bytes as they are.
    Bytes = 2,
    /// A descriptor, and nothing else.
    Descriptor = 3,
}

/// The bytes of a header.
pub(super) const HEADER: usize = 16;
/// How every header begins: who is out of step notices.
const MARK: [u8; 4] = *b"mpf\x01";

/// What stands in front of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// How many objects go along: their numbers follow the body, their descriptors come with the
    /// first byte.
    pub(super) count: u16,
    /// The length of the body.
    pub(super) len: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MARK);
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let [a, b, c, d, kind, 0, low, high, len @ ..] = *bytes else { return None };
        let kind = match kind {
            1 => Kind::Value,
            2 => Kind::Bytes,
            3 => Kind::Descriptor,
            _ => return None,
        };
        let count = u16::from_le_bytes([low, high]);
        let is_known = [a, b, c, d] == MARK && usize::from(count) <= MAX_HANDLES;
        is_known.then_some(Self { kind, count, len: u64::from_le_bytes(len) })
    }

    /// The bytes of the body and the numbers behind it.
    fn total(self) -> u64 {
        self.len.saturating_add(u64::from(self.count) * 8)
    }
}

/// Where bytes come from.
pub(super) trait Source {
    /// What is there, with the descriptors of its first byte, and whether some of them were lost.
    fn first(&mut self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<(Came, bool)>;
    /// What is there, at most `most` bytes, into the room that `bytes` has.
    fn more(&mut self, bytes: &mut Vec<u8>, most: usize) -> io::Result<Came>;
}

/// A whole message.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    /// The numbers that the objects in it have at the sender.
    pub(crate) numbers: Vec<u64>,
    /// The descriptors of those objects, in the same order.
    pub(crate) fds: Vec<OwnedFd>,
    /// This process could not take the descriptors: it has too many open files.
    pub(crate) is_short: bool,
}

/// How far the reader has come.
#[derive(Debug)]
pub(super) enum Stand {
    /// A whole message.
    Whole(Frame),
    /// A message of this many bytes, more than was allowed. It is skipped as it comes.
    TooLarge(u64),
    /// There is no memory for a message of this many bytes. It is skipped as it comes.
    NoMemory(u64),
    /// Nothing more is there now.
    Waiting,
    /// More may be there, but this was a good deal of work.
    Busy,
    /// The peer has ended between two messages.
    Ended,
    /// The peer has ended in the middle of a message.
    Torn,
    /// What came is no header.
    Garbled,
}

/// How much a reader reads in one go.
const STEP: usize = 1 << 20;
/// How much memory a message gets before any of its bytes has come.
const LEAST: usize = 1 << 16;

/// Puts messages together from what comes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    head: [u8; HEADER],
    head_len: usize,
    header: Option<Header>,
    /// The body, then the numbers.
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    is_short: bool,
    /// Bytes of a refused message that are still to come.
    skip: u64,
    is_garbled: bool,
}

impl Reader {
    /// Whether the next byte begins a message.
    pub(super) fn is_between(&self) -> bool {
        self.head_len == 0 && self.skip == 0
    }

    /// Reads what is there, until a message of at most `limit` bytes is whole or refused.
    pub(super) fn advance(&mut self, source: &mut impl Source, limit: u64) -> io::Result<Stand> {
        let mut budget = STEP;
        loop {
            if self.is_garbled {
                return Ok(Stand::Garbled);
            }
            if let Some(stand) = self.verdict(limit) {
                return Ok(stand);
            }
            if budget == 0 {
                return Ok(Stand::Busy);
            }
            let came = if self.skip > 0 {
                self.read_past(source)?
            } else if self.header.is_none() {
                self.read_header(source)?
            } else {
                self.read_body(source, budget)?
            };
            match came {
                Came::Bytes(count) => budget = budget.saturating_sub(count),
                Came::Nothing => return Ok(Stand::Waiting),
                Came::End if self.is_between() => return Ok(Stand::Ended),
                Came::End => return Ok(Stand::Torn),
            }
        }
    }

    /// What is to be said of the message whose header is there, if it is time to.
    fn verdict(&mut self, limit: u64) -> Option<Stand> {
        let header = self.header?;
        if header.len > limit {
            self.refuse(header);
            return Some(Stand::TooLarge(header.len));
        }
        let total = header.total();
        if self.bytes.len() as u64 == total {
            return Some(Stand::Whole(self.take(header)));
        }
        let left = usize::try_from(total - self.bytes.len() as u64).unwrap_or(usize::MAX);
        // Memory grows with what has come, and not with what the header claims.
        if self.bytes.len() == self.bytes.capacity() {
            let more = left.min(self.bytes.len().max(LEAST));
            if self.bytes.try_reserve_exact(more).is_err() {
                self.refuse(header);
                return Some(Stand::NoMemory(header.len));
            }
        }
        None
    }

    fn read_header(&mut self, source: &mut impl Source) -> io::Result<Came> {
        let came = if self.head_len == 0 {
            let (came, is_short) = source.first(&mut self.head, &mut self.fds)?;
            self.is_short = is_short;
            came
        } else {
            // Into a vector, as everything that is not the first byte.
            let most = HEADER - self.head_len;
            let mut more = Vec::with_capacity(HEADER);
            let came = source.more(&mut more, most)?;
            let target = &mut self.head[self.head_len..][..more.len()];
            target.copy_from_slice(&more);
            came
        };
        if let Came::Bytes(count) = came {
            self.head_len += count;
        }
        if self.head_len == HEADER {
            self.header = Header::decode(&self.head);
            self.is_garbled = self.header.is_none();
        }
        Ok(came)
    }

    fn read_body(&mut self, source: &mut impl Source, budget: usize) -> io::Result<Came> {
        // `verdict` has made room.
        let room = self.bytes.capacity() - self.bytes.len();
        let total = self.header.map_or(0, Header::total);
        let left = usize::try_from(total - self.bytes.len() as u64).unwrap_or(usize::MAX);
        source.more(&mut self.bytes, left.min(room).min(budget))
    }

    fn read_past(&mut self, source: &mut impl Source) -> io::Result<Came> {
        self.bytes.clear();
        self.bytes.reserve(LEAST);
        let most = usize::try_from(self.skip).unwrap_or(usize::MAX).min(LEAST);
        let came = source.more(&mut self.bytes, most)?;
        if let Came::Bytes(count) = came {
            self.skip = self.skip.saturating_sub(count as u64);
        }
        if self.skip == 0 {
            self.bytes = Vec::new();
        }
        Ok(came)
    }

    /// The message is whole: the next byte begins another one.
    fn take(&mut self, header: Header) -> Frame {
        let mut body = std::mem::take(&mut self.bytes);
        // All of it is in memory, so its length is one of memory.
        let trailer = body.split_off(body.len().min(header.len as usize));
        let words = trailer.chunks_exact(8);
        let numbers = words.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let frame = Frame {
            kind: header.kind,
            body,
            numbers: numbers.collect(),
            fds: std::mem::take(&mut self.fds),
            is_short: self.is_short,
        };
        self.begin_anew();
        frame
    }

    /// What is still to come of this message is of no use.
    fn refuse(&mut self, header: Header) {
        self.skip = header.total() - self.bytes.len() as u64;
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        let (skip, is_garbled) = (self.skip, self.is_garbled);
        *self = Self { skip, is_garbled, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// Bytes that come in pieces.
    #[derive(Debug, Default)]
    struct Pieces(VecDeque<Vec<u8>>);

    impl Source for Pieces {
        fn first(&mut self, bytes: &mut [u8], _: &mut Vec<OwnedFd>) -> io::Result<(Came, bool)> {
            let mut taken = Vec::with_capacity(bytes.len());
            let came = self.more(&mut taken, bytes.len())?;
            bytes[..taken.len()].copy_from_slice(&taken);
            Ok((came, false))
        }

        fn more(&mut self, bytes: &mut Vec<u8>, most: usize) -> io::Result<Came> {
            let Some(mut piece) = self.0.pop_front() else { return Ok(Came::End) };
            if piece.is_empty() {
                return Ok(Came::Nothing);
            }
            let room = bytes.capacity() - bytes.len();
            assert!(most <= room, "more is asked for than there is room");
            let rest = piece.split_off(piece.len().min(most));
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            bytes.extend_from_slice(&piece);
            Ok(Came::Bytes(piece.len()))
        }
    }

    /// Cuts bytes into pieces; an empty piece between two means that nothing is there for a while.
    fn cut(bytes: &[u8], at: &[prop::sample::Index]) -> Pieces {
        let mut cuts: Vec<usize> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        Pieces(cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect())
    }

    fn frame(kind: Kind, body: &[u8], numbers: &[u64]) -> Vec<u8> {
        let count = u16::try_from(numbers.len()).expect("few");
        let mut bytes = Header { kind, count, len: body.len() as u64 }.encode().to_vec();
        bytes.extend_from_slice(body);
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes
    }

    /// A message: what it is about, its body, and the numbers of its objects.
    fn messages() -> impl Strategy<Value = (Kind, Vec<u8>, Vec<u64>)> {
        let kinds = prop_oneof![Just(Kind::Value), Just(Kind::Bytes), Just(Kind::Descriptor)];
        let bodies = prop::collection::vec(any::<u8>(), 0..300);
        (kinds, bodies, prop::collection::vec(any::<u64>(), 0..4))
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_messages(
            messages in prop::collection::vec(messages(), 0..8),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            limit in 0..300_u64,
        ) {
            let frames = messages.iter().map(|(kind, body, numbers)| frame(*kind, body, numbers));
            let bytes = frames.collect::<Vec<_>>().concat();
            let (mut source, mut reader) = (cut(&bytes, &at), Reader::default());
            let mut expected = messages.iter();
            let mut next = || expected.next().expect("no more than were sent");
            loop {
                match reader.advance(&mut source, limit).expect("no error") {
                    Stand::Waiting | Stand::Busy => {}
                    Stand::Whole(came) => {
                        prop_assert_eq!(&(came.kind, came.body, came.numbers), next());
                    }
                    Stand::TooLarge(len) => {
                        prop_assert!(len == next().1.len() as u64 && len > limit);
                    }
                    Stand::Ended => break,
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert!(expected.next().is_none());
        }

        #[test]
        fn garbage_neither_panics_nor_takes_memory(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            begins in any::<bool>(),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            limit in prop_oneof![Just(u64::MAX), Just(0), any::<u64>()],
        ) {
            // With a header that is all right but for what it claims, too.
            let mut bytes = bytes;
            if begins && bytes.len() >= HEADER {
                bytes[..4].copy_from_slice(&MARK);
                bytes[4] = bytes[4] % 3 + 1;
                bytes[5] = 0;
                bytes[7] = 0;
            }
            let (mut source, mut reader) = (cut(&bytes, &at), Reader::default());
            for _ in 0..1000 {
                let stand = reader.advance(&mut source, limit).expect("no error");
                prop_assert!(reader.bytes.capacity() <= 2 * LEAST);
                if matches!(stand, Stand::Garbled | Stand::Ended | Stand::Torn) {
                    return Ok(());
                }
            }
            prop_assert!(false, "it goes on for ever");
        }
    }

    #[test]
    fn a_length_that_lies_takes_no_memory_for_what_never_comes() {
        let header = Header { kind: Kind::Bytes, count: 224, len: u64::MAX - 1 };
        let mut bytes = header.encode().to_vec();
        bytes.extend([7; 1000]);
        for limit in [u64::MAX, 1 << 30] {
            let (mut source, mut reader) = (cut(&bytes, &[]), Reader::default());
            loop {
                match reader.advance(&mut source, limit).expect("no error") {
                    Stand::TooLarge(len) => assert!(len == u64::MAX - 1 && limit < len),
                    Stand::Torn => break,
                    other => assert!(matches!(other, Stand::Waiting), "{other:?}"),
                }
                assert!(reader.bytes.capacity() <= LEAST, "{}", reader.bytes.capacity());
            }
        }
    }

    #[test]
    fn a_large_message_comes_in_steps() {
        let body = vec![5; 5 * STEP + 3];
        let (mut source, mut reader) =
            (cut(&frame(Kind::Bytes, &body, &[9]), &[]), Reader::default());
        let mut steps = 0;
        let came = loop {
            match reader.advance(&mut source, u64::MAX).expect("no error") {
                Stand::Busy => steps += 1,
                Stand::Whole(frame) => break frame,
                other => panic!("{other:?}"),
            }
        };
        assert!(came.body == body && came.numbers == [9] && steps >= 5);
        assert!(reader.is_between());
    }
}
