//! A change that was checked: kept, published, and seen by every worker. An error before *publish* changes nothing.

use super::daemon::{Daemon, PortLife, json, not_kept};
use super::doors::{LOOK_AGAIN, WORKER_PATIENCE};
use crate::config::Checked;
use crate::config::snapshot::{Live, PortId, Snapshot, compile_after};
use hashbrown::HashMap;
use serde_json::Value;
use std::time::Instant;
use switch_api::{ApiError, Code, Request};

impl Daemon {
    pub(super) fn check(&self, request: &Request) -> Result<Checked, ApiError> {
        let checked = Checked::after(&self.model, self.model.apply(request)?, self.doors.mail.len() as u16)?;
        self.doors.budget.allow_rules(checked.model().rules_bytes(), 0)?;
        Ok(checked)
    }

    /// What the rules in force take.
    pub(super) fn count_rules(&mut self) {
        self.doors.budget.set_rules(self.model.rules_bytes());
    }

    pub(super) fn live(&self) -> HashMap<PortId, Live> {
        let up = self.ports.iter().filter_map(|(id, life)| match life {
            PortLife::Up(door) => Some((*id, door.live())),
            PortLife::Down(_) => None,
        });
        up.collect()
    }

    /// On return what is declared is on disk.
    pub(super) fn keep(&mut self, checked: &Checked) -> Result<(), ApiError> {
        self.keep_homes(true);
        self.store.keep(&self.model, checked.model()).map_err(not_kept)
    }

    /// Keeps, publishes and waits until every worker has seen it.
    pub(super) fn adopt(&mut self, checked: Checked) -> Result<Value, ApiError> {
        self.keep(&checked)?;
        self.publish(checked)?;
        json(self.done())
    }

    fn compile(&self, checked: &Checked, generation: u64) -> Snapshot {
        compile_after(checked, &self.live(), self.fdb_entries, generation, self.publisher.newest())
    }

    pub(super) fn publish(&mut self, checked: Checked) -> Result<(), ApiError> {
        let generation = self.publisher.generation() + 1;
        let nics = self.look_at_nics(checked.model());
        let checked = checked.seeing(nics);
        self.narrow_uplinks(checked.model());
        let snapshot = self.compile(&checked, generation);
        let nats = self.nat_rules();
        let before = std::mem::replace(&mut self.model, checked.into_model());
        self.count_rules();
        self.pin_kernel();
        self.make_rules();
        self.make_route_counters();
        self.publisher.publish(snapshot);
        self.await_seen(generation)?;
        self.introduce_pods();
        self.widen_uplinks();
        self.begin_to_count();
        self.forget_ports(&before);
        self.forget_numbers(&before);
        self.end_flows_of_nats(&nats);
        self.forget_neighbours();
        self.tell_kernel(false);
        self.tell_outside();
        self.mirror_tables();
        Ok(())
    }

    pub(super) fn republish(&mut self) {
        // What was checked once and did not change is checked again: cheaper than a second way in.
        match Checked::after(&self.model, self.model.clone(), self.doors.mail.len() as u16) {
            Ok(checked) => {
                if let Err(error) = self.publish(checked) {
                    tracing::error!("{error}");
                }
            }
            Err(error) => tracing::error!("the model in force does not check: {error}"),
        }
    }

    pub(super) fn await_seen(&self, generation: u64) -> Result<(), ApiError> {
        let deadline = Instant::now() + WORKER_PATIENCE;
        self.ring();
        while let Some(worker) = self.publisher.laggard(generation) {
            if Instant::now() > deadline {
                return Err(ApiError::new(
                    Code::Timeout,
                    format!("worker {worker} has not taken the change yet"),
                )
                .hint("it was published and will be in force; see `switch-ctl worker list`"));
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
        Ok(())
    }

    fn ring(&self) {
        for mail in self.doors.mail.iter() {
            mail.ring(|| crate::worker::thread::now().ns);
        }
    }
}
