//! Asks the audit log whether the vault that was opened is the vault of now (the rules: `vault::proven`).
//!
//! The log may be away when the broker starts, and the stack must start all the same. Nothing secret leaves without the log's record anyway, so it
//! is asked before the first thing is given: until it answers, the vault gives nothing and knows no token. One task asks; whoever wants something
//! waits for it, for a bounded time: a log can be long, and a caller that goes away must not have it begin anew.

use std::time::Duration;

use tonic::Code;

use crate::record::{Looked, NotRecorded, Record, Unknown};
use crate::state::State;
use crate::vault::{Document, Mark, Verdict};

/// Longest that anybody waits for the comparison.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Waits until a vault that was opened is compared with the audit log, or it is clear that it cannot be now.
pub async fn awaited(state: &State) -> Result<(), NotRecorded> {
    if state.vault.unproven().is_none() {
        return Ok(());
    }
    let mut rounds = state.rounds.subscribe();
    state.news.notify_one();
    if state.vault.unproven().is_some() {
        // Too late or in vain: the vault has the reason.
        let _heard = tokio::time::timeout(LONGEST_WAIT, rounds.changed()).await;
    }
    match state.vault.unproven() {
        None => Ok(()),
        Some(_) => Err(NotRecorded::NotCompared(state.vault.why_unproven())),
    }
}

/// As [`awaited`], for whoever has another way to say that it could not be done.
pub async fn tried(state: &State) {
    if let Err(e) = awaited(state).await {
        tracing::debug!(error = %e, "the vault was not compared with the audit log yet");
    }
}

/// Has a vault that was opened compared with the audit log, unless it was.
pub async fn compare(state: &State) {
    if let Some(document) = state.vault.unproven() {
        let mut looked = state.proving.lock().await;
        match compared(state, &document, &mut looked).await {
            Ok(verdict) => {
                *looked = 0;
                settle(state, &document, verdict).await;
            }
            Err(unknown) => state.vault.not_compared(why(&unknown)),
        }
    }
    state.rounds.send_modify(|rounds| *rounds += 1);
}

async fn settle(state: &State, document: &Document, verdict: Verdict) {
    if let Verdict::Earlier { known } = verdict {
        let found = document.told_until();
        tracing::error!(
            vault.revision = found,
            vault.known = known,
            "an earlier vault was put in place: nothing is given from it"
        );
        let fields = serde_json::json!({ "known": known, "found": found });
        let alarm = Record::new("vault.earlier_refused", fields);
        state.records.alarm(alarm);
    }
    // Beside a change that is worked out and not done yet, the vault is not numbered anew: that change would be on top of another.
    let _alone = state.changing.lock().await;
    // Told anew in each life, it is found soon in the next.
    state.records.forget_kept();
    state.vault.settle(document, verdict);
}

fn why(unknown: &Unknown) -> String {
    let asked = "the audit log, which tells whether this is the vault of now,";
    match unknown {
        Unknown::NotOnTheMesh => format!("{asked} did not answer yet"),
        Unknown::NotTold(status)
            if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) =>
        {
            format!("{asked} did not answer yet: {}", status.message())
        }
        Unknown::NotTold(status) => format!(
            "{asked} cannot say so: {} (docs/how-to/recovery.md)",
            status.message()
        ),
    }
}

/// What follows from the log. `looked`: from there on it was looked through before, and had no mark (0: it was not).
async fn compared(
    state: &State,
    document: &Document,
    looked: &mut u64,
) -> Result<Verdict, Unknown> {
    let Some((_, last)) = latest(state, &Mark::kinds(), looked).await? else {
        return Ok(Verdict::Present);
    };
    if document.continues(&last) {
        return Ok(Verdict::Present);
    }
    let known = last.revision;
    // Those that the log has were done before: then this is a copy from the time when they waited.
    let (mut fresh, mut before) = (document.takeovers(), 0);
    while !fresh.is_empty()
        && let Some((index, told)) = latest(state, &Mark::takeovers(), &mut before).await?
    {
        fresh.retain(|deed| !told.is_of(deed));
        if index == 0 {
            break;
        }
        before = index;
    }
    Ok(if fresh.is_empty() {
        Verdict::Earlier { known }
    } else {
        Verdict::Another { after: known }
    })
}

/// The newest entry of ours of one of `kinds` before the index `before` (0: of all), and its index.
async fn latest(
    state: &State,
    kinds: &[String],
    before: &mut u64,
) -> Result<Option<(u64, Mark)>, Unknown> {
    loop {
        match state.records.look(kinds, *before).await? {
            Looked::Found(index, mark) => return Ok(Some((index, mark))),
            Looked::Nothing => return Ok(None),
            Looked::Until(looked_from) => {
                *before = looked_from;
                let why = format!(
                    "it is still compared with the audit log, which is long: {looked_from} entries are left"
                );
                state.vault.not_compared(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use bailey_test::TestStack;
    use bailey_types::{PrincipalName, Service};

    use super::*;
    use crate::token::Bearer;
    use crate::vault::{Deed, Nonce, PrincipalKind, Status};

    #[tokio::test]
    async fn a_vault_is_not_numbered_anew_beside_a_change() {
        let stack = TestStack::new();
        let ctx = stack.context(Service::Broker);
        let state = State::open(&ctx, Duration::from_hours(1)).unwrap();
        let name = stack.trust().stack.clone();
        let genesis = Document::genesis(name, Bearer::admin().hash(), Nonce::generate());
        state.vault.init(genesis).unwrap();
        let greet: PrincipalName = "greet".parse().unwrap();
        let registered =
            |document: &mut Document| document.register(greet.clone(), PrincipalKind::Plugin);
        state.vault.change(registered).unwrap();
        let unproven = state.vault.unproven().unwrap();
        let another = Verdict::Another { after: 9 };

        // Somebody revokes, while the log answers that the vault was put in the place of another.
        let alone = state.changing.lock().await;
        let planned = state
            .vault
            .plan(|document| document.revoke_principal(&greet));
        let mut planned = planned.unwrap();
        planned.note(|document| {
            let at = state.clock.now();
            document.tell_later(Deed::PrincipalRevoked, serde_json::Map::new(), at);
        });
        let mut settled = Box::pin(settle(&state, &unproven, another));
        let mut polled = Context::from_waker(Waker::noop());
        assert!(settled.as_mut().poll(&mut polled).is_pending());
        state.vault.commit(planned).unwrap();
        drop(alone);
        settled.await;

        let document = state.vault.proven().unwrap();
        assert_eq!(document.principals[&greet].status, Status::Revoked);
        assert_eq!(document.revision, 10);
    }
}
