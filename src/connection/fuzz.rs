//! What the fuzz targets call: the readers of what peers send.

use super::auth::{Admission, Answering, Asking, HELLO, Key, Outcome, PROOF, Terms, VERDICT};
use super::frame::{Reader, Source, Stand};
use crate::codec::{self, decode_value};
use crate::sys::stream::Came;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

/// Bytes of which as many come at a time as the first of them says.
struct Pieces<'a>(&'a [u8]);

impl Source for Pieces<'_> {
    fn first(&mut self, bytes: &mut [u8], _: &mut Vec<OwnedFd>) -> io::Result<(Came, bool)> {
        let mut taken = Vec::with_capacity(bytes.len());
        let came = self.more(&mut taken, bytes.len())?;
        bytes[..taken.len()].copy_from_slice(&taken);
        Ok((came, false))
    }

    fn more(&mut self, bytes: &mut Vec<u8>, most: usize) -> io::Result<Came> {
        let Some((&size, rest)) = self.0.split_first() else { return Ok(Came::End) };
        let room = bytes.capacity() - bytes.len();
        assert!(most <= room, "more is asked for than there is room");
        let (taken, rest) = rest.split_at(usize::from(size).min(most).min(rest.len()));
        self.0 = rest;
        bytes.extend_from_slice(taken);
        Ok(if taken.is_empty() { Came::Nothing } else { Came::Bytes(taken.len()) })
    }
}

/// The reader of frames, with all that it is given.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((&limit, rest)) = bytes.split_first() else { return };
    let limit = u64::MAX >> (limit % 64);
    let (mut source, mut reader) = (Pieces(rest), Reader::default());
    // Each step takes a byte at least, or waits for one.
    for _ in 0..=2 * bytes.len() {
        match reader.advance(&mut source, limit) {
            Ok(Stand::Whole(frame)) => {
                assert!(frame.body.len() as u64 <= limit && frame.body.len() <= bytes.len());
                let _ = decode_value::<Vec<String>>(&mut codec::Reader(&frame.body));
                let _ = decode_value::<BTreeMap<u8, Vec<f64>>>(&mut codec::Reader(&frame.body));
            }
            Ok(Stand::Ended | Stand::Torn | Stand::Garbled) | Err(_) => return,
            Ok(_) => {}
        }
    }
    panic!("it goes on for ever");
}

/// Both sides of the handshake, with peers that do not have the key.
pub(crate) fn handshake(bytes: &[u8]) {
    let terms = || Terms::new(Key::new(b"sesame").ok(), b"service");
    let (Ok(server), Ok(client)) = (terms(), terms()) else { return };
    let mut answering = Answering::new(Admission::Open);
    let mut out = Vec::new();
    for piece in bytes.chunks(usize::from(bytes.first().copied().unwrap_or(1)).max(1)) {
        let outcome = answering.feed(&server, piece, &mut out);
        assert!(outcome != Outcome::Accepted, "who does not have the key is let in");
    }
    assert!(out.len() <= HELLO + VERDICT);

    let Ok(asking) = Asking::new(client) else { return };
    let Some((hello, rest)) = bytes.split_first_chunk::<HELLO>() else { return };
    let Ok((_, proving)) = asking.answer(Box::new(*hello)) else { return };
    if let Some(verdict) = rest.first_chunk::<VERDICT>() {
        assert!(proving.judge(verdict).is_err(), "{PROOF} bytes were guessed");
    }
}
