//! Asking: requests to a policy, with everything that comes back on disk before the next step depends on it.

mod cache;
mod engine;
mod log;
mod policy;
mod request;

pub use cache::Cache;
pub use engine::{Engine, Progress, RunError, RunReport};
pub(crate) use log::read_header;
pub use log::{Entry, Log, LogError, RunHeader};
pub use policy::{LocalPolicy, Policy};
pub use request::{Request, request_key};
