//! The control thread: one, and everything that changes goes through it.
//!
//! | module | what |
//! |---|---|
//! | [`server`] | the Unix socket, signals, netlink: one `mio` loop |
//! | [`input`] | what a client has sent, and how much that may be |
//! | [`peer`] | who may ask for what |
//! | [`places`] | who finds a place at the socket |
//! | [`supervisor`] | what systemd is told: ready, alive, how it is |
//! | [`daemon`] | a request becomes a change, a change reaches every worker |
//! | [`change`] | a change that was checked: kept, published, seen |
//! | [`stations`] | static stations, and those that are to be forgotten |
//! | [`config`] | all that an owner declares, changed at once |
//! | [`clocks`] | what is over some time from now, whatever is done to the time of day |
//! | [`history`] | what was declared before, and what waits to be confirmed |
//! | [`addresses`] | pools and leases: planned, written, applied |
//! | [`fallen`] | ports fall, say why, and come back |
//! | [`retry`] | when a port that is down is tried again |
//! | [`tick`] | what is due once a second |
//! | [`doors`] | opening ports: sockets and lanes, not rules |
//! | [`fitting`] | whether a port can be opened on a device, and why not |
//! | [`closing`] | closing them, also behind workers that answer late |
//! | [`budget`] | what memory is spent on, and the ceiling |
//! | [`regions`] | packet memory grows and shrinks |
//! | [`probe`] | what a device can do, by trying |
//! | [`tap`] | TAP devices in pods' namespaces: made, found again, watched, removed |
//! | [`cable`] | veth pairs between pods' namespaces and ours: the same |
//! | [`home`] | in which namespace a device was made, and nowhere else |
//! | [`devices`] | what both have in common |
//! | [`answer`] | lists and counters |
//! | [`advertise`] | router advertisements unasked |
//! | [`announce`] | what the node's kernel is told of the networks behind the switch |
//! | [`mirror`] | the kernel's routes, mirrored |
//! | [`route_counts`] | what workers counted of routes |
//! | [`nexthop`] | next-hop objects that those may name |
//! | [`neighbours`] | declared neighbours, and those that were learned |
//! | [`nats`] | rules of translation, and what they translate |
//! | [`flows`] | flows listed and ended |
//! | [`leaks`] | leases that no port has |
//! | [`links`] | the kernel's devices, by netlink |
//! | [`rtnl`], [`sysctl`] | requests to the kernel's routing netlink; what it does not take |
//! | [`log`] | what the daemon says, how much, and how often |
//! | [`latency`] | how long requests take |
//! | [`live`] | real frames followed through the stages |
//! | [`overload`] | workers that have more to do than time |
//! | [`owners`] | who asks, and whose objects that may touch |
//! | [`outside`] | masquerade and published ports, by the node's kernel |
//! | [`persist`] | what was declared and leased, on disk |
//! | [`routes`] | routes listed, and a choice explained |
//! | [`trace`] | what would become of a frame, in words |
//! | [`news`] | what happens, for whoever asked to be told |
//! | [`feed`] | what subscribers are told unasked |
//! | [`upkeep`] | the host ports' devices stay as they are declared |
//! | [`uplinks`] | NICs that the node's kernel shares: its addresses and neighbours there |
//! | [`capture`] | copies of frames, for one client |
//! | [`bpffs`] | the directory where XDP links are pinned |
//! | [`pins`] | whose the programs are that stayed there |

mod acls;
mod addresses;
mod advertise;
mod announce;
pub mod answer;
pub mod bpffs;
pub mod budget;
mod cable;
mod capture;
mod change;
mod clocks;
mod closing;
mod config;
pub mod daemon;
mod devices;
pub mod doors;
mod fallen;
pub(crate) mod feed;
mod fitting;
mod flow_events;
mod flow_explain;
mod flows;
mod gratuitous;
mod guards;
pub mod history;
mod home;
pub(crate) mod input;
pub mod journal;
mod lanes;
pub mod latency;
mod leaks;
pub mod links;
mod live;
pub mod log;
pub mod mirror;
mod nats;
mod neighbours;
pub mod news;
mod nexthop;
pub mod outside;
mod overload;
pub mod owners;
pub mod peer;
pub mod persist;
pub mod pins;
pub(crate) mod places;
mod policies;
mod policy_diff;
mod probe;
mod readdress;
mod refused;
mod regions;
mod retry;
mod route_counts;
mod routes;
pub mod rtnl;
pub mod server;
mod sets;
mod stations;
pub mod supervisor;
mod sysctl;
pub mod tap;
mod tick;
mod towards;
mod trace;
mod unseen;
mod upkeep;
pub mod uplinks;
