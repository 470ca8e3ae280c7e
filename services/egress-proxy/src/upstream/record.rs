//! What is recorded of an exchange: who, with whom, how much, and what ended it; never the path, a header or a byte of a body.

use std::sync::Arc;
use std::time::Instant;

use bailey_mesh::Auditor;
use bailey_redact::Found;
use bailey_types::{Service, UpstreamName};
use http::{Extensions, Method};
use hyper_util::client::legacy::connect::CaptureConnection;
use serde_json::json;

use super::connect::Line;
use super::failure::Why;
use super::outgoing::Progress;

/// The record of one exchange. Written when it is dropped, in whatever way that comes about, and after the exchange has ended: what it sent, and
/// the connection that it did not use to the end.
pub(crate) struct Record {
    pub(crate) auditor: Auditor,
    pub(crate) upstream: UpstreamName,
    pub(crate) client: Service,
    /// Who had the client ask, if it is a check.
    pub(crate) principal: Option<String>,
    /// Host and port.
    pub(crate) host: String,
    pub(crate) method: Method,
    /// Unset until the request was handed over.
    pub(crate) connection: Option<CaptureConnection>,
    pub(crate) progress: Arc<Progress>,
    /// When a request that holds the key was about to be handed to a connection.
    pub(crate) keyed: Option<Instant>,
    pub(crate) status: Option<u16>,
    pub(crate) received_bytes: u64,
    /// How often the key came back: in the head, in the body so far.
    pub(crate) returned: [u64; 2],
    pub(crate) began: Instant,
    /// Why it ended early. Until it is known to have ended well: because nobody waits for it any more.
    pub(crate) cut: Option<String>,
    /// It did not begin, and has a record of its own as a refusal.
    pub(crate) refused: bool,
}

impl Record {
    /// The exchange is over.
    pub(crate) fn ended(&mut self, end: Result<(), &Why>) {
        self.cut = end.err().map(ToString::to_string);
    }

    /// Takes down what was found in the head, before it is handed on without it.
    pub(crate) fn in_head(&mut self, found: &[Found]) {
        self.alert("head", found);
        let [head, _] = &mut self.returned;
        *head = found.iter().map(|found| found.count).sum();
    }

    /// The same of the body, as news of its scrubber.
    pub(crate) fn in_body(&mut self, news: &[Found]) {
        self.alert("body", news);
        let [_, body] = &mut self.returned;
        // One key is looked for, and its count is of the whole stream.
        *body = news.last().map_or(*body, |found| found.count);
    }

    /// Says that the key came back, once for an exchange.
    fn alert(&self, part: &str, found: &[Found]) {
        let Some(Found { secret, .. }) = found.first().filter(|_| self.returned == [0, 0]) else {
            return;
        };
        let (upstream, host) = (&self.upstream, &self.host);
        tracing::error!(
            upstream.name = %upstream,
            secret.name = %secret,
            egress.host = host,
            caller.id = self.client.name(),
            "the upstream {upstream} sent its key {secret} back in the {part} of an answer, where it was taken out: find out why, and replace the key"
        );
        let fields = json!({
            "upstream": upstream,
            "client": self.client.name(),
            "secret": secret,
            "host": host,
            "part": part,
        });
        self.auditor.append("upstream.key_returned", &fields);
    }

    /// The connection that was used.
    fn line(&self) -> Option<Line> {
        let connected = self.connection.as_ref()?.connection_metadata();
        let mut extensions = Extensions::new();
        connected.as_ref()?.get_extras(&mut extensions);
        extensions.remove()
    }
}

/// Whether a byte of a request that holds the key was handed to the connection. Before there is one, and while it only shakes hands, none was.
fn key_sent(keyed: Option<Instant>, line: Option<&Line>) -> bool {
    keyed
        .zip(line)
        .is_some_and(|(keyed, line)| line.wrote_since(keyed))
}

/// Ends what an exchange sends. An answer may be whole before the request is: without this the connection's driver would go on with it, unseen and
/// unbounded.
fn end(progress: &Progress, line: Option<&Line>, ended_well: bool) {
    let whole = progress.end();
    if let Some(line) = line
        && !(ended_well && whole && !line.waits())
    {
        line.cut();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let line = self.line();
        end(&self.progress, line.as_ref(), self.cut.is_none());
        if self.refused {
            return;
        }
        let (upstream, client, host) = (&self.upstream, self.client.name(), &self.host);
        let (sent, received) = (self.progress.sent_bytes(), self.received_bytes);
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            upstream.name = %upstream,
            caller.id = client,
            egress.host = host,
            egress.sent_bytes = sent,
            egress.received_bytes = received,
            http.method = self.method.as_str(),
            http.status = self.status,
            duration_ms = millis,
            "an exchange of {client} with the upstream {upstream} has ended{}{}",
            if self.cut.is_some() { ": " } else { "" },
            self.cut.as_deref().unwrap_or_default(),
        );
        let fields = json!({
            "upstream": upstream,
            "client": client,
            "principal": self.principal,
            "host": host,
            "address": line.as_ref().map(|line| line.address.to_string()),
            "method": self.method.as_str(),
            "status": self.status,
            "key_sent": key_sent(self.keyed, line.as_ref()),
            "key_returned": self.returned.iter().sum::<u64>(),
            "sent_bytes": sent,
            "received_bytes": received,
            "duration_ms": millis,
            "cut": self.cut,
        });
        self.auditor.append("upstream.closed", &fields);
    }
}
