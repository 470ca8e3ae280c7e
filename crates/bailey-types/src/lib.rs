#![doc = include_str!("../README.md")]

mod hash;
mod id;
mod name;
mod service;
mod time;

pub use hash::{Blake3, ImageId, Sha256};
pub use id::{AttemptNumber, DecisionId, EventId, GrantId, JobId, OriginId, Serial, TicketId};
pub use name::{
    AccountName, BadName, CommandName, EventType, PipelineName, PluginName, PrincipalName,
    ScheduleId, SecretName, StackId, StepId, TokenName, UpstreamName,
};
pub use service::{BadService, Service};
pub use time::{Clock, Timestamp};
