//! Takes away what earlier locks left in the engine: sealed images that nothing names any more, and state that was reset.

use std::collections::{BTreeMap, BTreeSet};

use bailey_cell::{label, state_volume, volume_label};
use bailey_trust::Lock;
use bailey_types::{ImageId, PluginName, StackId, Timestamp};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::image::{BASE_LABEL, STACK_LABEL};
use crate::engine::{self, Engine};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: ImageId,
    /// Seconds.
    created: i64,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    volumes: Option<Vec<Volume>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
    labels: Option<BTreeMap<String, String>>,
}

/// Removes the images that `stack` sealed before `until` and that are not among `keep`.
pub async fn images(
    engine: &Engine,
    stack: &StackId,
    keep: &BTreeSet<ImageId>,
    until: Timestamp,
) -> Result<Vec<ImageId>, engine::Error> {
    // {"label":["bailey.image.stack=<stack>"]}
    let path =
        format!("/images/json?filters=%7B%22label%22%3A%5B%22{STACK_LABEL}%3D{stack}%22%5D%7D");
    let found: Vec<Image> = engine.json(Method::GET, &path, None).await?;
    let mut removed = Vec::new();
    for image in found {
        let labels = image.labels.unwrap_or_default();
        // The label may come from a base that somebody made of a sealed image; that is no seal of ours.
        let sealed = labels.get(BASE_LABEL).is_some_and(|base| base == "false");
        let old = image.created.saturating_mul(1000) <= until.0;
        if !sealed || !old || keep.contains(&image.id) {
            continue;
        }
        // Of the layers below it, the base is none of ours to remove.
        let path = format!("/images/{}?noprune=1", image.id);
        if gone(engine.call(Method::DELETE, &path, None).await.map(drop))? {
            removed.push(image.id);
        }
    }
    Ok(removed)
}

/// Removes state volumes of `stack` whose plugin has a newer one under `lock`. That of a plugin which is not locked now may be wanted again.
pub async fn volumes(
    engine: &Engine,
    stack: &StackId,
    lock: &Lock,
) -> Result<Vec<String>, engine::Error> {
    // {"label":["bailey.stack=<stack>","bailey.volume=state"]}
    let (of, purpose, state) = (label::STACK, volume_label::PURPOSE, volume_label::STATE);
    let path = format!(
        "/volumes?filters=%7B%22label%22%3A%5B%22{of}%3D{stack}%22%2C%22{purpose}%3D{state}%22%5D%7D"
    );
    let found: Volumes = engine.json(Method::GET, &path, None).await?;
    let mut removed = Vec::new();
    for volume in found.volumes.unwrap_or_default() {
        if !is_left(stack, lock, &volume) {
            continue;
        }
        let path = format!("/volumes/{}", volume.name);
        if gone(engine.call(Method::DELETE, &path, None).await.map(drop))? {
            removed.push(volume.name);
        }
    }
    Ok(removed)
}

fn is_left(stack: &StackId, lock: &Lock, volume: &Volume) -> bool {
    let label = |name: &str| volume.labels.as_ref()?.get(name);
    let plugin: Option<PluginName> = label(label::PLUGIN).and_then(|name| name.parse().ok());
    let generation: Option<u32> =
        label(volume_label::GENERATION).and_then(|number| number.parse().ok());
    let (Some(plugin), Some(generation)) = (plugin, generation) else {
        return false;
    };
    let newer = lock.plugins.get(&plugin);
    newer.is_some_and(|locked| locked.state_generation > generation)
        && volume.name == state_volume(stack, &plugin, generation)
}

/// Whether it was removed. What a container still uses, or what has another name too, stays, and is looked at again the next time.
fn gone(answer: Result<(), engine::Error>) -> Result<bool, engine::Error> {
    match answer {
        Ok(()) => Ok(true),
        Err(engine::Error::Answered {
            status: StatusCode::CONFLICT | StatusCode::NOT_FOUND,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}
