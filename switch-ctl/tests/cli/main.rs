//! The command line against a running daemon. One program; `cargo test --test cli help::` runs one matter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

mod api_examples;
mod capture_filter;
mod commands;
mod counters;
mod declare;
mod flow;
mod guide;
mod help;
mod install;
mod json;
mod machine;
mod many_rules;
mod metrics;
mod nat;
mod operate;
mod policy;
