//! Sealing: the files of a plugin become an image that is named by its content.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Context as _, ensure};
use bailey_plugin::tree::Tree;
use bailey_proto::management::v1::seal_request::Message;
use bailey_proto::management::v1::seal_service_client::SealServiceClient;
use bailey_proto::management::v1::{InspectImageRequest, SealHeader, SealRequest};
use bailey_types::{ImageId, PluginName, Sha256};
use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::home::Home;
use crate::manage::{self, refused};

/// Bytes of the tar in one message, and messages on the way.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: usize = 4;

/// A sealed tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub(super) image: ImageId,
    pub(super) tar_sha256: Sha256,
}

/// What is to be sealed.
pub(super) struct Wanted<'a> {
    pub(super) plugin: &'a PluginName,
    pub(super) base: ImageId,
    pub(super) entrypoint: &'a [String],
    pub(super) tree: &'a Tree,
}

/// The sealing call of socket-proxy, with what it answered before.
pub(super) struct Sealer {
    client: SealServiceClient<Channel>,
    images: BTreeMap<String, Option<ImageId>>,
}

impl Sealer {
    pub(super) async fn connect(home: &Home) -> anyhow::Result<Self> {
        let client = SealServiceClient::new(manage::connect(home, "socket-proxy").await?);
        Ok(Self {
            client,
            images: BTreeMap::new(),
        })
    }

    /// The id of an image, if the engine has it.
    pub(super) async fn image(&mut self, reference: &str) -> anyhow::Result<Option<ImageId>> {
        if let Some(known) = self.images.get(reference) {
            return Ok(*known);
        }
        let request = InspectImageRequest {
            image: reference.to_owned(),
        };
        let id = match self.client.inspect_image(request).await {
            Ok(answer) => Some(answer.into_inner().image_id.parse::<ImageId>()?),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => {
                return Err(refused("socket-proxy")(status))
                    .with_context(|| format!("looking at the image {reference}"));
            }
        };
        self.images.insert(reference.to_owned(), id);
        Ok(id)
    }

    /// Seals, and checks that what was sealed is what was read.
    pub(super) async fn seal(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<Sealed> {
        let tar_sha256 = hash(wanted.tree)?;
        let header = SealHeader {
            plugin: wanted.plugin.to_string(),
            base_image: wanted.base.to_string(),
            entrypoint: wanted.entrypoint.to_vec(),
            tar_sha256: tar_sha256.0.to_vec().into(),
            tree_blake3: wanted.tree.blake3.0.to_vec().into(),
        };
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let tree = wanted.tree.clone();
        let writing = tokio::task::spawn_blocking(move || send(&tree, header, sender));
        let answered = self.client.seal(ReceiverStream::new(receiver)).await;
        // If the tar could not be made, that is the reason; the proxy has only seen its end.
        writing.await.context("making the tar")??;
        let answer = answered.map_err(refused("socket-proxy"))?.into_inner();
        ensure!(
            answer.tar_sha256.as_ref() == tar_sha256.0,
            "socket-proxy sealed another tar than it was sent"
        );
        Ok(Sealed {
            image: answer.image_id.parse()?,
            tar_sha256,
        })
    }
}

fn hash(tree: &Tree) -> anyhow::Result<Sha256> {
    let mut hasher = sha2::Sha256::new();
    tree.write_tar(&mut hasher)?;
    Ok(Sha256(hasher.finalize().into()))
}

/// The header, then the tar. A receiver that has gone away has said why in its answer.
fn send(tree: &Tree, header: SealHeader, sender: mpsc::Sender<SealRequest>) -> anyhow::Result<()> {
    let message = SealRequest {
        message: Some(Message::Header(header)),
    };
    if sender.blocking_send(message).is_err() {
        return Ok(());
    }
    let mut chunks = Chunks {
        buffer: Vec::with_capacity(CHUNK_BYTES),
        sender,
        gone: false,
    };
    match tree.write_tar(&mut chunks) {
        Err(_) if chunks.gone => Ok(()),
        other => Ok(other?),
    }
}

struct Chunks {
    buffer: Vec<u8>,
    sender: mpsc::Sender<SealRequest>,
    gone: bool,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        let message = SealRequest {
            message: Some(Message::Chunk(chunk)),
        };
        self.sender.blocking_send(message).map_err(|_| {
            self.gone = true;
            io::Error::from(io::ErrorKind::BrokenPipe)
        })
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            self.send()
        }
    }
}
