//! The switch beside what a user would run instead: devices, tasks and loads, in turn, and what came of them.
//!
//! | module | what |
//! |---|---|
//! | [`device`] | the registry of devices under test |
//! | [`task`] | what they are asked to do, and under which loads |
//! | [`rig`] | a device with a pod at either end |
//! | [`switch`], [`linux`] | how the switch and the kernel are set up |
//! | [`changes`], [`churn`], [`churn_peers`] | what is lost while a device is changed, and the changes |
//! | [`losses`] | where packets were lost |
//! | [`alone`] | the pipelines by themselves, beside Open vSwitch's and testpmd between null ports |
//! | [`part`], [`run`] | what can be measured by itself; rounds, devices alternating |
//! | [`search`] | throughput without loss |
//! | [`result`], [`merge`] | medians and ratios; what a run measured among what was kept |
//! | [`table`], [`plot`] | as text, as a picture |
//! | [`graph`] | the README's picture: the promised figures in one look |
//! | [`canvas`] | what pictures are drawn with |
//! | [`mod@write`] | what is kept in the tree |

pub mod alone;
pub mod canvas;
pub mod changes;
pub mod churn;
pub mod churn_peers;
pub mod device;
pub mod graph;
pub mod linux;
pub mod losses;
pub mod merge;
pub mod part;
pub mod plot;
pub mod result;
pub mod rig;
pub mod run;
pub mod search;
pub mod switch;
pub mod table;
pub mod task;
pub mod write;
