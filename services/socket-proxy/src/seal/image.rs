//! Images as they are found: what they may not bring along.

use bailey_types::ImageId;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Error;
use crate::engine::Engine;

/// Base images of ours say so.
pub const BASE_LABEL: &str = "bailey.image.base";
/// The plugin that was sealed.
pub const PLUGIN_LABEL: &str = "bailey.image.plugin";
/// Its tree hash.
pub const TREE_LABEL: &str = "bailey.image.tree";

/// The stack that sealed it.
pub const STACK_LABEL: &str = "bailey.image.stack";

/// Longest reference or id of an image.
const MAX_REFERENCE_BYTES: usize = 256;

#[derive(Deserialize)]
pub(super) struct Inspected {
    #[serde(rename = "Id")]
    pub(super) id: ImageId,
    #[serde(rename = "Config")]
    pub(super) config: Option<Config>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    labels: Option<Map<String, Value>>,
    volumes: Option<Map<String, Value>>,
    on_build: Option<Vec<String>>,
}

impl Config {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name)?.as_str()
    }
}

/// Checks an image that is used by reference, and answers its id.
pub async fn inspect(engine: &Engine, image: &str) -> Result<ImageId, Error> {
    inspected(engine, image).await.map(|inspected| inspected.id)
}

/// The id of an image of ours, whatever it brings along: we have built it.
pub async fn find(engine: &Engine, image: &str) -> Result<ImageId, Error> {
    read(engine, image).await.map(|inspected| inspected.id)
}

async fn read(engine: &Engine, image: &str) -> Result<Inspected, Error> {
    let path = format!("/images/{}/json", reference(image)?);
    Ok(engine.json(Method::GET, &path, None).await?)
}

pub(super) async fn inspected(engine: &Engine, image: &str) -> Result<Inspected, Error> {
    let inspected = read(engine, image).await?;
    if let Some(config) = &inspected.config {
        let refused = |reason| Error::Image {
            image: image.to_owned(),
            reason,
        };
        check(config).map_err(refused)?;
    }
    Ok(inspected)
}

/// What an image may not bring along: places of its own to write, steps for later builds, and names that are ours.
fn check(config: &Config) -> Result<(), String> {
    if config
        .volumes
        .as_ref()
        .is_some_and(|volumes| !volumes.is_empty())
    {
        return Err("it declares volumes (VOLUME)".into());
    }
    if config
        .on_build
        .as_ref()
        .is_some_and(|steps| !steps.is_empty())
    {
        return Err("it has build triggers (ONBUILD)".into());
    }
    let ours = [BASE_LABEL, PLUGIN_LABEL, TREE_LABEL, STACK_LABEL];
    let names = config.labels.iter().flat_map(Map::keys);
    let mut foreign =
        names.filter(|name| name.starts_with("bailey.") && !ours.contains(&name.as_str()));
    match foreign.next() {
        Some(name) => Err(format!(
            "it carries the label {name}, which only containers of Bailey have"
        )),
        None => Ok(()),
    }
}

/// A reference that is one path segment or several, and nothing else, in a URL.
fn reference(image: &str) -> Result<&str, Error> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"/:@._-".contains(&b);
    let clean = image.bytes().all(known)
        && image
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
    let plain =
        !image.contains("..") && !image.contains("//") && image.len() <= MAX_REFERENCE_BYTES;
    if clean && plain {
        return Ok(image);
    }
    Err(Error::Invalid(
        "that is not a reference or id of an image".into(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(json: Value) -> Config {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_image_with_more_than_files_is_refused() {
        assert_eq!(
            check(&config(
                json!({ "Volumes": null, "OnBuild": null, "Labels": null })
            )),
            Ok(())
        );
        let ours = json!({ "Labels": { BASE_LABEL: "true", "maintainer": "x" }, "Volumes": {}, "OnBuild": [] });
        assert_eq!(check(&config(ours)), Ok(()));
        for refused in [
            json!({ "Volumes": { "/data": {} } }),
            json!({ "OnBuild": ["RUN x"] }),
            json!({ "Labels": { "bailey.kind": "cell" } }),
            json!({ "Labels": { "bailey.stack": "home" } }),
        ] {
            assert!(check(&config(refused.clone())).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_reference_cannot_leave_its_place_in_the_path() {
        for fine in [
            "bailey/base-python:current",
            "sha256:ab",
            "host:5000/a/b@sha256:ab",
            "a",
        ] {
            assert!(reference(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "",
            "../containers/json",
            "a/../b",
            "a?b=c",
            "a%2fb",
            "/a",
            "a//b",
            "a b",
            "a#b",
        ] {
            assert!(reference(wrong).is_err(), "{wrong}");
        }
    }
}
