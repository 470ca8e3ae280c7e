//! The tar on its way through: hashed, bounded, never kept.

use std::sync::{Arc, Mutex, PoisonError};

use bailey_types::Sha256;
use bytes::Bytes;
use futures::Stream;
use hyper::body::Frame;
use sha2::Digest as _;

/// Largest tar.
pub(super) const MAX_TAR_BYTES: u64 = 512 << 20;

/// What became of the tar; `None` until its end was read.
pub(super) type Outcome = Arc<Mutex<Option<Result<Sha256, String>>>>;
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Hashes and bounds the tar as it passes; the outcome is there when its end was read.
pub(super) fn measured<S>(
    tar: S,
) -> (
    impl Stream<Item = Result<Frame<Bytes>, BodyError>> + Send,
    Outcome,
)
where
    S: Stream<Item = Result<Bytes, String>> + Send + 'static,
{
    let outcome = Outcome::default();
    let state = (
        Box::pin(tar),
        sha2::Sha256::new(),
        0_u64,
        Arc::clone(&outcome),
    );
    let stream = futures::stream::unfold(Some(state), |state| async move {
        let (mut tar, hasher, size, outcome) = state?;
        let end = |outcome: &Outcome, result| {
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        };
        match futures::StreamExt::next(&mut tar).await {
            None => {
                end(&outcome, Ok(Sha256(hasher.finalize().into())));
                None
            }
            Some(Err(reason)) => {
                end(&outcome, Err(reason.clone()));
                Some((Err(BodyError::from(reason)), None))
            }
            Some(Ok(chunk)) => {
                let size = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
                if size > MAX_TAR_BYTES {
                    let reason = format!("the tar is larger than {MAX_TAR_BYTES} bytes");
                    end(&outcome, Err(reason.clone()));
                    return Some((Err(BodyError::from(reason)), None));
                }
                let hasher = hasher.chain_update(&chunk);
                Some((Ok(Frame::data(chunk)), Some((tar, hasher, size, outcome))))
            }
        }
    });
    (stream, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tar_is_hashed_as_it_passes_and_its_error_is_kept() {
        let chunks = [Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"bc"))];
        let (stream, outcome) = measured(futures::stream::iter(chunks));
        let passed: Vec<_> = futures::StreamExt::collect(stream).await;
        assert_eq!(passed.len(), 2);
        assert_eq!(
            outcome.lock().unwrap().take().unwrap().unwrap(),
            Sha256::of(b"abc")
        );

        let broken = [
            Ok(Bytes::from_static(b"a")),
            Err("gone".to_owned()),
            Ok(Bytes::new()),
        ];
        let (stream, outcome) = measured(futures::stream::iter(broken));
        let passed: Vec<_> = futures::StreamExt::collect(stream).await;
        assert!(passed.len() == 2 && passed[1].is_err());
        assert_eq!(
            outcome.lock().unwrap().take().unwrap(),
            Err("gone".to_owned())
        );
    }
}
