//! A cell that lasts: a service. It is started as any other, and then read line by line for as long as it runs.

use std::sync::Arc;
use std::time::Duration;

use bailey_proto::engine::v1::TakeLineRequest;
use bailey_trust::{Decision, LockedPlugin, ServiceTerms};
use futures::FutureExt as _;
use tokio::sync::Semaphore;

use super::{Order, Workshop, before_launch, lost, stopped};
use crate::attempt::{Attempt, Outcome, Stops, Trouble};
use crate::container::Cell;
use crate::report::{self, Reports};
use crate::state;
use crate::turns::Turn;
use crate::watch::{Said, Served, Stop};

impl Workshop {
    /// How what is ordered lasts, if it does. What the engine says of it must be what is locked.
    pub(super) fn terms(
        &self,
        attempt: &Attempt,
        decision: &Decision,
        locked: &LockedPlugin,
    ) -> Result<Option<ServiceTerms>, Outcome> {
        let (plugin, command) = (&attempt.plugin, &decision.command);
        let terms = locked.lasts(command).copied();
        if terms.is_some() != attempt.lasts {
            let how = if attempt.lasts { "not " } else { "" };
            return Err(Outcome::Refused(format!(
                "{plugin}.{command} is {how}locked as a service"
            )));
        }
        if terms.is_some() {
            let checked = self.pools.quarantine.check(plugin, locked);
            checked.map_err(|held| Outcome::NotStarted(Trouble::Other(held)))?;
        }
        Ok(terms)
    }

    /// Where the cell has its place: one that lasts takes none from calls.
    pub(super) fn room_of(&self, order: &Order) -> &Arc<Semaphore> {
        if order.terms.is_some() {
            &self.lasting
        } else {
            &self.room
        }
    }

    /// Waits until the cell before is gone, where what is ordered lasts. After a broken connection the engine cancels an attempt and assigns the
    /// next one at once, while the old cell may take its time to end.
    pub(super) async fn turn(&self, order: &Order, stops: &Stops) -> Result<Option<Turn>, Outcome> {
        if order.terms.is_none() {
            return Ok(None);
        }
        tokio::select! {
            turn = self.turns.take(&order.plugin) => Ok(Some(turn)),
            stop = stops.at_once() => Err(before_launch(stop)),
        }
    }

    /// From the request to the end, whatever brings that about.
    pub(super) async fn serve(
        &self,
        cell: &mut Cell,
        order: &Order,
        (attempt, terms): (&Attempt, ServiceTerms),
        stops: &Stops,
        reports: &impl Reports,
    ) -> Outcome {
        let plugin = &order.plugin;
        tracing::info!(plugin.name = %plugin, container.id = %cell.handle.id, "the service {plugin} runs");
        let stops = stops.clone();
        cell.watch
            .stopped_by(Box::pin(async move { stops.at_once().await }));
        let heartbeat = terms.heartbeat_seconds;
        let heartbeat = heartbeat.map(|seconds| Duration::from_secs(seconds.into()));
        let (job_id, number) = (attempt.job.to_string(), attempt.number.0);
        let deliver = |said| match said {
            Said::Line(nth, line) => {
                let line = TakeLineRequest {
                    job_id: job_id.clone(),
                    attempt: number,
                    number: nth,
                    line,
                };
                report::deliver_line(reports, line).boxed()
            }
            Said::Returned(secrets) => report::returned(reports, (job_id.clone(), number), secrets)
                .map(Ok)
                .boxed(),
        };
        let (served, stderr) = cell.watch.serve(heartbeat, deliver).await;
        let unhealthy = |reason: String| {
            let (why, stderr) = (reason.clone(), stderr.clone());
            (Outcome::Unhealthy { reason, stderr }, why)
        };
        let (outcome, why) = match served {
            Served::Exited(exit_code) => {
                let ended = cell.handle.engine.inspect(&cell.handle.id).await;
                let finished = Outcome::Finished {
                    stdout: bytes::Bytes::new(),
                    stderr,
                    exit_code,
                    // One that is gone already was removed by somebody else, who knows why.
                    out_of_memory: ended.is_ok_and(|ended| ended.out_of_memory),
                };
                (finished, format!("it ended with exit code {exit_code}"))
            }
            Served::Silent(time) => {
                let seconds = time.as_secs();
                unhealthy(format!("it wrote no line for {seconds} s, its heartbeat"))
            }
            Served::LongLine => unhealthy("it wrote a line of more than 1 MiB".to_owned()),
            Served::Stopped(Stop::OverLimit) => return state::refused(cell.state.as_ref()),
            Served::Stopped(stop) => return stopped(stop, stderr),
            Served::Lost(why) => return lost(&why, stderr),
        };
        if let Ok(locked) = order.locked() {
            self.pools.quarantine.crashed(plugin, locked, &why);
        }
        outcome
    }
}
