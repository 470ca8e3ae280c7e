//! `schedules:`

use std::collections::BTreeSet;
use std::time::Duration;

use bailey_types::{CommandName, ScheduleId};
use bailey_yaml::{At, Object, Place, Span};
use serde::{Deserialize, Serialize};

use super::object;
use crate::error::Report;
use crate::raw;
use crate::service::{DAY, duration, span};

/// One entry of `schedules:`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Unique among the plugin's schedules.
    pub id: ScheduleId,
    /// When it is due.
    pub when: When,
    /// The command that runs; never `handle`.
    pub command: CommandName,
    /// What the command gets.
    pub payload: Object,
    /// Most by which a start is put off at random.
    #[serde(serialize_with = "duration")]
    pub jitter: Duration,
    /// What happens to starts that were missed while the stack was down.
    pub catch_up: CatchUp,
    /// What happens if the last one has not finished.
    pub if_running: IfRunning,
}

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Again and again after this long, on a fixed grid.
    #[serde(serialize_with = "duration")]
    Every(Duration),
    /// At the minutes that five fields name.
    Cron {
        /// The fields, valid for croner without seconds and years.
        expression: String,
        /// Where the clock hangs that they are read from; UTC unless given.
        #[serde(serialize_with = "timezone_name")]
        timezone: chrono_tz::Tz,
    },
}

/// `catch_up:`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are gone.
    #[default]
    Skip,
    /// One job for all of them.
    RunOnce,
    /// One job each, at most 100.
    RunAll,
}

/// `if_running:`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfRunning {
    /// This start is left out.
    #[default]
    Skip,
    /// It waits, up to `max_outstanding_polls`.
    Queue,
    /// The last one is cancelled.
    Cancel,
}

pub(super) fn schedules(raw: Vec<At<raw::Schedule>>, report: &mut Report<'_>) -> Vec<Schedule> {
    let mut ids = BTreeSet::new();
    let mut schedules = Vec::new();
    for entry in raw {
        let Some(schedule) = schedule(entry.place, entry.value, report) else {
            continue;
        };
        if !ids.insert(schedule.id.clone()) {
            report.push(
                entry.place,
                format!(
                    "the schedule id {} is used twice; give each an id",
                    schedule.id
                ),
            );
        }
        schedules.push(schedule);
    }
    schedules
}

fn schedule(place: Place, raw: raw::Schedule, report: &mut Report<'_>) -> Option<Schedule> {
    let id = raw.id.or_else(|| "default".parse().ok())?;
    let command = match raw.command {
        Some(command) if command.value.as_str() == "handle" => {
            report.push(
                command.place,
                "the command handle cannot be scheduled: it needs an event",
            );
            return None;
        }
        Some(command) => command.value,
        None => "poll".parse().ok()?,
    };
    let jitter = span(
        raw.jitter,
        Duration::ZERO,
        Duration::ZERO..=DAY,
        "jitter",
        report,
    );
    let catch_up = raw
        .catch_up
        .as_ref()
        .map_or(CatchUp::Skip, |catch_up| catch_up.value);
    let when = match (raw.every, raw.cron) {
        (Some(text), None) => {
            if let Some(timezone) = raw.timezone {
                report.push(
                    timezone.place,
                    "timezone belongs to cron; an interval has none",
                );
            }
            every(&text, report)?
        }
        (None, Some(text)) => {
            if let Some(catch_up) = raw
                .catch_up
                .filter(|catch_up| catch_up.value != CatchUp::Skip)
            {
                report.push(catch_up.place, "catch_up belongs to every; cron has none");
            }
            cron(text, raw.timezone, report)?
        }
        (None, None) | (Some(_), Some(_)) => {
            report.push(place, "a schedule needs exactly one of every and cron");
            return None;
        }
    };
    let payload = object(raw.payload, "payload", report);
    Some(Schedule {
        id,
        when,
        command,
        payload,
        jitter,
        catch_up,
        if_running: if_running(raw.if_running, report),
    })
}

fn if_running(raw: Option<At<IfRunning>>, report: &mut Report<'_>) -> IfRunning {
    let Some(given) = raw else {
        return IfRunning::default();
    };
    if given.value == IfRunning::Cancel {
        report.push(given.place, "not supported yet: if_running: cancel");
    }
    given.value
}

/// The shortest interval.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

fn every(text: &At<String>, report: &mut Report<'_>) -> Option<When> {
    let interval = match text.value.as_str() {
        "hourly" => DAY / 24,
        "daily" => DAY,
        "weekly" => 7 * DAY,
        "monthly" => 30 * DAY,
        other => match other.parse::<Span>() {
            Ok(span) => span.0,
            Err(e) => {
                report.push(text.place, e.to_string());
                return None;
            }
        },
    };
    if !(MIN_INTERVAL..=366 * DAY).contains(&interval) {
        report.push(text.place, "every must be 100ms to 366d");
        return None;
    }
    Some(When::Every(interval))
}

fn cron(text: At<String>, timezone: Option<At<String>>, report: &mut Report<'_>) -> Option<When> {
    use croner::parser::{CronParser, Seconds, Year};

    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    if let Err(e) = parser.parse(&text.value) {
        report.push(
            text.place,
            format!(
                "{:?} is not a cron expression of five fields: {e}",
                text.value
            ),
        );
        return None;
    }
    let timezone = match timezone {
        None => chrono_tz::Tz::UTC,
        Some(name) => {
            let Ok(timezone) = name.value.parse() else {
                report.push(
                    name.place,
                    format!("{:?} is not a time zone of the IANA database", name.value),
                );
                return None;
            };
            timezone
        }
    };
    Some(When::Cron {
        expression: text.value,
        timezone,
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn timezone_name<S: serde::Serializer>(
    timezone: &chrono_tz::Tz,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(timezone.name())
}
