//! Figures as they were measured last, kept in the tree for the README's picture: each with where, when and of which source.

use super::{ALL, Entry, Figure, Part};
use crate::machine;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where they are kept.
pub const DATA: &str = "docs/figures.json";
/// Those that the README's picture shows.
pub const PICTURED: &[&str] =
    &["l2-cycles", "l3-cycles", "policy-cycles", "xdp-full-forward", "blocked-time", "quiet-cpu"];

/// All of them, by the order of the registry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept(pub Vec<One>);

/// A figure and its circumstances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct One {
    /// Its id.
    pub id: String,
    /// What was measured; none if it could not be.
    pub value: Option<f64>,
    /// Of what.
    pub unit: String,
    /// What it is held against.
    pub bar: f64,
    /// Whether it holds.
    pub ok: bool,
    /// Everything else, or why there is no value.
    pub detail: String,
    /// What it is made of.
    pub parts: Vec<Part>,
    /// Where.
    pub machine: String,
    /// When, UTC.
    pub when: String,
    /// Of which source.
    pub revision: String,
}

impl One {
    /// What came of measuring this, here and now.
    pub fn now((id, _, held, _): &Entry, measured: &Result<Figure, String>) -> Self {
        let mut one = Self {
            id: (*id).into(),
            value: None,
            unit: held.unit.into(),
            bar: held.bar,
            ok: false,
            detail: String::new(),
            parts: Vec::new(),
            machine: machine::line(),
            when: machine::now(),
            revision: machine::revision(),
        };
        match measured {
            Ok(figure) => {
                (one.value, one.ok) = (Some(figure.value), figure.ok);
                (one.detail, one.parts) = (figure.detail.clone(), figure.parts.clone());
            }
            Err(error) => one.detail.clone_from(error),
        }
        one
    }
}

impl Kept {
    /// What is kept; nothing if there is no such file.
    pub fn load(root: &Path) -> Result<Self, String> {
        let path = root.join(DATA);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Keeps it.
    pub fn save(&self, root: &Path) -> Result<(), String> {
        let path = root.join(DATA);
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }

    /// In the place of what was measured before.
    pub fn put(&mut self, new: One) {
        self.0.retain(|one| one.id != new.id);
        self.0.push(new);
        let place = |id: &str| ALL.iter().position(|(known, ..)| *known == id);
        self.0.sort_by_key(|one| place(&one.id));
    }

    /// The figure of this name.
    pub fn get(&self, id: &str) -> Option<&One> {
        self.0.iter().find(|one| one.id == id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    #[test]
    fn the_last_one_is_kept_of_each_also_if_it_failed() {
        let entry = |id: &str| ALL.iter().find(|(known, ..)| *known == id).unwrap();
        let mut kept = Kept::default();
        let parts = vec![Part::new("a part", 1.0, Some(2.0)).beside("somebody", 3.0)];
        let figure = Figure::new("quiet-cpu", 1.5, entry("quiet-cpu").2, "how".into()).with(parts.clone());
        kept.put(One::now(entry("quiet-cpu"), &Ok(figure)));
        kept.put(One::now(entry("l2-cycles"), &Err("a peer is missing".into())));
        let of = |kept: &Kept, id: &str| kept.get(id).map(|one| (one.value, one.ok, one.detail.clone()));
        assert_eq!(of(&kept, "quiet-cpu"), Some((Some(1.5), true, "how".into())));
        assert_eq!(of(&kept, "l2-cycles"), Some((None, false, "a peer is missing".into())));
        assert_eq!((kept.0[0].id.as_str(), &kept.0[1].parts), ("l2-cycles", &parts));
        kept.put(One::now(entry("quiet-cpu"), &Err("too few packets were made".into())));
        assert_eq!((kept.0.len(), of(&kept, "quiet-cpu").unwrap().0), (2, None));
        // As it is written, so it is read.
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
    }

    #[test]
    fn every_figure_of_the_picture_is_in_the_registry() {
        for id in PICTURED {
            assert!(ALL.iter().any(|(known, ..)| known == id), "{id}");
        }
    }
}
