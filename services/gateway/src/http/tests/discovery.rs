//! What the front door names.

use std::collections::BTreeSet;

use http::StatusCode;

use super::calls::World;
use super::described;
use crate::http::page::DISCOVERY;

#[test]
fn everything_that_can_be_read_without_a_name_is_named_at_the_front_door() {
    let (_, api) = described().split_for_parts();
    let paths = api.paths.paths.iter();
    let readable = paths.filter(|(path, item)| item.get.is_some() && !path.contains('{'));
    let mut readable: BTreeSet<&str> = readable.map(|(path, _)| path.as_str()).collect();
    // It does not describe itself.
    readable.insert("/openapi.json");
    let named: BTreeSet<&str> = DISCOVERY.iter().map(|(_, path)| *path).collect();
    assert_eq!(named, readable);
}

#[tokio::test]
async fn what_the_front_door_names_is_there() {
    let world = World::new();
    let (status, index) = world.ask("GET", "/", None).await;
    assert_eq!(status, StatusCode::OK);
    let named = index["discovery"].as_object().unwrap();
    assert_eq!(named.len(), DISCOVERY.len());
    assert_eq!(named["upstreams"], "/upstreams");
    for path in named.values() {
        let (status, answer) = world.ask("GET", path.as_str().unwrap(), None).await;
        // Health is for everybody; the rest wants a token, and says so.
        let expected = if path == "/healthz" {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(status, expected, "{path}: {answer}");
    }
}
