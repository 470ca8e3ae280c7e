//! New state volumes are root's; a plugin is not.

use std::sync::PoisonError;

use bailey_cell::{Cell, HOME, STATE};
use bailey_trust::StateKind;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Proxy;
use crate::engine::{self, Engine};
use crate::seal::container_prefix;

/// Where the cell's state is mounted, if nothing has made that place writable for the plugin: our base images have, an image by reference may not.
pub(super) fn closed(cell: &Cell<'_>) -> Option<&'static str> {
    if cell.locked.proposed.base.is_some() {
        return None;
    }
    match cell.state() {
        StateKind::None => None,
        StateKind::Data => Some(STATE),
        StateKind::Home => Some(HOME),
    }
}

impl Proxy {
    /// Lets everybody write to the volume that `body` mounts at `place`: only cells of one plugin ever see it. Done once for each volume in each
    /// life of this proxy, so that one in which it ended halfway is seen to.
    pub(super) async fn open_state(&self, body: &Value, place: &str) -> Result<(), engine::Error> {
        let mounts = body.pointer("/HostConfig/Mounts").and_then(Value::as_array);
        let at_place = |mount: &&Value| mount.get("Target").and_then(Value::as_str) == Some(place);
        let Some(mount) = mounts.and_then(|mounts| mounts.iter().find(at_place)) else {
            return Ok(());
        };
        let volume = mount.get("Source").and_then(Value::as_str);
        let volume = volume.unwrap_or_default();
        let known = || self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known().contains(volume);
        if before && exists(self.engine(), volume).await? {
            return Ok(());
        }
        // It never runs. Named as what is sealed from, so that it is removed in the next life if this one ends here.
        let maker = json!({
            "Image": body.get("Image"),
            "Entrypoint": ["/nothing"],
            "Cmd": [],
            "NetworkDisabled": true,
            "HostConfig": {
                "NetworkMode": "none", "CapDrop": ["ALL"], "LogConfig": { "Type": "none", "Config": {} }, "Mounts": [mount],
            },
        });
        open(self.engine(), &container_prefix(&self.stack), &maker, place).await?;
        known().insert(volume.to_owned());
        Ok(())
    }
}

pub(super) async fn exists(engine: &Engine, volume: &str) -> Result<bool, engine::Error> {
    let path = format!("/volumes/{volume}");
    match engine.json::<IgnoredAny>(Method::GET, &path, None).await {
        Ok(IgnoredAny) => Ok(true),
        Err(engine::Error::Answered {
            status: StatusCode::NOT_FOUND,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn open(
    engine: &Engine,
    prefix: &str,
    maker: &Value,
    place: &str,
) -> Result<(), engine::Error> {
    #[derive(Deserialize)]
    struct Made {
        #[serde(rename = "Id")]
        id: String,
    }

    let path = format!(
        "/containers/create?name={prefix}{}",
        Uuid::new_v4().simple()
    );
    let made = engine.json(Method::POST, &path, Some(maker.to_string().into()));
    let Made { id } = made.await?;
    let path = format!("/containers/{id}/archive?path=/");
    let opened = match folder(place) {
        Ok(tar) => engine.upload(&path, engine::full(tar.into())).await,
        Err(error) => Err(engine::Error::Unreadable(error.to_string())),
    };
    let path = format!("/containers/{id}?force=1&v=1");
    let removed = engine.call(Method::DELETE, &path, None).await;
    opened?;
    removed.map(drop)
}

/// A tar of one folder that anybody may write to. The engine leaves out an entry for the very folder that it unpacks into.
fn folder(place: &str) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o777);
    header.set_size(0);
    let mut tar = tar::Builder::new(Vec::new());
    let place = place.trim_start_matches('/');
    tar.append_data(&mut header, place, std::io::empty())?;
    tar.into_inner()
}
