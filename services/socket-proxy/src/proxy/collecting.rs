//! Tidying up in the engine after a lock has changed.

use std::collections::BTreeSet;
use std::time::Duration;

use bailey_types::ImageId;
use serde_json::json;

use super::Proxy;
use crate::error::Error;
use crate::seal::collect;

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Sealed images.
    pub images: Vec<ImageId>,
    /// State volumes, by name.
    pub volumes: Vec<String>,
}

impl Proxy {
    /// Removes sealed images older than `age` that neither the lock nor a container of this stack names, and state of generations that the
    /// lock has left.
    pub async fn collect(&self, age: Duration) -> Result<Collected, Error> {
        // Without a lock nothing is known to be of no use.
        let loaded = self.lock().map_err(Error::NotNow)?;
        self.relist().await?;
        let locked = loaded.lock.plugins.values();
        let locked = locked.map(|locked| locked.proposed.image);
        let keep: BTreeSet<ImageId> = locked.chain(self.registry.images()).collect();
        let until = self.parts.clock.now().minus(age);
        let collected = Collected {
            images: collect::images(self.engine(), &self.stack, &keep, until).await?,
            volumes: collect::volumes(self.engine(), &self.stack, &loaded.lock).await?,
        };
        let (images, volumes) = (&collected.images, &collected.volumes);
        if !images.is_empty() || !volumes.is_empty() {
            let (image_count, volume_count) = (images.len(), volumes.len());
            tracing::info!(
                "removed {image_count} sealed images and {volume_count} state volumes that nothing names"
            );
            let fields =
                json!({ "images": images, "volumes": volumes, "lock": loaded.lock.serial });
            self.audit().record("images.collected", fields, false);
        }
        Ok(collected)
    }
}
