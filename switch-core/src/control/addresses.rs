//! Pools and leases: planned by the book, written to disk, applied, and only then answered. What was
//! answered therefore survives a crash, and what was not can be asked again.

use super::clocks::Clocks;
use super::daemon::{Daemon, json};
use crate::config::policies::addresses_of;
use crate::ipam::{Book, Change};
use crate::worker::thread::now;
use serde_json::Value;
use std::net::IpAddr;
use switch_api::{ApiError, Code, Name, Owner, PortKind, Released, Request};

/// A pool that is fuller than this, in percent, is worth a line in the log.
const FULL_PERCENT: u64 = 90;

impl Daemon {
    /// Answers what `owner` asks about addresses.
    pub(super) fn addresses(&mut self, request: &Request, owner: Owner) -> Result<Value, ApiError> {
        let now_s = now().s();
        if !request.is_read_only() && (self.store.take_doubt() || self.book_in_doubt) {
            self.book_in_doubt = true;
            self.restore_addresses()?;
        }
        let freed = self.book.expire(now_s);
        let change = match request {
            Request::PoolList(_) => return json(self.book.pools()),
            Request::LeaseList(filter) => return json(self.list_leases(filter)),
            Request::LeaseAcquire(wanted) => {
                let whose = |ip: IpAddr| self.has_without_lease(ip);
                let (lease, change) = self.book.plan_acquire(wanted, owner, now_s, &whose)?;
                self.keep_addresses(change, &freed, wanted.with_port)?;
                if !wanted.with_port {
                    self.store.sync().map_err(not_on_disk)?;
                }
                self.young_leases.note(&lease);
                self.tell_full(&wanted.pool);
                return json(lease);
            }
            Request::LeaseRelease(filter) => {
                let mut leases = self.book.plan_release(filter)?;
                self.narrow_to_leaks(filter, &mut leases);
                let change = (!leases.is_empty()).then(|| Change::Released(leases.clone()));
                self.keep_addresses(change, &freed, false)?;
                return json(Released { leases });
            }
            Request::PoolAdd(pool) => self.book.plan_pool(pool, false)?,
            Request::PoolSet(pool) => self.book.plan_pool(pool, true)?,
            Request::PoolDelete(by) => self.book.plan_pool_gone(&by.name)?,
            other => return Err(ApiError::new(Code::Internal, format!("{other:?} is not about addresses"))),
        };
        if !self.store.is_kept() {
            tracing::warn!("without --state, pools and leases are forgotten when this daemon ends");
        }
        self.keep_addresses(Some(change), &freed, false)?;
        json(self.done())
    }

    /// Who has an address that is nobody's to lease: a bridge as its gateway, or the node.
    fn has_without_lease(&self, ip: IpAddr) -> Option<String> {
        let gateway = self.model.addresses.iter().find(|own| own.address.address == ip);
        let gateway = gateway.map(|own| format!("a gateway of bridge {}", own.bridge));
        let mut ports = self.model.ports.values().map(|port| &port.object);
        gateway.or_else(|| {
            let port = ports.find(|port| {
                matches!(port.kind, PortKind::Host { .. }) && addresses_of(port).contains(&ip)
            })?;
            Some(format!("that of port {}", port.name))
        })
    }

    /// To disk, now or with the port that it is for, and then to memory.
    fn keep_addresses(
        &mut self,
        change: Option<Change>,
        freed: &[(Name, IpAddr)],
        later: bool,
    ) -> Result<(), ApiError> {
        let Some(change) = change else { return Ok(()) };
        self.store.keep_addresses(&change, freed, later).map_err(not_on_disk)?;
        self.book.apply(change, now().s());
        Ok(())
    }

    fn tell_full(&self, pool: &Name) {
        for figures in self.book.families(pool) {
            let used = figures.total.saturating_sub(figures.free);
            // Said once on the way up, at the address that crosses the line.
            let line = figures.total / 100 * FULL_PERCENT + figures.total % 100 * FULL_PERCENT / 100;
            if used == line + 1 {
                let (free, total) = (figures.free, figures.total);
                tracing::warn!(%pool, free, total, "a pool is nearly exhausted");
            }
        }
    }

    /// What was kept from before.
    pub(super) fn restore_addresses(&mut self) -> Result<(), ApiError> {
        let unusable = |error: String| {
            ApiError::new(Code::System, format!("the pools and leases in --state cannot be used: {error}"))
                .hint("move the file away to start without them; containers keep their addresses, so restart those too")
        };
        let kept = self.store.addresses().map_err(unusable)?;
        let boot_id = Clocks::now().boot_id;
        self.book = Book::new(kept, boot_id, now().s()).map_err(|error| unusable(error.to_string()))?;
        self.book_in_doubt = false;
        Ok(())
    }
}

/// Whether it is on disk nobody can say; the store is read anew before the next change (`Store::take_doubt`).
fn not_on_disk(error: String) -> ApiError {
    ApiError::new(Code::System, format!("the change could not be kept: {error}"))
        .hint("nothing was changed; see the space and rights of --state")
}
