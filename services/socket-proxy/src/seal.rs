//! Sealing: the files of a plugin become an image that is named by its content from then on.

pub mod collect;
mod image;
mod places;
mod tar;

use std::sync::PoisonError;
use std::time::Duration;

use bailey_types::{Blake3, ImageId, PluginName, Sha256, StackId};
use bytes::Bytes;
use futures::Stream;
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::engine::{self, Engine};
use image::{BASE_LABEL, PLUGIN_LABEL, STACK_LABEL, TREE_LABEL, inspected};
pub use image::{find, inspect};
use tar::measured;

/// How long a whole seal may take.
pub const SEAL_TIME: Duration = Duration::from_mins(10);

const MAX_ENTRYPOINT_PARTS: usize = 64;
const MAX_ENTRYPOINT_BYTES: usize = 4096;

/// Why nothing was sealed, or an image may not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's mistake.
    #[error("{0}")]
    Invalid(String),
    /// The image must not be used.
    #[error("the image {image} is refused: {reason}")]
    Image {
        /// As it was asked for.
        image: String,
        /// Why.
        reason: String,
    },
    /// The tar stopped before its end, or is another than was announced.
    #[error("{0}")]
    Tar(String),
    /// The engine did not do it.
    #[error("{0}")]
    Engine(#[from] engine::Error),
}

/// What is to be sealed.
#[derive(Clone, Debug)]
pub struct Request {
    /// The plugin.
    pub plugin: PluginName,
    /// Reference or id of the base image.
    pub base_image: String,
    /// What starts it.
    pub entrypoint: Vec<String>,
    /// Hash of the tar, to compare.
    pub tar_sha256: Sha256,
    /// For the label.
    pub tree: Blake3,
}

/// What was sealed.
#[derive(Clone, Copy, Debug)]
pub struct Sealed {
    /// The new image.
    pub image: ImageId,
    /// Hash of the tar as it came.
    pub tar_sha256: Sha256,
}

#[derive(Deserialize)]
struct Identified {
    #[serde(rename = "Id")]
    id: String,
}

/// Seals: container from the base image, never started; the tar; an image from both. The container is removed in any case.
pub async fn seal<S>(
    engine: &Engine,
    stack: &StackId,
    request: &Request,
    tar: S,
) -> Result<Sealed, Error>
where
    S: Stream<Item = Result<Bytes, String>> + Send + 'static,
{
    check_entrypoint(&request.entrypoint)?;
    let base = inspected(engine, &request.base_image).await?;
    if base
        .config
        .as_ref()
        .and_then(|config| config.label(BASE_LABEL))
        != Some("true")
    {
        let reason = format!("it is not a base image of ours (label {BASE_LABEL}=true)");
        return Err(Error::Image {
            image: request.base_image.clone(),
            reason,
        });
    }
    let name = format!("{}{}", container_prefix(stack), Uuid::new_v4().simple());
    let body = container_body(&base.id);
    let path = format!("/containers/create?name={name}");
    let made: Identified = engine
        .json(Method::POST, &path, Some(body.to_string().into()))
        .await?;
    let sealed = fill_and_commit(engine, stack, request, &made.id, tar).await;
    let path = format!("/containers/{}?force=1&v=1", made.id);
    let removed = engine.call(Method::DELETE, &path, None).await;
    let sealed = sealed?;
    removed?;
    Ok(sealed)
}

/// How the names of containers that are only sealed from begin.
pub fn container_prefix(stack: &StackId) -> String {
    format!("bailey-{stack}-seal-")
}

/// Removes what an interrupted seal left behind.
pub async fn remove_leftovers(engine: &Engine, stack: &StackId) -> Result<(), engine::Error> {
    // {"name":["^/bailey-<stack>-seal-"]}
    let filters = format!(
        "%7B%22name%22%3A%5B%22%5E%2F{}%22%5D%7D",
        container_prefix(stack)
    );
    let path = format!("/containers/json?all=1&filters={filters}");
    let found: Vec<Identified> = engine.json(Method::GET, &path, None).await?;
    for container in found {
        let path = format!("/containers/{}?force=1&v=1", container.id);
        engine.call(Method::DELETE, &path, None).await?;
        tracing::info!(
            container.id = container.id,
            "removed what an interrupted seal left behind"
        );
    }
    Ok(())
}

fn check_entrypoint(entrypoint: &[String]) -> Result<(), Error> {
    let bytes: usize = entrypoint.iter().map(String::len).sum();
    let whole = entrypoint
        .iter()
        .all(|part| !part.is_empty() && !part.contains('\0'));
    if entrypoint.is_empty()
        || entrypoint.len() > MAX_ENTRYPOINT_PARTS
        || bytes > MAX_ENTRYPOINT_BYTES
        || !whole
    {
        return Err(Error::Invalid(format!(
            "an entrypoint has 1 to {MAX_ENTRYPOINT_PARTS} parts, none empty, and at most {MAX_ENTRYPOINT_BYTES} bytes"
        )));
    }
    Ok(())
}

/// It never runs. The engine copies its labels into the image, so it has none of a container's.
fn container_body(base: &ImageId) -> Value {
    json!({
        "Image": base,
        "Entrypoint": ["/nothing"],
        "Cmd": [],
        "NetworkDisabled": true,
        "HostConfig": { "NetworkMode": "none", "CapDrop": ["ALL"], "LogConfig": { "Type": "none", "Config": {} } },
    })
}

async fn fill_and_commit<S>(
    engine: &Engine,
    stack: &StackId,
    request: &Request,
    container: &str,
    tar: S,
) -> Result<Sealed, Error>
where
    S: Stream<Item = Result<Bytes, String>> + Send + 'static,
{
    let upload = format!("/containers/{container}/archive?path=/&noOverwriteDirNonDir=1");
    let (tar, outcome) = measured(tar);
    let body = StreamBody::new(tar).boxed_unsync();
    let uploaded = engine.upload(&upload, body).await;
    let outcome = outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let tar_sha256 = match outcome {
        Some(Ok(hash)) => hash,
        // Says more than the engine's "unexpected EOF".
        Some(Err(reason)) => return Err(Error::Tar(reason)),
        None => {
            uploaded?;
            return Err(Error::Tar(
                "the engine did not read the tar to its end".into(),
            ));
        }
    };
    uploaded?;
    if tar_sha256 != request.tar_sha256 {
        return Err(Error::Tar(
            "the tar is not the one that was announced: its SHA-256 differs".into(),
        ));
    }
    if let Err(reason) = places::check(engine, container).await? {
        return Err(Error::Tar(reason));
    }
    let image = commit(engine, stack, request, container).await?;
    Ok(Sealed { image, tar_sha256 })
}

/// The configuration goes as the body: as `changes` it would be text of a Dockerfile, in which an entrypoint can say more than it should.
async fn commit(
    engine: &Engine,
    stack: &StackId,
    request: &Request,
    container: &str,
) -> Result<ImageId, Error> {
    let (plugin, tree) = (&request.plugin, request.tree.to_string());
    let config = json!({
        "Entrypoint": request.entrypoint,
        "Cmd": [],
        "WorkingDir": "/",
        "User": "",
        "Healthcheck": { "Test": ["NONE"] },
        // The base's own label would come along; a sealed image is no base.
        "Labels": { BASE_LABEL: "false", PLUGIN_LABEL: plugin, TREE_LABEL: tree, STACK_LABEL: stack },
    });
    // A tag keeps `docker image prune` away; nothing is ever started by it.
    let tag = format!("{stack}-{plugin}-{}", tree.get(..16).unwrap_or(&tree));
    let path = format!("/commit?container={container}&pause=0&repo=bailey/sealed&tag={tag}");
    let made: Identified = engine
        .json(Method::POST, &path, Some(config.to_string().into()))
        .await?;
    let inspected = inspected(engine, &made.id).await?;
    Ok(inspected.id)
}
