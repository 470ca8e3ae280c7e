//! What the Docker Engine can do, and what is left behind in it: both asked of socket-proxy.

use bailey_config::Config;
use bailey_proto::management::v1::engine_service_client::EngineServiceClient;
use bailey_proto::management::v1::{CollectRequest, DescribeEngineRequest};

use crate::home::Home;
use crate::manage::{self, refused};
use crate::output::count;

/// An image that was sealed just now may be named by a lock that somebody is about to sign.
const KEPT_SECONDS: u32 = 600;

/// The engine's OCI runtimes, if the configuration names one.
pub(super) async fn runtimes(home: &Home, config: &Config) -> anyhow::Result<Option<Vec<String>>> {
    let mut accounts = config.accounts.values();
    let mut plugins = config.plugins.values();
    let named = accounts.any(|account| account.runtime.is_some())
        || plugins.any(|plugin| plugin.container.runtime.is_some());
    if !named {
        return Ok(None);
    }
    let mut client = EngineServiceClient::new(manage::connect(home, "socket-proxy").await?);
    let described = client.describe_engine(DescribeEngineRequest {}).await;
    let described = described.map_err(refused("socket-proxy"))?.into_inner();
    Ok(Some(described.runtimes))
}

/// Removes what only earlier locks name. The new lock is in force whether this succeeds or not, so a failure is told and no more.
pub(super) async fn tidy(home: &Home) {
    match collect(home).await {
        Ok((0, 0)) => {}
        Ok((images, volumes)) => {
            let (images, volumes) = (count(images, "image"), count(volumes, "volume"));
            eprintln!("removed {images} and {volumes} of earlier locks");
        }
        Err(e) => eprintln!(
            "! images of earlier locks were not removed ({e:#}); the next lock tries again"
        ),
    }
}

async fn collect(home: &Home) -> anyhow::Result<(usize, usize)> {
    let mut client = EngineServiceClient::new(manage::connect(home, "socket-proxy").await?);
    let request = CollectRequest {
        older_than_seconds: KEPT_SECONDS,
    };
    let removed = client.collect(request).await;
    let removed = removed.map_err(refused("socket-proxy"))?.into_inner();
    Ok((removed.image_ids.len(), removed.volumes.len()))
}
