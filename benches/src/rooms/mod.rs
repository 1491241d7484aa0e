//! Each room by itself: how long its pieces take, how often they allocate, how many instructions they are.
//!
//! | group | what |
//! |---|---|
//! | `wire/*` | headers, checksums, superframes cut and joined |
//! | `table/fdb/*`, `table/flow/*`, `table/lpm/*`, `table/acl/*` | lookups, among few and among many |
//! | `pipeline/bridged/*`, `routed/*`, `policy/*`, `nat/*`, `new-flow/*`, `denied/*` | a batch through all stages |
//! | `worker/*` | whole turns, also of two workers with frames for each other |
//! | `api/*` | requests read, answers written; off the packet path |
//!
//! One registry, three measures: criterion takes the time of [`Work::run`], a counting allocator its allocations
//! (none is allowed on the packet path), callgrind its instructions, which depend on no machine's noise.

mod api;
pub mod baseline;
pub mod instructions;
mod pipeline;
mod table;
mod wire;
mod worker;

/// What is measured, over and over.
pub trait Work {
    /// Before each run; not measured.
    fn prepare(&mut self) {}
    /// What is measured.
    fn run(&mut self);
    /// After each run; not measured. Panics if what came of it is wrong.
    fn settle(&mut self) {}
}

/// Something to measure.
pub struct Case {
    /// Its name: the room, and what.
    pub id: &'static str,
    /// Operations, or packets, of one run.
    pub items: u64,
    /// Whether packets wait for it: then it must not allocate.
    pub is_on_path: bool,
    /// Makes it ready.
    pub make: fn() -> Box<dyn Work>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

/// Work that needs no preparation.
struct Only<F>(F);

impl<F: FnMut()> Work for Only<F> {
    #[inline(always)]
    fn run(&mut self) {
        (self.0)();
    }
}

fn only(work: impl FnMut() + 'static) -> Box<dyn Work> {
    Box::new(Only(work))
}

/// All of them, room by room.
pub fn all() -> Vec<Case> {
    [wire::CASES, table::CASES, pipeline::CASES, worker::CASES, api::CASES]
        .into_iter()
        .flatten()
        .map(|case| Case { ..*case })
        .collect()
}

/// A function of its own, by whose name callgrind knows when to count.
#[inline(never)]
pub fn counted(work: &mut dyn Work) {
    work.run();
}

/// What [`counted`] is called in a program, as callgrind's `--toggle-collect` wants it.
pub const COUNTED: &str = "*rooms::counted*";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_room_is_there_and_every_case_has_a_name_of_its_own() {
        let all = all();
        let ids: HashSet<_> = all.iter().map(|case| case.id).collect();
        assert_eq!(ids.len(), all.len());
        for group in [
            "wire/",
            "table/fdb/",
            "table/flow/",
            "table/lpm/",
            "table/acl/",
            "pipeline/bridged/",
            "pipeline/routed/",
            "pipeline/policy/",
            "pipeline/nat/",
            "pipeline/new-flow/",
            "pipeline/denied/",
            "worker/",
            "api/",
        ] {
            assert!(all.iter().any(|case| case.id.starts_with(group)), "{group}");
        }
    }
}
