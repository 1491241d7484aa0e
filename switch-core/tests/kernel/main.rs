//! The daemon beside real kernels: namespaces, veth, TAP, AF_XDP. One program, for linking sixty of them took longer than running them; each
//! file is one matter, and `cargo test --test kernel nat::` runs one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

mod acl;
mod address_sets;
mod bgp;
mod clients;
mod control;
mod default_verdict;
mod events;
mod first_instant;
mod follow;
mod frames;
mod guarded;
mod hostile;
mod ipam;
mod joined;
mod kube_proxy;
mod late;
mod law;
mod limits;
mod linux;
mod logging;
mod loops;
mod many_rules;
mod memory;
mod mirror;
mod namespaces;
mod nat;
mod nat_nic;
mod neighbours;
mod outside;
mod owners;
mod pickup;
mod pins;
mod policy;
mod policy_changes;
mod ports;
mod queues;
mod routes;
mod routing;
mod sctp;
mod segments;
mod service;
mod shared;
mod state;
mod tap;
mod traffic;
mod trouble;
mod tunnels;
mod uplink;
mod vlans;
mod who_is_the_node;
mod workers;
mod xdp;

fn switchd() -> switch_lab::Options {
    switch_lab::Options::new(env!("CARGO_BIN_EXE_switchd"))
}
