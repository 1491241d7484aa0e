//! The switch beside what a user would run instead: devices, tasks and loads, in turn, and what came of them.
//!
//! | module | what |
//! |---|---|
//! | [`device`] | the registry of devices under test |
//! | [`task`] | what they are asked to do, and under which loads |
//! | [`rig`] | a device with a pod at either end |
//! | [`switch`], [`linux`] | how the switch and the kernel are set up |
//! | [`changes`], [`churn`] | what is lost while a device is changed, and the changes |
//! | [`losses`] | where packets were lost |
//! | [`run`] | rounds, devices alternating |
//! | [`search`] | throughput without loss |
//! | [`result`] | medians and ratios |
//! | [`table`], [`plot`] | as text, as a picture |
//! | [`mod@write`] | what is kept in the tree |

pub mod changes;
pub mod churn;
pub mod device;
pub mod linux;
pub mod losses;
pub mod plot;
pub mod result;
pub mod rig;
pub mod run;
pub mod search;
pub mod switch;
pub mod table;
pub mod task;
pub mod write;
