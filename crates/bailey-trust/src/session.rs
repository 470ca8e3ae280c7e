//! Sealing many messages to one reader: an age file seals a key once, and each message is sealed under that key (XChaCha20-Poly1305,
//! draft-irtf-cfrg-xchacha; its nonces are long enough to be random).
//!
//! On the wire: length of the age file (u16, big endian), the age file, a nonce of 24 bytes, the ciphertext with its tag. Each message is whole: a
//! reader that never saw the session opens it, and one that did saves two multiplications on the curve, which cost more than the rest of a small message.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{KeyInit as _, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::seal::{SealError, SealingKey, SealingRecipient};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// Sessions that a reader keeps: that of the writer, and of its lives before while their last messages are under way.
const KEPT: usize = 4;

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// Seals messages to one reader, under one key for as long as it lives.
#[derive(Debug)]
pub struct SealingSession {
    reader: SealingRecipient,
    opened: OnceLock<Opened>,
}

/// What a session has sent ahead of each message, and its key.
#[derive(Clone)]
struct Opened {
    /// Length and age file.
    head: Arc<[u8]>,
    key: Arc<Key>,
}

impl SealingSession {
    /// A session with `reader`. Its key is made with the first message.
    pub fn new(reader: SealingRecipient) -> Self {
        Self {
            reader,
            opened: OnceLock::new(),
        }
    }

    /// Seals `plain` so that only the reader can read it.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let Opened { head, key } = if let Some(opened) = self.opened.get() {
            opened
        } else {
            let made = Opened::make(&self.reader)?;
            self.opened.get_or_init(|| made)
        };
        let nonce: [u8; NONCE_BYTES] = rand::random();
        // Room for all of it: a buffer that grows leaves plaintext behind.
        let mut sealed = Vec::with_capacity(head.len() + NONCE_BYTES + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(head);
        sealed.extend_from_slice(&nonce);
        let from = sealed.len();
        sealed.extend_from_slice(plain);
        let text = sealed.get_mut(from..).unwrap_or_default();
        let tag = cipher(key)
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), head, text)
            .map_err(|_| SealError::Seal("the message is too long".to_owned()))?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }
}

impl Opened {
    fn make(reader: &SealingRecipient) -> Result<Self, SealError> {
        let key: Key = Zeroizing::new(rand::random());
        let age = reader.seal(key.as_slice())?;
        let length = u16::try_from(age.len())
            .map_err(|_| SealError::Seal("the sealed key is too long".to_owned()))?;
        let mut head = length.to_be_bytes().to_vec();
        head.extend_from_slice(&age);
        Ok(Self {
            head: head.into(),
            key: Arc::new(key),
        })
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}

/// Opens what was sealed in sessions with one key, and remembers the newest of them.
#[derive(Debug)]
pub struct SessionReader {
    key: SealingKey,
    /// The one that was used last is the first.
    known: Mutex<VecDeque<Opened>>,
}

impl SessionReader {
    /// The reader with `key`.
    pub fn new(key: SealingKey) -> Self {
        Self {
            key,
            known: Mutex::default(),
        }
    }

    /// Opens a message; its plaintext may have at most `limit_bytes`.
    pub fn open(&self, sealed: &[u8], limit_bytes: usize) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let short = || SealError::Open("the message is cut off".to_owned());
        let (length, _) = sealed
            .split_first_chunk::<LENGTH_BYTES>()
            .ok_or_else(short)?;
        let head_bytes = LENGTH_BYTES + usize::from(u16::from_be_bytes(*length));
        let (head, rest) = sealed.split_at_checked(head_bytes).ok_or_else(short)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(short)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(short)?;
        if text.len() > limit_bytes {
            return Err(SealError::TooLarge(limit_bytes));
        }
        let key = self.session(head)?;
        let mut plain = Zeroizing::new(text.to_vec());
        cipher(&key)
            .decrypt_in_place_detached(
                XNonce::from_slice(nonce),
                head,
                plain.as_mut_slice(),
                Tag::from_slice(tag),
            )
            .map_err(|_| SealError::Open("the message was changed".to_owned()))?;
        Ok(plain)
    }

    fn session(&self, head: &[u8]) -> Result<Arc<Key>, SealError> {
        let of_head = |known: &mut VecDeque<Opened>| {
            let place = known.iter().position(|session| *session.head == *head)?;
            let session = known.remove(place)?;
            let key = Arc::clone(&session.key);
            known.push_front(session);
            Some(key)
        };
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = of_head(&mut lock()) {
            return Ok(key);
        }
        let age = head.get(LENGTH_BYTES..).unwrap_or_default();
        let opened = self.key.open(age, KEY_BYTES)?;
        let key = <[u8; KEY_BYTES]>::try_from(opened.as_slice())
            .map_err(|_| SealError::Open("the session's key has another length".to_owned()))?;
        let key = Arc::new(Zeroizing::new(key));
        let mut known = lock();
        known.push_front(Opened {
            head: head.into(),
            key: Arc::clone(&key),
        });
        known.truncate(KEPT);
        Ok(key)
    }
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(chacha20poly1305::Key::from_slice(key.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> (SealingRecipient, SessionReader) {
        let key = SealingKey::generate();
        (key.recipient(), SessionReader::new(key))
    }

    fn kept(reader: &SessionReader) -> usize {
        reader.known.lock().unwrap().len()
    }

    #[test]
    fn only_the_reader_opens_what_was_sealed_to_it() {
        let (recipient, reader) = reader();
        let sealed = SealingSession::new(recipient).seal(b"hunter2").unwrap();
        assert_eq!(*reader.open(&sealed, 100).unwrap(), b"hunter2");
        let other = SessionReader::new(SealingKey::generate());
        assert!(matches!(other.open(&sealed, 100), Err(SealError::Open(_))));
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn each_message_of_a_session_is_whole_and_none_is_like_another() {
        let (recipient, reader) = reader();
        let session = SealingSession::new(recipient);
        let messages = [0; 3].map(|_| session.seal(b"the same").unwrap());
        assert_ne!(messages[0], messages[1]);
        // In another order than they were sealed in.
        for sealed in messages.iter().rev() {
            assert_eq!(*reader.open(sealed, 100).unwrap(), b"the same");
        }
        assert_eq!(kept(&reader), 1);
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        let (recipient, reader) = reader();
        let sealed = SealingSession::new(recipient).seal(b"hunter2").unwrap();
        for known in [false, true] {
            for place in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[place] ^= 1;
                assert!(
                    reader.open(&changed, 100).is_err(),
                    "{place}, known: {known}"
                );
            }
            assert!(reader.open(&sealed, 100).is_ok());
        }
        for length in 0..sealed.len() {
            assert!(reader.open(&sealed[..length], 100).is_err(), "{length}");
        }
    }

    #[test]
    fn the_head_of_one_session_does_not_go_with_the_text_of_another() {
        let (recipient, reader) = reader();
        let seal = || {
            SealingSession::new(recipient.clone())
                .seal(b"hunter2")
                .unwrap()
        };
        let (one, other) = (seal(), seal());
        let head = LENGTH_BYTES + usize::from(u16::from_be_bytes([one[0], one[1]]));
        let crossed = [&one[..head], &other[head..]].concat();
        assert!(reader.open(&crossed, 100).is_err());
        assert!(reader.open(&one, 100).is_ok());
    }

    #[test]
    fn the_plaintext_is_bounded_and_may_be_empty() {
        let (recipient, reader) = reader();
        let session = SealingSession::new(recipient);
        let sealed = session.seal(&[7; 101]).unwrap();
        assert!(matches!(
            reader.open(&sealed, 100),
            Err(SealError::TooLarge(100))
        ));
        assert_eq!(reader.open(&sealed, 101).unwrap().len(), 101);
        assert!(
            reader
                .open(&session.seal(b"").unwrap(), 0)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_few_sessions_are_remembered_and_the_others_open_all_the_same() {
        let (recipient, reader) = reader();
        let sealed: Vec<_> = (0..=KEPT)
            .map(|_| SealingSession::new(recipient.clone()).seal(b"x").unwrap())
            .collect();
        for message in sealed.iter().chain(&sealed) {
            assert_eq!(*reader.open(message, 1).unwrap(), b"x");
        }
        assert_eq!(kept(&reader), KEPT);
    }
}
