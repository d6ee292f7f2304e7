//! What the fuzz targets call: the parent's readers of what workers write, and a listener's of what
//! strangers send.

use crate::codec::{Reader, decode_entry};
use crate::shm::board::Board;
use crate::shm::results::{Kind, MAX_RECORD, ResultReader};
use crate::sys::socket;
use crate::wire::control::{self, Failure, ToParent};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// The reader of the result ring. The first eight bytes say where in the ring it stands, the next
/// eight are the progress word, and the rest is in the ring.
pub fn results(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Some((progress, ring)) = rest.split_first_chunk::<8>() else { return };
    let Ok((board, _fd)) = Board::create() else { return };
    let mut reader = ResultReader::standing_at(u64::from_ne_bytes(*head));
    for (index, word) in ring.chunks_exact(8).take(MAX_RECORD).enumerate() {
        let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
        reader.word_ahead(&board, index as u64).store(word, Ordering::Relaxed);
    }
    board.progress().store(u64::from_ne_bytes(*progress), Ordering::Relaxed);
    // Each record moves the reader on; a ring holds a bounded number of them.
    for _ in 0..ring.len() {
        let Ok(Some(record)) = reader.next(&board) else { break };
        let body = record.body.as_slice();
        assert!(body.len() <= MAX_RECORD, "a record larger than a record can be");
        if record.kind == Kind::Failure {
            let _ = postcard::from_bytes::<Failure>(body);
        }
        decode(body);
    }
    if let Some((_, body)) = reader.unpublished(&board) {
        assert!(body.as_slice().len() <= MAX_RECORD, "a record larger than a record can be");
        decode(body.as_slice());
    }
}

/// Decodes results of some types that users have.
fn decode(body: &[u8]) {
    let _ = decode_entry::<u64>(&mut Reader(body));
    let _ = decode_entry::<Vec<u32>>(&mut Reader(body));
    let _ = decode_entry::<Vec<String>>(&mut Reader(body));
    let _ = decode_entry::<(Option<char>, BTreeMap<u8, Vec<f64>>)>(&mut Reader(body));
}

/// The frames that the peer of a connection sends.
pub fn frames(bytes: &[u8]) {
    crate::connection::fuzz::frames(bytes);
}

/// The handshake of a connection, from both sides.
pub fn handshake(bytes: &[u8]) {
    crate::connection::fuzz::handshake(bytes);
}

/// The decoder of control messages, behind a real socket.
pub fn control(bytes: &[u8]) {
    static PAIR: OnceLock<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> = OnceLock::new();
    if bytes.is_empty() || bytes.len() > socket::MAX_MESSAGE + 100 {
        return;
    }
    let Ok(made) = socket::pair() else { return };
    let (worker, parent) = PAIR.get_or_init(|| made);
    if socket::send(worker, bytes, &[], false).is_ok() {
        let _ = control::try_recv::<ToParent>(parent, &mut vec![0; socket::MAX_MESSAGE]);
    }
}
