//! Routing tables in the making. What becomes of a network is the first of: what gateways make of it, a declared
//! route, a route of the kernel, the way to the kernel. A change asks that anew of the networks it is about, and
//! changes the tables there; only when the ground on which routes stand is another (gateways, the way to the kernel)
//! are all networks asked about.

use super::ecmp::Hop;
use super::gateway::{Action, EVERYWHERE, NO_MTU, Routing, Table, to_bits};
use super::mirrored::{Kind, Meaning, Mirrored};
use super::model::Model;
use super::numbers::{Answer, Book, Goal};
use super::routes::{Place, Routes, Way};
use super::shared::Ways;
use crate::table::lpm::{Change, Lpm, NO_ROUTE};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use switch_api::{BridgeAddress, Name, NextHop, Prefix, RouteKind, Vrf};

/// What a snapshot's tables were made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    grounds: Arc<[Ground]>,
    routes: Routes,
    mirrored: Arc<Mirrored>,
    book: Book,
}

#[cfg(test)]
impl Made {
    pub(super) fn check_uses(&self, routing: &Routing) {
        let mut uses = std::collections::BTreeMap::from([(1, 1)]);
        for (ground, table) in self.grounds.iter().zip(&routing.tables) {
            let mirrored = ground.mirrored(&self.mirrored);
            let declared = self.routes.networks(&ground.name, None);
            let all = mirrored.chain(declared).chain(EVERYWHERE).chain(ground.fixed.keys().copied());
            for prefix in all.collect::<std::collections::BTreeSet<_>>() {
                let lpm = if prefix.address.is_ipv4() { &table.v4 } else { &table.v6 };
                *uses.entry(lpm.exact(key_of(prefix), prefix.len)).or_insert(0u32) += 1;
            }
        }
        uses.remove(&NO_ROUTE);
        assert_eq!(self.book.used(), uses);
    }
}

/// What the routes of a table stand on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ground {
    name: Name,
    ways: Ways,
    settings: Vrf,
    /// The kernel's routes are read.
    mirrors: bool,
    /// Gateway addresses, each with the identifier of its bridge and VLAN.
    own: Vec<(BridgeAddress, Option<u16>)>,
    /// What they make of their networks: nothing declared hides it.
    fixed: BTreeMap<Prefix, Action>,
}

impl Ground {
    /// That of every table, by its number: tables are those of bridges, by name.
    fn all(model: &Model) -> Arc<[Self]> {
        super::gateway::number_vrfs(model).into_keys().map(|name| Self::of(model, name)).collect()
    }

    fn of(model: &Model, name: &Name) -> Self {
        let own = model.addresses.iter().filter_map(|own| {
            let bridge = model.bridges.get(&own.bridge).filter(|bridge| bridge.object.vrf == *name)?;
            Some((own.clone(), model.fids.get(&(bridge.id, own.vid)).copied()))
        });
        let own: Vec<_> = own.collect();
        let mut fixed = BTreeMap::new();
        for (own, fid) in &own {
            fid.inspect(|fid| add_connected(&mut fixed, own.address, *fid));
        }
        // The switch's own addresses come last: nothing hides them.
        fixed.extend(own.iter().map(|(own, _)| (Prefix::host(own.address.address), Action::Local)));
        let (ways, settings, mirrors) = (model.ways(name), model.vrf(name), model.mirrors(name));
        Self { ways, settings, mirrors, own, fixed, name: name.clone() }
    }

    /// Whether routes of the kernel can lead anywhere.
    fn leads_out(&self) -> bool {
        self.ways.kernel.is_some() || !self.ways.out.is_empty()
    }

    /// Routes of the kernel, if they are mirrored.
    fn mirrored<'a>(&self, mirrored: &'a Mirrored) -> impl Iterator<Item = Prefix> + 'a {
        let table = (self.leads_out() && self.mirrors).then_some(self.settings.kernel_table);
        table.into_iter().flat_map(|table| mirrored.of(table)).map(|(place, _)| place.prefix)
    }
}

/// The network of an address, and the addresses in it that are nobody's.
fn add_connected(fixed: &mut BTreeMap<Prefix, Action>, prefix: Prefix, fid: u16) {
    fixed.insert(prefix.network(), Action::Link(fid));
    // A network of two or one has no addresses to spare (RFC 3021, RFC 6164).
    if prefix.bits() - prefix.len < 2 {
        return;
    }
    let first = Prefix::host(prefix.network().address);
    match prefix.address {
        IpAddr::V4(_) => {
            fixed.insert(first, Action::Broadcast);
            fixed.insert(Prefix::host(prefix.last()), Action::Broadcast);
        }
        // The subnet-router anycast address (RFC 4291 §2.6.1) is every router's.
        IpAddr::V6(_) => _ = fixed.insert(first, Action::Local),
    }
}

/// The tables of `model`: those of `before`, changed where something else comes of a network.
pub(super) fn tables(model: &Model, before: &Routing) -> Routing {
    Making::new(model, &model.routes, Ground::all(model), before).finish()
}

/// The same for other `routes`, where nothing else is different from what `before` was made of.
pub(super) fn tables_with(model: &Model, routes: &Routes, before: &Routing) -> Routing {
    Making::new(model, routes, before.made.grounds.clone(), before).finish()
}

struct Making<'a> {
    model: &'a Model,
    routes: &'a Routes,
    grounds: Arc<[Ground]>,
    before: &'a Routing,
    /// Numbers of before are those of now.
    goes_on: bool,
    book: Book,
    /// Numbers of ways that were asked for already, by table.
    known: HashMap<(usize, *const Way), u32>,
}

impl<'a> Making<'a> {
    fn new(model: &'a Model, routes: &'a Routes, grounds: Arc<[Ground]>, before: &'a Routing) -> Self {
        // A table that is gone takes the uses of its numbers with it, uncounted.
        let stays = |was: &Ground| grounds.iter().any(|ground| ground.name == was.name);
        let goes_on = before.made.grounds.iter().all(stays);
        let book = if goes_on { before.made.book.clone() } else { Book::default() };
        Self { model, routes, grounds, before, goes_on, book, known: HashMap::new() }
    }

    fn finish(mut self) -> Routing {
        let grounds = self.grounds.clone();
        let asks_all = self.book.has_room_again();
        if asks_all {
            self.book.ask_anew();
        }
        let tables = grounds.iter().enumerate().map(|(n, ground)| {
            let was = self.before.made.grounds.iter().position(|was| was.name == ground.name);
            let was = was.filter(|_| self.goes_on);
            let table = was.and_then(|at| self.before.tables.get(at)).cloned().unwrap_or_default();
            let was = was.and_then(|at| self.before.made.grounds.get(at));
            let asked = match was {
                Some(was) if was == ground && !asks_all => self.changed(ground),
                was => self.everything(ground, was),
            };
            self.table(n, ground, table, asked)
        });
        let tables = tables.collect();
        let numbers = self.book.settle();
        let (routes, mirrored) = (self.routes.clone(), self.model.mirrored.clone());
        Routing { tables, numbers, made: Arc::new(Made { grounds, routes, mirrored, book: self.book }) }
    }

    /// Networks whose routes are others than before.
    fn changed(&self, ground: &Ground) -> Vec<Prefix> {
        let before = &self.before.made;
        let Some(changed) = self.routes.changed_since(&before.routes) else {
            return self.everything(ground, Some(ground));
        };
        let here = changed.iter().filter(|(vrf, _)| *vrf == ground.name);
        let mut asked: Vec<Prefix> = here.map(|(_, place)| place.prefix).collect();
        if !Arc::ptr_eq(&before.mirrored, &self.model.mirrored) {
            let Some(changed) = self.model.mirrored.changed_since(&before.mirrored) else {
                return self.everything(ground, Some(ground));
            };
            asked.extend(changed);
            asked.extend(EVERYWHERE);
        }
        asked
    }

    /// Every network there is or was.
    fn everything(&self, ground: &Ground, was: Option<&Ground>) -> Vec<Prefix> {
        let before = &self.before.made;
        let mut asked: Vec<Prefix> = EVERYWHERE.to_vec();
        for (ground, mirrored, routes) in std::iter::once((ground, &self.model.mirrored, self.routes))
            .chain(was.map(|was| (was, &before.mirrored, &before.routes)))
        {
            asked.extend(ground.fixed.keys().copied());
            asked.extend(ground.mirrored(mirrored));
            asked.extend(routes.networks(&ground.name, None));
        }
        asked
    }

    /// A table with what comes of the networks that are asked about.
    fn table(&mut self, n: usize, ground: &Ground, table: Table, mut asked: Vec<Prefix>) -> Table {
        asked.sort_unstable();
        asked.dedup();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in asked {
            let (lpm, changes) = match prefix.address {
                IpAddr::V4(_) => (&table.v4, &mut v4),
                IpAddr::V6(_) => (&table.v6, &mut v6),
            };
            let (key, len) = (key_of(prefix), prefix.len);
            let (was, value) = (lpm.exact(key, len), self.answer(n, ground, prefix));
            if was != value {
                self.book.take(value);
                self.book.leave(was);
                changes.push(Change { key, len, value });
            }
        }
        let changed = |lpm: Lpm, mut changes: Vec<Change>| match changes.is_empty() {
            true => lpm,
            false => lpm.changed(&mut changes),
        };
        Table { v4: changed(table.v4, v4), v6: changed(table.v6, v6) }
    }

    /// The number of what comes of a network.
    fn answer(&mut self, n: usize, ground: &Ground, prefix: Prefix) -> u32 {
        if let Some(action) = ground.fixed.get(&prefix) {
            return self.book.number((*action).into());
        }
        if let Some((place, way)) = self.routes.to(&ground.name, prefix).next() {
            return self.way(n, ground, place, way);
        }
        match self.of_kernel(ground, prefix) {
            Some(answer) => self.book.number(answer),
            None => NO_ROUTE,
        }
    }

    fn way(&mut self, n: usize, ground: &Ground, place: Place, way: &Arc<Way>) -> u32 {
        if way.count {
            // Whoever leads the same way has another counter.
            let counter = self.routes.counter(&ground.name, place);
            return self.book.number(Answer { counter, ..self.answer_of(ground, way) });
        }
        let key = (n, Arc::as_ptr(way));
        if let Some(number) = self.known.get(&key) {
            return *number;
        }
        let number = self.book.number(self.answer_of(ground, way));
        self.known.insert(key, number);
        number
    }

    fn answer_of(&self, ground: &Ground, way: &Way) -> Answer {
        match way.kind {
            RouteKind::Blackhole => Action::Blackhole.into(),
            RouteKind::Unreachable => Action::Unreachable.into(),
            RouteKind::Prohibit => Action::Prohibit.into(),
            RouteKind::Via => {
                let goal = Goal::Via(hops(self.model, ground, &way.via));
                Answer { goal, mtu: way.mtu.unwrap_or(NO_MTU), counter: None }
            }
        }
    }

    /// What the node's kernel has a route for; all of it, unless it is mirrored.
    fn of_kernel(&self, ground: &Ground, prefix: Prefix) -> Option<Answer> {
        let (kernel, mirrored) = (ground.ways.kernel.as_ref(), &self.model.mirrored);
        let is_read = ground.leads_out() && ground.mirrors;
        let seen = mirrored.to(ground.settings.kernel_table, prefix).filter(|_| is_read);
        for route in seen {
            let goal = match self.model.meaning(&ground.name, &ground.ways, route) {
                Meaning::Kernel => Goal::Action(Action::Kernel(kernel?.fid)),
                Meaning::Direct(via) => Goal::Via(hops(self.model, ground, &via)),
                Meaning::Link(way) => Goal::Action(Action::Link(way.fid)),
                Meaning::Refuse(Kind::Blackhole) => return Some(Action::Blackhole.into()),
                Meaning::Refuse(Kind::Prohibit) => return Some(Action::Prohibit.into()),
                Meaning::Refuse(_) => return Some(Action::Unreachable.into()),
                Meaning::Circle | Meaning::Known => continue,
            };
            return Some(Answer { goal, mtu: route.1.mtu.unwrap_or(NO_MTU), counter: None });
        }
        // What is not known to be refused there is not refused here.
        let hands_all = !ground.mirrors || mirrored.is_empty() || mirrored.beyond > 0;
        (hands_all && EVERYWHERE.contains(&prefix)).then_some(Action::Kernel(kernel?.fid).into())
    }
}

/// A route's next hops, each where it is a neighbour.
fn hops(model: &Model, ground: &Ground, via: &[NextHop]) -> Vec<Hop> {
    let fid = |hop: &NextHop| {
        if let Some(way) = ground.ways.out.iter().find(|way| hop.bridge.as_ref() == Some(&way.bridge)) {
            return Some(way.fid);
        }
        let own = model.gateway_to(&ground.name, hop)?;
        model.fids.get(&(model.bridges.get(&own.bridge)?.id, own.vid)).copied()
    };
    let hop = |hop: &NextHop| Some(Hop { fid: fid(hop)?, ip: to_bits(hop.address), weight: hop.weight });
    via.iter().filter_map(hop).collect()
}

fn key_of(prefix: Prefix) -> u128 {
    match prefix.network().address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
