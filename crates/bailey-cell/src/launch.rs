//! What runner and socket-proxy say to each other on an attached stream, before and beside the plugin's own bytes.
//!
//! The runner writes one envelope: its length as four bytes, big-endian, then JSON. socket-proxy answers with a Docker stream frame of type 0 (no engine
//! sends that type) that holds a [`Control`]; after [`Control::Launched`] come the plugin's frames, after [`Control::Refused`] nothing.

use bailey_proto::trust::v1::Signed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Largest envelope without its length, bytes: 10 MiB of request, secrets, and what base64 adds.
pub const MAX_ENVELOPE_BYTES: usize = 24 << 20;

/// Largest request with secrets, bytes.
pub const MAX_FINAL_BYTES: usize = 16 << 20;

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

/// What it takes to feed a cell.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Policy's decision (`bailey_trust::Decision`).
    pub decision: Signed,
    /// The broker's ticket (`bailey_trust::Ticket`).
    pub ticket: Signed,
    /// 32 bytes of salt and the final bytes, sealed to socket-proxy.
    pub sealed: Vec<u8>,
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
        let json =
            serde_json::to_vec(&text).map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
        let too_large = || EnvelopeError::TooLarge(json.len());
        if json.len() > MAX_ENVELOPE_BYTES {
            return Err(too_large());
        }
        let length = u32::try_from(json.len()).map_err(|_| too_large())?;
        Ok([&length.to_be_bytes()[..], &json].concat())
    }

    /// Reads what follows the length. No signature is checked here.
    pub fn from_json(json: &[u8]) -> Result<Self, EnvelopeError> {
        let malformed = |reason: String| EnvelopeError::Malformed(reason);
        let text: EnvelopeText =
            serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
        Ok(Self {
            decision: from_text(&text.decision)?,
            ticket: from_text(&text.ticket)?,
            sealed: decode(&text.sealed)?,
        })
    }
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
    /// `{"launched":true}`: the request is written and its end is sent.
    Launched(bool),
    /// `{"refused":"…"}`: the cell never got anything.
    Refused(String),
}

impl Control {
    /// The frame's payload.
    pub fn to_json(&self) -> Vec<u8> {
        let (name, value) = match self {
            Self::Launched(launched) => ("launched", serde_json::Value::from(*launched)),
            Self::Refused(reason) => ("refused", serde_json::Value::from(reason.as_str())),
        };
        serde_json::json!({ name: value }).to_string().into_bytes()
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
            sealed: vec![0, 255, 10],
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
    fn controls_are_one_member_each() {
        assert_eq!(Control::Launched(true).to_json(), br#"{"launched":true}"#);
        let refused = Control::Refused("no \"ticket\"".into());
        assert_eq!(Control::from_json(&refused.to_json()).unwrap(), refused);
    }
}
