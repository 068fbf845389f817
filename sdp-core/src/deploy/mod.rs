//! Deployments: the state machine (pure) and the one pipeline that runs it through the traits.

mod machine;
mod pipeline;
mod ports;
mod slots;
mod stages;

pub use machine::{Command, Deadlines, Input, Machine};
pub use pipeline::{Finished, Pipeline};
pub use ports::{PortLease, PortPick, PortPool, PortWish};
