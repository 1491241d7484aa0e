//! Where packets were lost: what the switch dropped, by its own names, and what the cables did.

use super::rig::Rig;
use super::switch::Between;
use std::collections::BTreeMap;
use std::fmt;

/// Packets lost, by where.
#[derive(Clone, Debug, Default)]
pub struct Losses(BTreeMap<String, u64>);

impl Losses {
    /// All of a rig with the switch, from its beginning. What the switch counts it says some time later
    /// (`STATISTICS_EVERY`).
    pub fn of(rig: &Rig) -> Result<Self, String> {
        let between: &Between = rig.between.downcast_ref().ok_or("the switch is not what is between")?;
        let mut all = BTreeMap::new();
        for drop in between.daemon.stats().drops {
            *all.entry(drop.reason).or_default() += drop.frames;
        }
        for (pod, what) in rig.pods.iter().zip(["the sender's cable", "the receiver's cable"]) {
            all.insert(what.to_owned(), pod.dropped()? + between.node.dropped(pod)?);
        }
        Ok(Self(all))
    }

    /// Those since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |(what, count): (&String, &u64)| {
            let more = count.saturating_sub(earlier.0.get(what).copied().unwrap_or(0));
            (more > 0).then(|| (what.clone(), more))
        };
        Self(self.0.iter().filter_map(less).collect())
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(if each.is_empty() { "nowhere" } else { "" })?;
        f.write_str(&each.join(", "))
    }
}
