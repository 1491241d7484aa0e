//! A ping that goes on beside whatever else is done, and what came of it: whether others were disturbed.

use crate::net::{Background, Net};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Questions a second.
const A_SECOND: usize = 100;

/// It; ended when dropped.
#[derive(Debug)]
pub struct Steady {
    ping: Background,
    /// A pipe that nobody reads meanwhile would hold it up.
    said: PathBuf,
}

impl Steady {
    /// From a namespace to an address, a hundred times a second.
    pub fn start(from: &Net, to: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let said = std::env::temp_dir().join(format!("{}-steady{number}", from.name()));
        let ping = from.spawn(&format!("ping -n -i {} {to} > {}", 1.0 / A_SECOND as f64, said.display()));
        Self { ping, said }
    }

    /// Ends it. How many answers came. Panics if one is missing among them: only the last questions, of the second before the end, may still
    /// be under way.
    #[track_caller]
    pub fn all_came(mut self) -> usize {
        assert!(self.ping.is_running(), "the ping ended by itself");
        self.ping.interrupt_and_wait();
        let said = std::fs::read_to_string(&self.said).unwrap_or_default();
        let number =
            |line: &str| -> Option<usize> { line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok() };
        let came: Vec<usize> =
            said.lines().filter(|line| line.contains("bytes from")).filter_map(number).collect();
        let last = came.last().copied().unwrap_or(0);
        let missing: Vec<usize> = (1..=last).filter(|n| !came.contains(n)).collect();
        let sent = said
            .lines()
            .find_map(|line| line.split_once(" packets transmitted")?.0.parse().ok())
            .unwrap_or(0);
        assert!(
            missing.is_empty() && last > 0 && sent <= last + A_SECOND,
            "the others were disturbed: of {sent} questions these were not answered: {missing:?}, nor what follows {last}"
        );
        came.len()
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.said);
    }
}
