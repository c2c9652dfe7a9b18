//! Policy x environment -> trajectories: parsers, rollouts, groups, endpoints, and the durable ledger of work.

pub mod endpoint;
