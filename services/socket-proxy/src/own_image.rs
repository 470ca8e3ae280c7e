//! Which image this very process runs from: the engine knows, the process knows only its container's id.

use bailey_types::ImageId;
use http::Method;
use serde::Deserialize;

use crate::engine::Engine;
use crate::error::Error;

#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "Image")]
    image: ImageId,
}

/// The image of the container that this process runs in.
pub async fn find(engine: &Engine) -> Result<ImageId, Error> {
    let mounts = tokio::fs::read_to_string("/proc/self/mountinfo")
        .await
        .unwrap_or_default();
    let id = container_id(&mounts).ok_or_else(|| {
        Error::NotNow("this process does not run in a container; give it --probe-image".into())
    })?;
    let path = format!("/containers/{id}/json");
    let inspected: Inspected = engine.json(Method::GET, &path, None).await?;
    Ok(inspected.image)
}

/// The engine mounts `/etc/hostname` and others from a folder that is named by the container's id.
fn container_id(mounts: &str) -> Option<&str> {
    let named = mounts
        .lines()
        .filter(|line| line.contains(" /etc/hostname "));
    let mut ids = named.filter_map(|line| {
        let (_, rest) = line.split_once("/containers/")?;
        let id = rest.get(..64)?;
        id.bytes().all(|b| b.is_ascii_hexdigit()).then_some(id)
    });
    ids.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_named_by_the_mount_of_its_host_name() {
        let id = "3f".repeat(32);
        let mounts = format!(
            "690 688 0:26 / /sys ro - sysfs sysfs ro\n\
             701 688 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname ro,relatime - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(container_id(&mounts), Some(id.as_str()));
        assert_eq!(
            container_id("690 688 0:26 / / rw - ext4 /dev/sda1 rw"),
            None
        );
    }
}
