//! Pools and leases. Everything that changes is planned first and applied when it is on disk.

use super::pool::{Range, overlap, ranges_of, with_length};
use super::{ADDRESSES_MAX, HOLDER_LEN_MAX, LEASES_MAX, POOLS_MAX};
use std::collections::BTreeMap;
use std::net::IpAddr;
use switch_api::{
    ApiError, Code, FamilyStatus, Holder, Lease, LeaseAcquire, LeaseFilter, LeaseStatus, LeasedAddress, Name,
    Owner, Pool, PoolStatus,
};

/// What is to be written and then applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A pool is new or has new ranges.
    Pool(Pool),
    /// A pool is gone.
    PoolGone(Name),
    /// A lease is new or was renewed.
    Lease(Lease),
    /// Leases are gone; their addresses are held.
    Released(Vec<Lease>),
}

/// What was found on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Pools.
    pub pools: Vec<Pool>,
    /// Leases.
    pub leases: Vec<Lease>,
    /// Addresses released not long before.
    pub held: Vec<(Name, IpAddr)>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    pools: BTreeMap<Name, Vec<Range>>,
    declared: BTreeMap<Name, Pool>,
    leases: BTreeMap<(Name, Holder), Lease>,
    boot_id: String,
}

impl Book {
    /// From what was kept. What was held is held anew: nobody knows for how long the daemon was away.
    pub fn new(kept: Kept, boot_id: String, now_s: u32) -> Result<Self, ApiError> {
        let mut book = Self { boot_id, ..Self::default() };
        for pool in kept.pools {
            book.plan_pool(&pool, false)?;
            book.apply(Change::Pool(pool), now_s);
        }
        for lease in kept.leases {
            book.check_fits(&lease)?;
            book.apply(Change::Lease(lease), now_s);
        }
        for (pool, address) in kept.held {
            let ranges = book.pools.get_mut(&pool).into_iter().flatten();
            for range in ranges {
                if let Some(number) = range.number(address).filter(|number| range.space.take(*number)) {
                    range.space.hold(number, now_s);
                }
            }
        }
        Ok(book)
    }

    /// Frees addresses that were held long enough; what need not be remembered any more.
    pub fn expire(&mut self, now_s: u32) -> Vec<(Name, IpAddr)> {
        let mut freed = Vec::new();
        for (name, ranges) in &mut self.pools {
            for range in ranges {
                let numbers = range.space.expire(now_s);
                freed.extend(numbers.into_iter().map(|number| (name.clone(), range.address(number))));
            }
        }
        freed
    }

    /// A pool to add, or to replace.
    pub fn plan_pool(&self, pool: &Pool, replace: bool) -> Result<Change, ApiError> {
        let ranges = ranges_of(pool)?;
        match (self.pools.contains_key(&pool.name), replace) {
            (true, false) => {
                let text = format!("there is a pool named {} already", pool.name);
                return Err(ApiError::new(Code::Exists, text)
                    .field("name")
                    .hint("change it with `switch-ctl ipam pool set`"));
            }
            (false, true) => return Err(no_pool(&pool.name)),
            (false, false) if self.pools.len() >= POOLS_MAX => {
                return Err(ApiError::full(POOLS_MAX, "pools", "ipam pool list"));
            }
            _ => {}
        }
        for (other, theirs) in self.pools.iter().filter(|(name, _)| **name != pool.name) {
            if theirs.iter().any(|their| ranges.iter().any(|our| overlap(their, our))) {
                let text = format!("pool {} overlaps pool {other}", pool.name);
                return Err(ApiError::new(Code::InvalidParams, text).field("ranges").hint(
                    "an address belongs to one pool: share the pool, or narrow one with first and last",
                ));
            }
        }
        self.check_leases_stay(pool, &ranges)?;
        let owner = self.declared.get(&pool.name).map_or(pool.owner, |present| present.owner);
        Ok(Change::Pool(Pool { owner, ..pool.clone() }))
    }

    fn check_leases_stay(&self, pool: &Pool, ranges: &[Range]) -> Result<(), ApiError> {
        let stays = |address: &LeasedAddress| {
            let here = |range: &&Range| range.number(address.address.addr()).is_some();
            ranges
                .iter()
                .find(here)
                .is_some_and(|range| with_length(range, address.address.addr()) == address.address)
        };
        let stranded = self.leases_of(&pool.name).find(|lease| !lease.addresses.iter().all(stays));
        let Some(lease) = stranded else { return Ok(()) };
        let addresses: Vec<_> = lease.addresses.iter().map(|has| has.address.to_string()).collect();
        let text = format!(
            "{} holds {}, which pool {} would no longer have",
            lease.holder,
            addresses.join(" and "),
            pool.name
        );
        Err(ApiError::new(Code::Busy, text)
            .field("ranges")
            .hint("keep these addresses in the pool, or release the lease when its container is gone"))
    }

    /// A pool to remove.
    pub fn plan_pool_gone(&self, name: &Name) -> Result<Change, ApiError> {
        if !self.pools.contains_key(name) {
            return Err(no_pool(name));
        }
        match self.leases_of(name).count() {
            0 => Ok(Change::PoolGone(name.clone())),
            leases => Err(ApiError::new(Code::Busy, format!("pool {name} still has {leases} leases"))
                .hint(format!("`switch-ctl ipam lease list --pool {name}` shows them"))),
        }
    }

    /// Addresses for a holder, who gets them from `owner`: the lease, and the change it takes, if it takes one. None is among them that is
    /// nobody's to lease: `whose` says whose it is.
    pub fn plan_acquire(
        &self,
        wanted: &LeaseAcquire,
        owner: Owner,
        now_s: u32,
        whose: &dyn Fn(IpAddr) -> Option<String>,
    ) -> Result<(Lease, Option<Change>), ApiError> {
        check_holder(&wanted.holder)?;
        let ranges = self.pools.get(&wanted.pool).ok_or_else(|| no_pool(&wanted.pool))?;
        if wanted.addresses.len() > ADDRESSES_MAX {
            return Err(ApiError::new(
                Code::InvalidParams,
                format!("at most {ADDRESSES_MAX} addresses can be asked for"),
            )
            .field("addresses")
            .hint("ask for fewer, or as another holder for the rest"));
        }
        if let Some(present) = self.leases.get(&(wanted.pool.clone(), wanted.holder.clone())) {
            return self.renew(present, wanted);
        }
        if self.leases.len() >= LEASES_MAX {
            return Err(ApiError::full(LEASES_MAX, "leases", "ipam lease list --without-port"));
        }
        let mut addresses = Vec::new();
        for is_ipv6 in [false, true] {
            let named: Vec<_> = wanted.addresses.iter().filter(|named| named.is_ipv6() == is_ipv6).collect();
            for named in &named {
                let named = self.named(ranges, &wanted.pool, **named)?;
                if let Some(whose) = whose(named.address.addr()) {
                    let text = format!("{} is {whose}", named.address.addr());
                    return Err(ApiError::new(Code::Busy, text)
                        .field("addresses")
                        .hint("ask for another address"));
                }
                if !addresses.contains(&named) {
                    addresses.push(named);
                }
            }
            let mut family = ranges.iter().filter(|range| range.is_ipv6() == is_ipv6).peekable();
            if named.is_empty() && family.peek().is_some() {
                let has = |range: &Range, number| whose(range.address(number)).is_some();
                let found = family
                    .find_map(|range| Some((range, range.space.next(now_s, |number| has(range, number))?)));
                let (range, number) = found.ok_or_else(|| self.exhausted(&wanted.pool, is_ipv6))?;
                addresses.push(leased(range, range.address(number)));
            }
        }
        let (pool, holder, boot_id) = (wanted.pool.clone(), wanted.holder.clone(), self.boot_id.clone());
        let lease = Lease { pool, holder, addresses, boot_id, owner };
        Ok((lease.clone(), Some(Change::Lease(lease))))
    }

    /// The holder asks again: it keeps what it has.
    fn renew(&self, present: &Lease, wanted: &LeaseAcquire) -> Result<(Lease, Option<Change>), ApiError> {
        let has = |named: &&IpAddr| !present.addresses.iter().any(|has| has.address.addr() == **named);
        if let Some(missing) = wanted.addresses.iter().find(has) {
            let text = format!("{} has a lease already, without {missing}", present.holder);
            return Err(ApiError::new(Code::Exists, text)
                .field("addresses")
                .hint("release that lease first"));
        }
        let lease = Lease { boot_id: self.boot_id.clone(), ..present.clone() };
        let change = (lease != *present).then(|| Change::Lease(lease.clone()));
        Ok((lease, change))
    }

    fn named(&self, ranges: &[Range], pool: &Name, address: IpAddr) -> Result<LeasedAddress, ApiError> {
        let here = ranges.iter().find_map(|range| Some((range, range.number(address)?)));
        let Some((range, number)) = here else {
            let subnets: Vec<_> = ranges.iter().map(|range| range.declared.subnet.to_string()).collect();
            let text = format!("{address} is not among what pool {pool} gives out ({})", subnets.join(", "));
            return Err(ApiError::new(Code::InvalidParams, text)
                .field("addresses")
                .hint("gateways and exclusions are not given out"));
        };
        if range.space.is_takeable(number) {
            return Ok(leased(range, address));
        }
        let owner = self
            .leases_of(pool)
            .find(|lease| lease.addresses.iter().any(|has| has.address.addr() == address));
        let owner = owner.map_or_else(String::new, |lease| lease.holder.to_string());
        let text = format!("{address} is leased to {owner}");
        Err(ApiError::new(Code::Busy, text).field("addresses").hint("ask for another address"))
    }

    fn exhausted(&self, pool: &Name, is_ipv6: bool) -> ApiError {
        let family = if is_ipv6 { "IPv6" } else { "IPv4" };
        let figures = self.families(pool).into_iter().find(|figures| figures.is_ipv6 == is_ipv6);
        let (total, leased, held) = figures.map_or((0, 0, 0), |it| (it.total, it.leased, it.held));
        let stale = self.leases_of(pool).filter(|lease| lease.boot_id != self.boot_id).count();
        let mut text = format!(
            "pool {pool} has no {family} address left: of {total}, {leased} are leased and {held} were released a moment ago"
        );
        let mut hint = "try again in a moment, or give the pool another range";
        if total > leased + held {
            text += "; what is left is the node's and gateways'";
            hint = "give the pool another range";
        }
        if stale > 0 {
            text += &format!("; {stale} leases are from before the last boot");
            hint = "`switch-ctl ipam lease release --earlier-boot --override-owner cni` releases those of containers that are gone";
        }
        ApiError::new(Code::Limit, text).field("pool").hint(hint)
    }

    /// The leases to release; none if there is nothing to do.
    pub fn plan_release(&self, filter: &LeaseFilter) -> Result<Vec<Lease>, ApiError> {
        if *filter == LeaseFilter::default() {
            return Err(ApiError::new(
                Code::InvalidParams,
                "say which leases: a pool, network, container, interface or address",
            )
            .hint("to release all of a pool, name the pool"));
        }
        Ok(self.fitting(filter).cloned().collect())
    }

    /// Applies what was planned on this very book.
    pub fn apply(&mut self, change: Change, now_s: u32) {
        match change {
            Change::Pool(pool) => self.replace_pool(pool, now_s),
            Change::PoolGone(name) => {
                self.pools.remove(&name);
                self.declared.remove(&name);
            }
            Change::Lease(lease) => {
                for address in &lease.addresses {
                    self.each_space(&lease.pool, address.address.addr(), |space, number| {
                        _ = space.take(number)
                    });
                }
                self.leases.insert((lease.pool.clone(), lease.holder.clone()), lease);
            }
            Change::Released(leases) => {
                for lease in leases {
                    self.leases.remove(&(lease.pool.clone(), lease.holder));
                    for address in &lease.addresses {
                        self.each_space(&lease.pool, address.address.addr(), |space, number| {
                            space.hold(number, now_s)
                        });
                    }
                }
            }
        }
    }

    /// New ranges, with the leases and the held addresses of the old ones.
    fn replace_pool(&mut self, pool: Pool, now_s: u32) {
        let Ok(mut ranges) = ranges_of(&pool) else { return };
        let old = self.pools.remove(&pool.name).unwrap_or_default();
        let held: Vec<IpAddr> =
            old.iter().flat_map(|range| range.space.held().map(|it| range.address(it))).collect();
        let leased =
            self.leases_of(&pool.name).flat_map(|lease| lease.addresses.iter().map(|has| has.address.addr()));
        let leased: Vec<IpAddr> = leased.collect();
        for range in &mut ranges {
            let here = |addresses: &[IpAddr]| -> Vec<u128> {
                addresses.iter().filter_map(|address| range.number(*address)).collect()
            };
            let (leased, held) = (here(&leased), here(&held));
            for number in leased.into_iter().chain(held.iter().copied()) {
                range.space.take(number);
            }
            held.into_iter().for_each(|number| range.space.hold(number, now_s));
        }
        self.pools.insert(pool.name.clone(), ranges);
        self.declared.insert(pool.name.clone(), pool);
    }

    fn each_space(
        &mut self,
        pool: &Name,
        address: IpAddr,
        mut act: impl FnMut(&mut super::space::Space, u128),
    ) {
        for range in self.pools.get_mut(pool).into_iter().flatten() {
            if let Some(number) = range.number(address) {
                act(&mut range.space, number);
            }
        }
    }

    /// That a kept lease can be: its pool is there and its addresses are nobody else's.
    fn check_fits(&self, lease: &Lease) -> Result<(), ApiError> {
        let ranges = self.pools.get(&lease.pool).ok_or_else(|| no_pool(&lease.pool))?;
        lease
            .addresses
            .iter()
            .try_for_each(|has| self.named(ranges, &lease.pool, has.address.addr()).map(drop))
    }

    fn leases_of<'a>(&'a self, pool: &'a Name) -> impl Iterator<Item = &'a Lease> {
        self.leases.values().filter(move |lease| lease.pool == *pool)
    }

    /// A pool as it was declared.
    pub fn pool(&self, name: &Name) -> Option<&Pool> {
        self.declared.get(name)
    }

    /// Leases that are meant.
    pub fn fitting<'a>(&'a self, filter: &'a LeaseFilter) -> impl Iterator<Item = &'a Lease> {
        self.leases.values().filter(|lease| filter.fits(lease, &self.boot_id))
    }

    /// Pools, and how full they are.
    pub fn pools(&self) -> Vec<PoolStatus> {
        let status = |(name, pool): (&Name, &Pool)| {
            let stale = self.leases_of(name).filter(|lease| lease.boot_id != self.boot_id).count();
            PoolStatus {
                pool: pool.clone(),
                families: self.families(name),
                leases_of_earlier_boots: stale as u64,
            }
        };
        self.declared.iter().map(status).collect()
    }

    /// How full a pool is.
    pub fn families(&self, pool: &Name) -> Vec<FamilyStatus> {
        let ranges = self.pools.get(pool).map(Vec::as_slice).unwrap_or_default();
        let family = |is_ipv6: bool| {
            let mut ranges = ranges.iter().filter(|range| range.is_ipv6() == is_ipv6).peekable();
            ranges.peek()?;
            let add = |(a, b, c): (u128, u128, u128), range: &Range| {
                let (total, held, free) = range.space.figures();
                (a.saturating_add(total), b + held, c.saturating_add(free))
            };
            let (total, held, free) = ranges.fold((0, 0, 0), add);
            let word = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
            let leased = word(total.saturating_sub(held).saturating_sub(free));
            Some(FamilyStatus { is_ipv6, total: word(total), leased, held: word(held), free: word(free) })
        };
        [false, true].into_iter().filter_map(family).collect()
    }

    /// Leases.
    pub fn leases(&self, filter: &LeaseFilter) -> Vec<LeaseStatus> {
        let fits = self.leases.values().filter(|lease| filter.fits(lease, &self.boot_id));
        let status = |lease: &Lease| {
            // Ports are not known here.
            LeaseStatus { earlier_boot: lease.boot_id != self.boot_id, lease: lease.clone(), port: None }
        };
        fits.map(status).collect()
    }
}

fn leased(range: &Range, address: IpAddr) -> LeasedAddress {
    LeasedAddress { address: with_length(range, address), gateway: range.declared.gateway }
}

fn check_holder(holder: &Holder) -> Result<(), ApiError> {
    let Holder { network, container, interface } = holder;
    let fields = [("network", network), ("container", container), ("interface", interface)];
    let bad =
        |text: &String| text.is_empty() || text.len() > HOLDER_LEN_MAX || text.chars().any(char::is_control);
    match fields.into_iter().find(|(_, text)| bad(text)) {
        None => Ok(()),
        Some((field, _)) => {
            let text = format!(
                "the {field} of a holder has 1 to {HOLDER_LEN_MAX} characters, none of them a control character"
            );
            Err(ApiError::new(Code::InvalidParams, text)
                .field(format!("holder.{field}"))
                .hint("name the attachment as the runtime does: network, container, interface"))
        }
    }
}

fn no_pool(name: &Name) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no pool named {name}"))
        .field("pool")
        .hint("`switch-ctl ipam pool list` shows those there are, `switch-ctl ipam pool add` makes one")
}
