//! Declared routes: a table that is changed by making another one, which shares what did not change and knows what
//! did. So a change costs what it changes, however many routes there are: whoever follows (the check, the store, the
//! snapshot) looks at that and not at the rest.

use super::network::{CHUNK, Network, put};
use super::{ROUTE_COUNTERS, ROUTES_COUNTED_MAX, ROUTES_STATIC_MAX};
use immutable_chunkmap::map::Map;
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use switch_api::{
    ApiError, Code, Name, NextHop, Owner, Prefix, Request, Route, RouteApply, RouteDelete, RouteKind,
};

/// Of several routes to one network the one with the lowest metric is used; it comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The network.
    pub prefix: Prefix,
    /// See [`Route`].
    pub metric: u32,
}

/// What becomes of packets. Routes that lead the same way share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Way {
    /// See [`Route`].
    pub kind: RouteKind,
    /// See [`Route`].
    pub via: Vec<NextHop>,
    /// See [`Route`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// See [`Route`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub count: bool,
    /// See [`Route`].
    pub owner: Owner,
}

impl Way {
    /// That of a route.
    pub fn of(route: &Route) -> Self {
        Self {
            kind: route.kind,
            via: route.via.clone(),
            mtu: route.mtu,
            count: route.count,
            owner: route.owner,
        }
    }
}

type Table = Map<Prefix, Network<Way>, CHUNK>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    tables: BTreeMap<Name, Table>,
    /// Each way once, and how many routes lead there.
    ways: Map<Arc<Way>, u32, CHUNK>,
    len: usize,
    /// Those that are counted, each with its counter.
    counted: Arc<Counted>,
    revision: u64,
    /// The revision that this one was made of, and where it differs.
    base: u64,
    changed: Arc<Vec<(Name, Place)>>,
}

/// Which routes are counted, and where. A counter has its route for as long as it is counted.
#[derive(Clone, Debug, Default)]
struct Counted {
    counters: BTreeMap<(Name, Place), NonZeroU16>,
    /// Counters that nobody has since the last change: whoever reads an older snapshot may count there.
    resting: Vec<NonZeroU16>,
    free: Vec<NonZeroU16>,
}

impl Counted {
    /// A counter that is new, or was given back before this change.
    fn take(&mut self) -> Option<NonZeroU16> {
        let used = self.counters.len() + self.resting.len();
        let fresh = || NonZeroU16::new(used as u16 + 1).filter(|_| used < ROUTE_COUNTERS);
        self.free.pop().or_else(fresh)
    }
}

impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        self.tables == other.tables
    }
}

impl Eq for Routes {}

/// What a request does to routes: what it takes away, what it puts in place of what there is, and what it adds.
pub(super) struct Parts<'a> {
    delete: &'a [RouteDelete],
    replace: &'a [Route],
    add: &'a [Route],
    /// Lists have names, which errors tell with the place in it.
    is_list: bool,
}

impl<'a> Parts<'a> {
    /// None if the request is about something else.
    pub(super) fn of(request: &'a Request) -> Option<Self> {
        let none = Parts { delete: &[], replace: &[], add: &[], is_list: false };
        match request {
            Request::RouteAdd(route) => Some(Parts { add: std::slice::from_ref(route), ..none }),
            Request::RouteDelete(by) => Some(Parts { delete: std::slice::from_ref(by), ..none }),
            Request::RouteApply(RouteApply { delete, replace, add }) => {
                Some(Parts { delete, replace, add, is_list: true })
            }
            _ => None,
        }
    }

    /// Routes that are to be there, each with what an error about its `field` names.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&'a Route, impl Fn(&str) -> String)> {
        let lists = [("replace", self.replace), ("add", self.add)];
        let is_list = self.is_list;
        lists.into_iter().flat_map(move |(list, routes)| {
            routes.iter().enumerate().map(move |(n, route)| {
                (
                    route,
                    move |field: &str| if is_list { format!("{list}[{n}].{field}") } else { field.into() },
                )
            })
        })
    }
}

/// Whether a request is about routes, and so about nothing else.
pub fn concerns(request: &Request) -> bool {
    Parts::of(request).is_some()
}

impl Routes {
    /// These routes after `request`: all of it or, with an error, nothing. What is deleted goes first; then what is
    /// replaced, then what is added comes.
    pub(super) fn after(&self, request: &Request) -> Result<Self, ApiError> {
        let Some(parts) = Parts::of(request) else { return Ok(self.clone()) };
        let (mut next, mut changed) = (self.clone(), Vec::new());
        (next.base, next.revision) = (self.revision, self.revision + 1);
        next.wake_counters();
        for (n, by) in parts.delete.iter().enumerate() {
            let gone = next.delete(by).map_err(|error| match parts.is_list {
                true => error.field(format!("delete[{n}].prefix")),
                false => error,
            })?;
            changed.extend(gone.into_iter().map(|place| (by.vrf.clone(), place)));
        }
        for (n, (route, named)) in parts.routes().enumerate() {
            let place = place_of(route);
            if n >= parts.replace.len() && next.get(&route.vrf, place).is_some() {
                return Err(exists(route).field(named("prefix")));
            }
            next.put(route).map_err(|error| error.field(named("prefix")))?;
            changed.push((route.vrf.clone(), place));
        }
        next.changed = Arc::new(changed);
        Ok(next)
    }

    fn put(&mut self, route: &Route) -> Result<(), ApiError> {
        let place = (route.vrf.clone(), place_of(route));
        if route.count && !self.counted.counters.contains_key(&place) {
            let counted = Arc::make_mut(&mut self.counted);
            let is_full = counted.counters.len() >= ROUTES_COUNTED_MAX;
            let Some(counter) = counted.take().filter(|_| !is_full) else {
                let text = format!("no more than {ROUTES_COUNTED_MAX} routes can be counted");
                return Err(
                    ApiError::new(Code::Limit, text).hint("`switch-ctl route stats` shows those that are")
                );
            };
            counted.counters.insert(place, counter);
        } else if !route.count {
            self.uncount(place);
        }
        let owner = self.get(&route.vrf, place_of(route)).map_or(route.owner, |present| present.owner);
        let way = Way { owner, ..Way::of(route) };
        let way = self.ways.get_key(&way).cloned().unwrap_or_else(|| Arc::new(way));
        *self.ways.get_or_default_cow(way.clone()) += 1;
        let table = match self.tables.get_mut(&route.vrf) {
            Some(table) => table,
            None => self.tables.entry(route.vrf.clone()).or_default(),
        };
        match put(table, route.prefix, route.metric, Some(way)) {
            Some(before) => self.leave(&before),
            None if self.len >= ROUTES_STATIC_MAX => {
                return Err(ApiError::full(ROUTES_STATIC_MAX, "declared routes", "route list"));
            }
            None => self.len += 1,
        }
        Ok(())
    }

    fn delete(&mut self, by: &RouteDelete) -> Result<Vec<Place>, ApiError> {
        let is_meant = |place: &Place| by.metric.is_none_or(|metric| metric == place.metric);
        let gone: Vec<Place> = self.to(&by.vrf, by.prefix).map(|(place, _)| place).filter(is_meant).collect();
        if gone.is_empty() {
            let text = format!("there is no route to {} in VRF {}", by.prefix, by.vrf);
            return Err(ApiError::new(Code::NotFound, text).field("prefix").hint(
                "`switch-ctl route list` shows those there are; a gateway's network goes with its address",
            ));
        }
        for place in &gone {
            let way =
                self.tables.get_mut(&by.vrf).and_then(|table| put(table, place.prefix, place.metric, None));
            way.inspect(|way| self.leave(way));
            self.uncount((by.vrf.clone(), *place));
            self.len -= 1;
        }
        if self.tables.get(&by.vrf).is_some_and(|table| table.len() == 0) {
            self.tables.remove(&by.vrf);
        }
        Ok(gone)
    }

    /// A route is counted no more.
    fn uncount(&mut self, place: (Name, Place)) {
        if self.counted.counters.contains_key(&place) {
            let counted = Arc::make_mut(&mut self.counted);
            let counter = counted.counters.remove(&place);
            counted.resting.extend(counter);
        }
    }

    /// What the last change gave back can be given out.
    fn wake_counters(&mut self) {
        if !self.counted.resting.is_empty() {
            let counted = Arc::make_mut(&mut self.counted);
            counted.free.append(&mut counted.resting);
        }
    }

    /// Routes that are counted, each with its counter.
    pub fn counted(&self) -> impl ExactSizeIterator<Item = (&Name, Place, NonZeroU16)> {
        self.counted.counters.iter().map(|((vrf, place), counter)| (vrf, *place, *counter))
    }

    /// A route's counter, if it has one.
    pub fn counter(&self, vrf: &Name, place: Place) -> Option<NonZeroU16> {
        self.counted.counters.get(&(vrf.clone(), place)).copied()
    }

    /// A route less that leads there.
    fn leave(&mut self, way: &Arc<Way>) {
        let uses = self.ways.get_mut_cow(way).map(|uses| {
            *uses -= 1;
            *uses
        });
        if uses == Some(0) {
            self.ways.remove_cow(way);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where a route leads.
    pub fn get(&self, vrf: &Name, place: Place) -> Option<&Arc<Way>> {
        self.tables.get(vrf)?.get(&place.prefix)?.get(place.metric)
    }

    /// Routes to a network; the first is used.
    pub fn to(&self, vrf: &Name, prefix: Prefix) -> impl Iterator<Item = (Place, &Arc<Way>)> {
        let network = self.tables.get(vrf).and_then(|table| table.get(&prefix)).into_iter();
        network.flat_map(Network::all).map(move |(metric, way)| (Place { prefix, metric }, way))
    }

    /// Networks of a table from the first behind `after` on. Finding the first costs a hundredth of going through all.
    pub fn networks(&self, vrf: &Name, after: Option<Prefix>) -> impl Iterator<Item = Prefix> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let table = self.tables.get(vrf).into_iter();
        table.flat_map(move |table| table.range(range)).map(|(prefix, _)| *prefix)
    }

    /// All of them, by table, network and metric.
    pub fn all(&self) -> impl Iterator<Item = (&Name, Place, &Arc<Way>)> {
        let networks = self.tables.iter().flat_map(|(vrf, table)| table.into_iter().map(move |of| (vrf, of)));
        networks.flat_map(|(vrf, (prefix, network))| {
            network.all().map(move |(metric, way)| (vrf, Place { prefix: *prefix, metric }, way))
        })
    }

    /// Where these differ from what `before` had, if that is known: from the very ones they were made of.
    pub fn changed_since(&self, before: &Self) -> Option<&[(Name, Place)]> {
        match before.revision {
            same if same == self.revision => Some(&[]),
            base if base == self.base => Some(&self.changed),
            _ => None,
        }
    }

    /// Where these differ from what they were made of.
    pub fn changed(&self) -> &[(Name, Place)] {
        &self.changed
    }
}

/// A route as it was declared.
pub fn declared(vrf: &Name, place: Place, way: &Way) -> Route {
    let Way { kind, via, mtu, count, owner } = way.clone();
    Route { prefix: place.prefix, vrf: vrf.clone(), metric: place.metric, kind, via, mtu, count, owner }
}

fn place_of(route: &Route) -> Place {
    Place { prefix: route.prefix, metric: route.metric }
}

fn exists(route: &Route) -> ApiError {
    let text = format!("there is a route to {} with metric {} already", route.prefix, route.metric);
    ApiError::new(Code::Exists, text).hint("delete it first, or give another metric; the lowest is used")
}
