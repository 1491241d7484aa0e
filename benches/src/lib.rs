//! What is measured, and with what.
//!
//! | module | what |
//! |---|---|
//! | [`figures`] | the registry: one figure a file, each with an id and a numeric bar |
//! | [`pipeline`] | the L2 pipeline alone, on memory |
//! | [`traffic`] | the packet generator and sink, on another AF_XDP than ours |
//! | [`sink`] | what the sink makes of what arrives: loss, reorder, latencies |
//! | [`flood`] | a flood that no socket could send |
//! | [`paced`] | a socket that sends what is due, and rests |
//! | [`bare_sender`] | a socket that only sends: where every forwarder ends |
//! | [`iperf`] | TCP between two pods |
//! | [`tap_loops`] | two TAPs and a loop between them, by system calls or by `io_uring` in two ways |
//! | [`changes`] | changes at a rate, and datagrams beside them |
//! | [`containers`] | containers as a runtime attaches them |
//! | [`pair`] | two pods on the switch |
//! | [`outage`] | how long pods are cut off |
//! | [`beacons`] | a thousand datagrams a second from each of them |
//! | [`peers`] | what a user would run instead |
//! | [`matrix`] | the switch beside them: devices, tasks, loads; tables and pictures |
//! | [`rooms`] | each room by itself: time, allocations, instructions |
//! | [`rules`] | rules by the thousand, the same for all |
//! | [`machine`] | the machine in a line; when, and of which source, something was measured |
//! | [`round_trips`] | UDP requests and their responses, timed |
//! | [`cpu`] | what the machine's cores were busy for |
//! | [`flows`] | flows through the whole pipeline |
//! | [`beside`] | a flood beside established flows, in turns of a worker |
//! | [`routes`] | routing tables as large as the Internet's |
//! | [`routed`] | routed packets through the whole pipeline |
//! | [`dir24`] | DIR-24-8, to be held against |
//! | [`vpp`] | what VPP takes, to be reached |
//! | [`cycles`] | what a cycle is here |
//! | [`allocations`] | an allocator that counts |

pub mod allocations;
pub mod bare_sender;
pub mod beacons;
pub mod beside;
pub mod changes;
pub mod containers;
pub mod cpu;
pub mod cycles;
pub mod dir24;
pub mod figures;
pub mod flood;
pub mod flows;
pub mod iperf;
pub mod machine;
pub mod matrix;
pub mod outage;
pub mod paced;
pub mod pair;
pub mod peers;
pub mod pipeline;
pub mod rooms;
pub mod round_trips;
pub mod routed;
pub mod routes;
pub mod rules;
pub mod sink;
pub mod tap_loops;
pub mod traffic;
pub mod vpp;
