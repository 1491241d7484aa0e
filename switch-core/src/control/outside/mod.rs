//! The node's kernel does what is declared for pods to reach the outside and be reached: one table of nf_tables, some settings.
//! Both are ours, are looked at once a second, and are put right when somebody else has changed them. They stay while the daemon is
//! away, as pods do; when nothing is declared any more, or after `stop --detach`, the node is as it was.

mod mtu;
mod render;
mod settings;

use super::daemon::Daemon;
use crate::config::outside::{Forward, Outside};
use crate::nft::expression::Family;
use crate::nft::{Kernel, Mark, Table};
use serde::{Deserialize, Serialize};
use settings::Made;
use std::collections::BTreeSet;
use switch_api::{OutsideStatus, Protocol};

/// What is on disk of it: what to take away when the daemon that put it there is not the one that takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    table: bool,
    settings: Vec<Made>,
}

/// What the kernel was told.
#[derive(Debug, Default)]
pub struct Told {
    wanted: Outside,
    table: Option<Put>,
    left: Left,
    /// Settings that were right when they were last looked at.
    right: BTreeSet<String>,
    kernel: Option<Kernel>,
    /// Why it is not as declared.
    complaint: Option<String>,
}

/// A table that was put.
#[derive(Debug)]
struct Put {
    table: Table,
    /// The ruleset's number when it was.
    generation: u32,
    /// What it is known again by; read later, for who asked waits for the table and not for that.
    mark: Option<Mark>,
}

impl Daemon {
    /// What the daemon before us left.
    pub(super) fn restore_outside(&mut self) {
        match self.store.outside() {
            Ok(left) => self.outside.left = left,
            Err(error) => tracing::warn!("what was set in the kernel before is not known: {error}"),
        }
    }

    /// Tells the kernel what is declared now, if it is different.
    pub(super) fn tell_outside(&mut self) {
        let wanted = self.model.outside();
        let is_left = self.outside.left != Left::default();
        if wanted != self.outside.wanted || wanted.is_empty() && is_left {
            let before = std::mem::replace(&mut self.outside.wanted, wanted);
            self.outside.table = None;
            self.outside.right.clear();
            self.put_outside();
            self.forget_flows(&before);
        }
    }

    /// Of datagrams a flow is whoever speaks within half a minute: to a port that leads elsewhere now, or nowhere, it would go on as
    /// it began.
    fn forget_flows(&mut self, before: &Outside) {
        let is_udp = |forward: &&Forward| forward.protocol == Protocol::Udp;
        let differ = before.published.symmetric_difference(&self.outside.wanted.published).filter(is_udp);
        let ports: BTreeSet<(bool, u16)> =
            differ.map(|forward| (forward.to.is_ipv4(), forward.port)).collect();
        for (v4, port) in ports {
            let family = if v4 { Family::V4 } else { Family::V6 };
            if let Err(error) = self.kernel(|kernel| kernel.forget_flows(family, render::UDP, port)) {
                tracing::debug!("datagrams to port {port} may go where they went before: {error}");
            }
        }
    }

    /// Once a second: what failed is tried again, what others changed is put right.
    pub(super) fn look_at_outside(&mut self) {
        if self.outside.complaint.is_some() {
            self.put_outside();
        } else if !self.outside.wanted.is_empty() {
            let looked = self.make_settings().and_then(|()| self.look_at_table());
            self.complain(looked.err());
        }
    }

    /// Takes all of it away.
    pub(super) fn hush_outside(&mut self) {
        self.outside.wanted = Outside::default();
        if self.outside.left != Left::default() {
            self.put_outside();
        }
    }

    /// How it is.
    pub(super) fn outside_status(&self) -> OutsideStatus {
        let Told { wanted, left, complaint, .. } = &self.outside;
        OutsideStatus {
            table: left.table,
            masqueraded: wanted.sources.len() as u32,
            published: wanted.published.len() as u32,
            settings: left.settings.iter().map(|made| settings::name(&made.path)).collect(),
            problem: complaint.clone(),
        }
    }

    fn put_outside(&mut self) {
        // What is masqueraded is so before the kernel forwards it, and until it does not any more.
        let put = if self.outside.wanted.is_empty() {
            self.put_settings_back().and_then(|()| self.remove_table())
        } else {
            let put = if self.outside.table.is_some() { Ok(()) } else { self.put_table() };
            put.and_then(|()| self.put_settings_back()).and_then(|()| self.make_settings())
        };
        self.complain(put.err());
    }

    fn complain(&mut self, problem: Option<String>) {
        if let Some(text) = problem.as_ref().filter(|text| self.outside.complaint.as_ref() != Some(*text)) {
            tracing::warn!("pods may not reach the outside: {text}; it is tried again");
        }
        self.outside.complaint = problem;
    }

    fn kernel<T>(&mut self, ask: impl FnOnce(&mut Kernel) -> std::io::Result<T>) -> Result<T, String> {
        let told = &mut self.outside;
        let outcome = match told.kernel.take() {
            Some(kernel) => Ok(kernel),
            None => Kernel::open(),
        }
        .and_then(|mut kernel| {
            let answer = ask(&mut kernel)?;
            // After an error there may be answers that nobody has read.
            told.kernel = Some(kernel);
            Ok(answer)
        });
        outcome.map_err(|error| format!("the kernel's nf_tables: {error}"))
    }

    fn put_table(&mut self) -> Result<(), String> {
        // On disk first: what is there and not known would stay for ever.
        self.keep_left(|left| left.table = true)?;
        let table = render::table(&self.outside.wanted);
        let generation = self.kernel(|kernel| kernel.put(&table))?;
        self.outside.table = Some(Put { table, generation, mark: None });
        Ok(())
    }

    fn remove_table(&mut self) -> Result<(), String> {
        self.outside.table = None;
        if self.outside.left.table {
            self.kernel(|kernel| kernel.remove(render::TABLE))?;
            self.keep_left(|left| left.table = false)?;
        }
        Ok(())
    }

    fn look_at_table(&mut self) -> Result<(), String> {
        let Some(Put { table, generation, mark }) = self.outside.table.take() else {
            return self.put_table();
        };
        let as_it_was = mark.as_ref().map_or(generation, |mark| mark.generation);
        if mark.is_some() && self.kernel(Kernel::generation)? == as_it_was {
            self.outside.table = Some(Put { table, generation, mark });
            return Ok(());
        }
        let now = self.kernel(|kernel| kernel.mark(&table))?;
        // Nobody has changed anything since it was put, or what they changed was not this.
        let is_right = match &mark {
            None => now.generation == generation && !now.is_gone(),
            Some(mark) => now.is_same(mark),
        };
        let put = match is_right {
            true => now,
            false => self.kernel(|kernel| kernel.put_and_mark(&table))?,
        };
        self.outside.table = Some(Put { table, generation, mark: Some(put) });
        // Whether it was this that somebody changed right after it was put, nobody knows.
        let how = match (is_right, now.is_gone(), &mark) {
            (true, ..) | (false, false, None) => return Ok(()),
            (false, true, _) => "was deleted",
            (false, false, Some(_)) => "was changed",
        };
        self.tell_repaired(&format!("table inet {}", render::TABLE), how);
        Ok(())
    }

    pub(super) fn tell_repaired(&mut self, what: &str, how: &str) {
        let text = format!("{what} {how} by somebody else and put right");
        tracing::warn!("{text}");
        self.tell("repaired", text, &[("about", what.to_owned()), ("how", how.to_owned())]);
    }

    fn make_settings(&mut self) -> Result<(), String> {
        for (path, value) in settings::wanted(&self.outside.wanted) {
            let failed = |error| format!("{}: {error}", settings::name(&path));
            let Some(is) = settings::read(&path).map_err(failed)? else { continue };
            if is == value {
                self.outside.right.insert(path);
                continue;
            }
            let made = settings::to_be_made(&path, value, is).map_err(failed)?;
            self.keep_left(|left| {
                let known: Vec<String> = left.settings.iter().map(|made| made.path.clone()).collect();
                left.settings.extend(made.iter().filter(|made| !known.contains(&made.path)).cloned());
            })?;
            for made in &made {
                settings::write(&made.path, &made.value)
                    .map_err(|error| format!("{}: {error}", settings::name(&made.path)))?;
            }
            if !self.outside.right.insert(path.clone()) {
                self.tell_repaired(&settings::name(&path), "was changed");
            }
        }
        Ok(())
    }

    /// Puts back what is not needed any more, the last first.
    fn put_settings_back(&mut self) -> Result<(), String> {
        let wanted = settings::wanted(&self.outside.wanted);
        let gone: Vec<Made> = self.outside.left.settings.iter().rev().cloned().collect();
        for made in gone.iter().filter(|made| !settings::is_needed(made, &wanted)) {
            settings::put_back(made)
                .map_err(|error| format!("{} is not put back: {error}", settings::name(&made.path)))?;
            self.keep_left(|left| left.settings.retain(|one| one != made))?;
        }
        Ok(())
    }

    fn keep_left(&mut self, change: impl FnOnce(&mut Left)) -> Result<(), String> {
        let mut left = self.outside.left.clone();
        change(&mut left);
        if left != self.outside.left {
            self.store.keep_outside(&left).map_err(|error| format!("it could not be kept: {error}"))?;
            self.outside.left = left;
        }
        Ok(())
    }
}
