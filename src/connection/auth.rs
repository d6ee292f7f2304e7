//! The handshake: who proves what to whom, as bytes. Nothing here reads or writes a socket.
//!
//! All messages have a fixed length. `README.md` has the protocol and what it is good for.

use crate::error::Kind;
use crate::{Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt;

/// The bytes of a hello.
pub(super) const HELLO: usize = 256;
/// The bytes of a proof.
pub(super) const PROOF: usize = 32;
/// The bytes of a verdict: a byte that says which, seven that say nothing, a proof.
pub(super) const VERDICT: usize = 8 + PROOF;
/// The most bytes that the name of a service has.
pub(super) const LONGEST_SERVICE: usize = HELLO - SERVICE;

/// Increased with every change of the handshake or of the frames.
const VERSION: u8 = 1;
const MARK: &[u8; 6] = b"mpconn";

// Where things are in a hello.
const ROLE: usize = 7;
const PLATFORM: usize = 8;
const KEYED: usize = 9;
const REFUSAL: usize = 10;
const SERVICE_LEN: usize = 12;
const NONCE: usize = 16;
const SERVICE: usize = 48;

/// In front of a key whose digest is made, so that nothing else has the same digest.
const KEY_LABEL: &[u8] = b"multiproc connection: the key ";

const ACCEPTED: u8 = 1;
const WRONG_USER: u8 = 1;

/// Random bytes of the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let failed = |error| Error::new(Kind::Os, format!("the kernel has no random bytes: {error}"));
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A shared secret. It is never shown.
///
/// Only its digest is kept: HMAC itself does not tell a short key from the same one with zeros
/// behind it, nor a long one from its digest.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::invalid("an empty key: anybody would have it"));
        }
        let digest = Sha256::new().chain_update(KEY_LABEL).chain_update(bytes);
        Ok(Self(digest.finalize().into()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What one side brings to a handshake.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    key: Option<Key>,
    service: Vec<u8>,
    /// What to do if the other side serves something else.
    remedy: &'static str,
}

impl Terms {
    pub(super) fn new(key: Option<Key>, service: &[u8]) -> Result<Self> {
        if service.len() > LONGEST_SERVICE {
            let (len, name) = (service.len(), service.escape_ascii());
            return Err(Error::invalid(format!(
                "a service name of {len} bytes (at most {LONGEST_SERVICE}): \"{name}\""
            )));
        }
        Ok(Self { key, service: service.to_vec(), remedy: "" })
    }

    /// The terms, with something to add to the error if the other side serves something else.
    pub(super) fn with_remedy(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }

    /// The proof of somebody with this key, in this role, in this exchange. Without a key it
    /// proves nothing, but goes the same way.
    fn mac(&self, role: Role, exchange: &Exchange) -> Option<Hmac<Sha256>> {
        let key = self.key.as_ref().map_or(&[][..], |key| &key.0);
        // Any length will do; there is no other error.
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        // All parts have a fixed length, so no two exchanges give the same bytes.
        mac.update(match role {
            Role::Client => b"multiproc connection: the client ",
            Role::Server => b"multiproc connection: the server ",
        });
        mac.update(&*exchange.client.0);
        mac.update(&*exchange.server.0);
        Some(mac)
    }

    fn prove(&self, role: Role, exchange: &Exchange) -> [u8; PROOF] {
        let mac = self.mac(role, exchange);
        mac.map_or([0; PROOF], |mac| mac.finalize().into_bytes().into())
    }

    /// Compares in a time that does not depend on what is compared.
    fn verify(&self, role: Role, exchange: &Exchange, proof: &[u8]) -> bool {
        self.mac(role, exchange).is_some_and(|mac| mac.verify_slice(proof).is_ok())
    }

    /// What keeps these terms and that hello apart, in the words of this side.
    fn difference(&self, theirs: &Hello) -> Option<String> {
        let keyed = theirs.0[KEYED] != 0;
        if theirs.0[PLATFORM] != platform() {
            let what = "the other side is of another architecture (byte order or word length)";
            return Some(what.to_owned());
        }
        match (&self.key, keyed) {
            (None, true) => {
                return Some("the other side wants a key, and there is none".to_owned());
            }
            (Some(_), false) => {
                let what = "the other side has no key, so it cannot prove that it is the right one";
                return Some(what.to_owned());
            }
            _ => {}
        }
        let service = theirs.service();
        (service != self.service).then(|| {
            let (here, there) = (self.service.escape_ascii(), service.escape_ascii());
            let separator = if self.remedy.is_empty() { "" } else { ": " };
            format!(
                "the service here is \"{here}\", that of the other side \"{there}\"{separator}{}",
                self.remedy
            )
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// Byte order and word length: values travel in those of the machine.
fn platform() -> u8 {
    (size_of::<usize>() as u8) << 1 | u8::from(cfg!(target_endian = "big"))
}

/// The first message of each side.
#[derive(Clone)]
struct Hello(Box<[u8; HELLO]>);

impl Hello {
    fn new(role: Role, terms: &Terms) -> Result<Self> {
        let mut bytes = Box::new([0; HELLO]);
        bytes[..MARK.len()].copy_from_slice(MARK);
        bytes[MARK.len()] = VERSION;
        bytes[ROLE] = role as u8;
        bytes[PLATFORM] = platform();
        bytes[KEYED] = u8::from(terms.key.is_some());
        bytes[SERVICE_LEN] = terms.service.len() as u8;
        bytes[NONCE..SERVICE].copy_from_slice(&random::<{ SERVICE - NONCE }>()?);
        bytes[SERVICE..][..terms.service.len()].copy_from_slice(&terms.service);
        Ok(Self(bytes))
    }

    fn service(&self) -> &[u8] {
        let all = &self.0[SERVICE..];
        all.get(..usize::from(self.0[SERVICE_LEN])).unwrap_or(all)
    }
}

/// The first bytes of a hello, which tell it from garbage.
fn beginning(role: Role) -> [u8; ROLE + 1] {
    let mut bytes = [0; ROLE + 1];
    bytes[..MARK.len()].copy_from_slice(MARK);
    bytes[MARK.len()] = VERSION;
    bytes[ROLE] = role as u8;
    bytes
}

/// Both hellos.
struct Exchange {
    client: Hello,
    server: Hello,
}

/// The client's side, in the order in which it goes.
pub(super) struct Asking {
    terms: Terms,
    hello: Hello,
}

/// The client's side when it has sent its proof.
pub(super) struct Proving {
    terms: Terms,
    exchange: Exchange,
}

impl Asking {
    pub(super) fn new(terms: Terms) -> Result<Self> {
        let hello = Hello::new(Role::Client, &terms)?;
        Ok(Self { terms, hello })
    }

    /// What to send first.
    pub(super) fn hello(&self) -> &[u8] {
        &*self.hello.0
    }

    /// What to send next, given the server's hello.
    ///
    /// # Errors
    /// Why it ends here, in words.
    pub(super) fn answer(
        self,
        hello: Box<[u8; HELLO]>,
    ) -> std::result::Result<([u8; PROOF], Proving), String> {
        let server = Hello(hello);
        let (theirs, ours) = (&server.0[..=ROLE], beginning(Role::Server));
        if theirs[..MARK.len()] != *MARK || theirs[ROLE] != ours[ROLE] {
            return Err("what answers there is no listener of this crate".to_owned());
        }
        if theirs != ours {
            let theirs = theirs[MARK.len()];
            return Err(format!("version {theirs} of the protocol there, version {VERSION} here"));
        }
        if let Some(difference) = self.terms.difference(&server) {
            return Err(difference);
        }
        match server.0[REFUSAL] {
            0 => {}
            WRONG_USER => return Err("the listener does not serve this user".to_owned()),
            _ => return Err("the listener refuses".to_owned()),
        }
        let exchange = Exchange { client: self.hello, server };
        let proof = self.terms.prove(Role::Client, &exchange);
        Ok((proof, Proving { terms: self.terms, exchange }))
    }
}

impl Proving {
    /// Whether the server accepts, and is who it should be.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn judge(&self, verdict: &[u8; VERDICT]) -> std::result::Result<(), &'static str> {
        if verdict[0] != ACCEPTED {
            return Err("the listener refused the key");
        }
        match self.terms.verify(Role::Server, &self.exchange, &verdict[VERDICT - PROOF..]) {
            true => Ok(()),
            false => Err("the listener did not prove that it has the same key"),
        }
    }
}

/// Whether somebody may connect, as far as that is known without the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Open,
    WrongUser,
}

/// The listener's side of one handshake. It is fed what comes, and says what to send.
pub(super) struct Answering {
    admission: Admission,
    stage: Stage,
    got: Vec<u8>,
}

enum Stage {
    /// Waits for the client's hello.
    Hello,
    /// Waits for the client's proof.
    Proof(Exchange),
    /// Nothing more is to come. Whether it was accepted.
    Over(bool),
}

/// What a handshake has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// More is to come.
    Open,
    /// When everything is sent, messages may begin.
    Accepted,
    /// When everything is sent, the connection is to be closed.
    Refused,
}

impl Answering {
    pub(super) fn new(admission: Admission) -> Self {
        Self { admission, stage: Stage::Hello, got: Vec::new() }
    }

    /// How many bytes it can take now. It never takes one that belongs to a message.
    pub(super) fn wants(&self) -> usize {
        match &self.stage {
            Stage::Hello => HELLO - self.got.len(),
            Stage::Proof(_) => PROOF - self.got.len(),
            Stage::Over(_) => 0,
        }
    }

    /// Whether the client has said who it is, at least.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Hello)
    }

    /// Takes bytes, as many as it wants or fewer; what is to be sent goes into `out`.
    pub(super) fn feed(&mut self, terms: &Terms, bytes: &[u8], out: &mut Vec<u8>) -> Outcome {
        self.got.extend_from_slice(&bytes[..bytes.len().min(self.wants())]);
        // Garbage is known by its first bytes; nobody waits for the rest of it.
        let common = self.got.len().min(ROLE + 1);
        if matches!(self.stage, Stage::Hello)
            && self.got[..common] != beginning(Role::Client)[..common]
        {
            self.stage = Stage::Over(false);
        } else if self.wants() == 0 {
            self.step(terms, out);
        }
        match self.stage {
            Stage::Hello | Stage::Proof(_) => Outcome::Open,
            Stage::Over(true) => Outcome::Accepted,
            Stage::Over(false) => Outcome::Refused,
        }
    }

    fn step(&mut self, terms: &Terms, out: &mut Vec<u8>) {
        let got = std::mem::take(&mut self.got);
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over(false)) {
            Stage::Hello => self.greet(terms, got, out),
            Stage::Proof(exchange) => {
                let is_right = terms.verify(Role::Client, &exchange, &got);
                let mut verdict = [0; VERDICT];
                if is_right {
                    verdict[0] = ACCEPTED;
                    verdict[VERDICT - PROOF..]
                        .copy_from_slice(&terms.prove(Role::Server, &exchange));
                }
                out.extend_from_slice(&verdict);
                Stage::Over(is_right)
            }
            Stage::Over(accepted) => Stage::Over(accepted),
        };
    }

    /// Answers a hello; a client that cannot be served gets one that tells it so.
    fn greet(&self, terms: &Terms, got: Vec<u8>, out: &mut Vec<u8>) -> Stage {
        let (Ok(client), Ok(mut server)) = (got.try_into(), Hello::new(Role::Server, terms)) else {
            return Stage::Over(false);
        };
        if self.admission == Admission::WrongUser {
            server.0[REFUSAL] = WRONG_USER;
        }
        out.extend_from_slice(&*server.0);
        let client = Hello(client);
        if self.admission != Admission::Open || terms.difference(&client).is_some() {
            return Stage::Over(false);
        }
        Stage::Proof(Exchange { client, server })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(key: Option<&str>, service: &str) -> Terms {
        let key = key.map(|key| Key::new(key.as_bytes()).expect("a key"));
        Terms::new(key, service.as_bytes()).expect("terms")
    }

    fn hello(bytes: &[u8]) -> Box<[u8; HELLO]> {
        bytes.to_vec().try_into().expect("a hello")
    }

    /// Both sides; what the client says of it, and what the listener says.
    fn shake(client: Terms, server: &Terms) -> (std::result::Result<(), String>, Outcome) {
        let mut answering = Answering::new(Admission::Open);
        let asking = Asking::new(client).expect("random bytes");
        let mut out = Vec::new();
        let mut outcome = answering.feed(server, asking.hello(), &mut out);
        let result = asking.answer(hello(&out)).and_then(|(proof, proving)| {
            let mut out = Vec::new();
            outcome = answering.feed(server, &proof, &mut out);
            proving.judge(&out.try_into().expect("a verdict")).map_err(str::to_owned)
        });
        (result, outcome)
    }

    #[test]
    fn the_same_key_is_accepted_and_no_other() {
        let server = terms(Some("sesame"), "");
        assert_eq!(shake(terms(Some("sesame"), ""), &server), (Ok(()), Outcome::Accepted));
        for wrong in ["Sesame", "sesam", "sesame\0", "x"] {
            let (result, outcome) = shake(terms(Some(wrong), ""), &server);
            assert_eq!(outcome, Outcome::Refused, "{wrong}");
            assert!(result.expect_err(wrong).contains("refused the key"));
        }
        assert_eq!(shake(terms(None, ""), &terms(None, "")), (Ok(()), Outcome::Accepted));
    }

    #[test]
    fn what_differs_is_told() {
        let server = terms(Some("sesame"), "bank/1");
        for (client, says) in [
            (terms(None, "bank/1"), "wants a key"),
            (terms(Some("sesame"), "bank/2"), "\"bank/2\", that of the other side \"bank/1\""),
        ] {
            let (result, outcome) = shake(client, &server);
            assert_eq!(outcome, Outcome::Refused);
            let text = result.expect_err(says);
            assert!(text.contains(says), "{text}");
        }
        let (result, outcome) = shake(terms(Some("sesame"), ""), &terms(None, ""));
        assert!(result.expect_err("no key").contains("has no key"));
        assert_eq!(outcome, Outcome::Refused);
    }

    #[test]
    fn the_client_does_not_take_a_listener_without_the_key_for_the_right_one() {
        let asking = Asking::new(terms(Some("sesame"), "")).expect("random bytes");
        let server = Hello::new(Role::Server, &terms(Some("other"), "")).expect("random bytes");
        let (proof, proving) = asking.answer(server.0).expect("an answer");
        let mut verdict = [0; VERDICT];
        verdict[0] = ACCEPTED;
        assert!(proving.judge(&verdict).is_err(), "nothing is proved");
        verdict[VERDICT - PROOF..].copy_from_slice(&proof);
        assert!(proving.judge(&verdict).is_err(), "its own proof, sent back");
    }

    #[test]
    fn a_hello_sent_back_is_no_hello() {
        let asking = Asking::new(terms(Some("sesame"), "")).expect("random bytes");
        let mirrored = hello(asking.hello());
        assert!(asking.answer(mirrored).is_err());
        let server = Hello::new(Role::Server, &terms(Some("sesame"), "")).expect("random bytes");
        let mut answering = Answering::new(Admission::Open);
        let outcome = answering.feed(&terms(Some("sesame"), ""), &*server.0, &mut Vec::new());
        assert_eq!(outcome, Outcome::Refused);
    }

    #[test]
    fn another_version_is_told_from_another_program() {
        let ask = || Asking::new(terms(None, "")).expect("random bytes");
        let mut newer = Hello::new(Role::Server, &terms(None, "")).expect("random bytes").0;
        newer[MARK.len()] = VERSION + 1;
        let text = ask().answer(newer).err().expect("another version");
        assert!(text.contains("version 2 of the protocol there, version 1 here"), "{text}");
        let text = ask().answer(Box::new([b'H'; HELLO])).err().expect("another program");
        assert!(text.contains("no listener of this crate"), "{text}");
    }

    #[test]
    fn a_key_is_never_shown_and_an_empty_one_refused() {
        let text = format!("{:?}", terms(Some("sesame"), "bank"));
        assert!(!text.contains("sesame"), "{text}");
        assert!(Key::new(b"").expect_err("empty").is_invalid_input());
        assert!(Terms::new(None, &[b'x'; LONGEST_SERVICE + 1]).is_err());
        assert!(Terms::new(None, &[b'x'; LONGEST_SERVICE]).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_the_listener_takes_and_sends_little(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            begins in any::<bool>(),
        ) {
            let server = terms(Some("sesame"), "");
            let mut answering = Answering::new(Admission::Open);
            let mut out = Vec::new();
            if begins {
                let begun = answering.feed(&server, &beginning(Role::Client), &mut out);
                prop_assert_eq!(begun, Outcome::Open);
            }
            for piece in pieces {
                let outcome = answering.feed(&server, &piece, &mut out);
                prop_assert_ne!(outcome, Outcome::Accepted);
            }
            prop_assert!(answering.got.len() <= HELLO && out.len() <= HELLO + VERDICT);
        }

        #[test]
        fn the_pieces_in_which_a_handshake_comes_do_not_matter(at in 0..HELLO, later in 0..PROOF) {
            let server = terms(Some("sesame"), "");
            let asking = Asking::new(terms(Some("sesame"), "")).expect("random bytes");
            let mut answering = Answering::new(Admission::Open);
            let mut out = Vec::new();
            answering.feed(&server, &asking.hello()[..at], &mut out);
            prop_assert!(out.is_empty());
            answering.feed(&server, &asking.hello()[at..], &mut out);
            let (proof, proving) = asking.answer(hello(&out)).expect("an answer");
            out.clear();
            answering.feed(&server, &proof[..later], &mut out);
            prop_assert_eq!(answering.feed(&server, &proof[later..], &mut out), Outcome::Accepted);
            prop_assert!(proving.judge(&out.try_into().expect("a verdict")).is_ok());
        }
    }
}
