//! What runner and socket-proxy say to each other on an attached stream, before and beside the plugin's own bytes.
//!
//! The runner writes messages: the length as four bytes, big-endian, then JSON. For a pooled cell first a [`Message::Grant`], after which it may be
//! started; for every cell one [`Message::Envelope`]. socket-proxy answers each with a Docker stream frame of type 0 (no engine sends that type) that
//! holds a [`Control`]; after [`Control::Granted`] and [`Control::Launched`] come the plugin's frames, after [`Control::Refused`] and [`Control::NotNow`] nothing.
//! Among the plugin's frames may be a [`Control::Returned`].

use bailey_proto::trust::v1::Signed;
use bailey_types::SecretName;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Largest envelope without its length, bytes: 10 MiB of request, secrets, and what base64 adds.
pub const MAX_ENVELOPE_BYTES: usize = 24 << 20;

/// Type of the Docker stream frames that hold a [`Control`].
pub const CONTROL_FRAME: u8 = 0;

/// Why bytes are not an envelope, or an envelope cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// More than [`MAX_ENVELOPE_BYTES`].
    #[error("the envelope is {0} bytes; at most {MAX_ENVELOPE_BYTES} are allowed")]
    TooLarge(usize),
    /// Not the JSON of an envelope.
    #[error("the envelope is malformed: {0}")]
    Malformed(String),
}

/// What the runner says.
#[derive(Clone, Debug)]
pub enum Message {
    /// Policy's leave (`bailey_trust::PoolGrant`) to start a pooled cell that has no request yet.
    Grant(Signed),
    /// The request.
    Envelope(Envelope),
}

/// What it takes to feed a cell.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Policy's decision (`bailey_trust::Decision`).
    pub decision: Signed,
    /// The broker's ticket (`bailey_trust::Ticket`).
    pub ticket: Signed,
    /// 32 bytes of salt and the final bytes, sealed to socket-proxy.
    pub sealed: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeText {
    decision: SignedText,
    ticket: SignedText,
    sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantText {
    grant: SignedText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedText {
    payload: String,
    signature: String,
}

impl Envelope {
    /// The envelope as it is written to the stream, its length in front.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EnvelopeError> {
        let text = EnvelopeText {
            decision: to_text(&self.decision),
            ticket: to_text(&self.ticket),
            sealed: STANDARD.encode(&self.sealed),
        };
        framed(&text)
    }

    /// Reads what follows the length. No signature is checked here.
    pub fn from_json(json: &[u8]) -> Result<Self, EnvelopeError> {
        let malformed = |reason: String| EnvelopeError::Malformed(reason);
        let text: EnvelopeText =
            serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
        Ok(Self {
            decision: from_text(&text.decision)?,
            ticket: from_text(&text.ticket)?,
            sealed: decode(&text.sealed)?.into(),
        })
    }
}

impl Message {
    /// Reads what follows the length. No signature is checked here.
    pub fn from_json(json: &[u8]) -> Result<Self, EnvelopeError> {
        // A grant has one member, whose name no envelope has.
        if let Ok(GrantText { grant }) = serde_json::from_slice(json) {
            return from_text(&grant).map(Self::Grant);
        }
        Envelope::from_json(json).map(Self::Envelope)
    }
}

/// A grant as it is written to the stream, its length in front.
pub fn grant_to_bytes(grant: &Signed) -> Result<Vec<u8>, EnvelopeError> {
    framed(&GrantText {
        grant: to_text(grant),
    })
}

/// A signed statement as one line of JSON: how a holder with egress gets its lease.
pub fn signed_line(signed: &Signed) -> Result<Vec<u8>, EnvelopeError> {
    let mut line = serde_json::to_vec(&to_text(signed))
        .map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// Reads such a line, with or without its end.
pub fn signed_from_line(line: &[u8]) -> Result<Signed, EnvelopeError> {
    let text: SignedText =
        serde_json::from_slice(line).map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
    from_text(&text)
}

fn framed(text: &impl Serialize) -> Result<Vec<u8>, EnvelopeError> {
    let json = serde_json::to_vec(text).map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
    let too_large = || EnvelopeError::TooLarge(json.len());
    if json.len() > MAX_ENVELOPE_BYTES {
        return Err(too_large());
    }
    let length = u32::try_from(json.len()).map_err(|_| too_large())?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

fn to_text(signed: &Signed) -> SignedText {
    let (payload, signature) = (&signed.payload, &signed.signature);
    SignedText {
        payload: STANDARD.encode(payload),
        signature: STANDARD.encode(signature),
    }
}

fn from_text(text: &SignedText) -> Result<Signed, EnvelopeError> {
    let (payload, signature) = (decode(&text.payload)?, decode(&text.signature)?);
    Ok(Signed {
        payload: payload.into(),
        signature: signature.into(),
    })
}

fn decode(text: &str) -> Result<Vec<u8>, EnvelopeError> {
    STANDARD
        .decode(text)
        .map_err(|e| EnvelopeError::Malformed(e.to_string()))
}

/// What socket-proxy says about a launch, in a frame of type [`CONTROL_FRAME`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// `{"granted":true}`: the cell may be started and wait for its request.
    Granted(bool),
    /// `{"launched":true}`: the cell is being fed, and may be started if it does not run already.
    Launched(bool),
    /// `{"refused":"…"}`: the cell never got anything, and never will by this ticket.
    Refused(String),
    /// `{"not_now":"…"}`: the cell never got anything; another attempt may.
    NotNow(String),
    /// `{"returned":{…}}`: the plugin has printed a secret that it was given. Said for each secret and stream before the frame with the
    /// first marker in its place, again whenever there are twice as many, and at the end of the stream if there are more.
    Returned(Returned),
}

/// A secret that came back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// Which.
    pub secret: SecretName,
    /// On what.
    pub stream: OutputStream,
    /// How often so far.
    pub count: u64,
}

/// What a plugin writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// As in the frame and in audit entries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Control {
    /// The frame's payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::json!(self).to_string().into_bytes()
    }

    /// Reads a frame's payload.
    pub fn from_json(json: &[u8]) -> Result<Self, EnvelopeError> {
        serde_json::from_slice(json).map_err(|e| EnvelopeError::Malformed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(byte: u8) -> Signed {
        Signed {
            payload: vec![byte; 3].into(),
            signature: vec![byte; 64].into(),
        }
    }

    #[test]
    fn an_envelope_survives_the_stream() {
        let envelope = Envelope {
            decision: signed(1),
            ticket: signed(2),
            sealed: Bytes::from_static(&[0, 255, 10]),
        };
        let bytes = envelope.to_bytes().unwrap();
        let (length, json) = bytes.split_at(4);
        assert_eq!(
            u32::from_be_bytes(length.try_into().unwrap()) as usize,
            json.len()
        );
        let read = Envelope::from_json(json).unwrap();
        assert_eq!(
            (read.decision, read.ticket),
            (envelope.decision, envelope.ticket)
        );
        assert_eq!(read.sealed, envelope.sealed);
    }

    #[test]
    fn an_envelope_with_more_in_it_is_refused() {
        for json in [
            r#"{"decision":{"payload":"","signature":""}}"#,
            "{}",
            "[]",
            "",
        ] {
            assert!(Envelope::from_json(json.as_bytes()).is_err(), "{json}");
        }
        let more = r#"{"decision":{"payload":"","signature":""},"ticket":{"payload":"","signature":""},"sealed":"","x":1}"#;
        assert!(Envelope::from_json(more.as_bytes()).is_err());
    }

    #[test]
    fn a_grant_and_an_envelope_are_told_apart() {
        let bytes = grant_to_bytes(&signed(3)).unwrap();
        let message = Message::from_json(&bytes[4..]).unwrap();
        assert!(matches!(message, Message::Grant(grant) if grant == signed(3)));
        let envelope = Envelope {
            decision: signed(1),
            ticket: signed(2),
            sealed: Bytes::from_static(&[4]),
        };
        let bytes = envelope.to_bytes().unwrap();
        let message = Message::from_json(&bytes[4..]).unwrap();
        assert!(matches!(message, Message::Envelope(read) if read.decision == signed(1)));
        let both = r#"{"grant":{"payload":"","signature":""},"sealed":""}"#;
        assert!(Message::from_json(both.as_bytes()).is_err());
    }

    #[test]
    fn a_lease_is_one_line() {
        let line = signed_line(&signed(5)).unwrap();
        assert_eq!(line.split(|b| *b == b'\n').count(), 2);
        assert_eq!(signed_from_line(&line).unwrap(), signed(5));
        assert!(signed_from_line(br#"{"payload":"","signature":"","x":1}"#).is_err());
    }

    #[test]
    fn controls_are_one_member_each() {
        assert_eq!(Control::Launched(true).to_json(), br#"{"launched":true}"#);
        assert_eq!(Control::Granted(true).to_json(), br#"{"granted":true}"#);
        let refused = Control::Refused("no \"ticket\"".into());
        assert_eq!(Control::from_json(&refused.to_json()).unwrap(), refused);
        let late = Control::NotNow("late".into());
        assert_eq!(late.to_json(), br#"{"not_now":"late"}"#);
        assert_eq!(Control::from_json(&late.to_json()).unwrap(), late);
        let returned = Control::Returned(Returned {
            secret: "api-key".parse().unwrap(),
            stream: OutputStream::Stderr,
            count: 3,
        });
        let text = br#"{"returned":{"count":3,"secret":"api-key","stream":"stderr"}}"#;
        assert_eq!(returned.to_json(), text);
        assert_eq!(Control::from_json(text).unwrap(), returned);
    }
}
