//! What a user would run instead, between two pods as the switch has them: same addresses, same device settings.

pub mod bridge;
pub mod fib;
pub mod null;
pub mod ovs;
pub mod ovs_memory;
pub mod testpmd;

pub use bridge::Bridge;
pub use ovs::{Kind, Ovs};
pub use testpmd::Testpmd;

use std::process::Child;
use std::time::Duration;

/// How long a peer may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A peer's process; ended when dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
