//! The mirror of the kernel's routing tables. News of a route says what stands there now, and is taken at its word: a change
//! costs what it changes, however many routes there are. Where news does not say all (some was lost, a device went, several
//! routes stand in one place; see [`news`]) everything is asked anew and compared, so that nothing is missed for good; that
//! costs the control thread a quarter of its time at most (ADR 0023).
//!
//! | module | what |
//! |---|---|
//! | [`news`] | what a message of news changes, or that it leaves a doubt |
//! | [`read`] | a route as the kernel writes it |

mod news;
mod read;

use super::daemon::Daemon;
use super::rtnl::{Rtnl, table_of};
use crate::config::mirrored::{
    Change, KernelHop, KernelPlace, KernelRoute, KernelWay, Meaning, Mirrored, TABLE_LOCAL, shown,
};
use crate::config::shared::Ways;
use crate::config::snapshot::compile_mirrored;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use news::Known;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::{MirrorStatus, Vrf};

/// Groups of rtnetlink (include/uapi/linux/rtnetlink.h): devices, routes of both versions, next-hop objects.
const GROUPS: [u32; 4] = [1, 7, 11, 32];
/// Bytes of news that may wait; more are an overrun, which costs a question and is counted.
pub const NEWS_BYTES: usize = 256 << 10;
/// Messages of news that are read before anybody else is served.
const NEWS_AT_ONCE: usize = 4096;
/// Between two publications, and two questions, at least: routing daemons write in bursts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Between two questions so many times as long as the last one took: doubts are rare, and till one is settled what is mirrored
/// may be old.
const PAUSE_FACTOR: u32 = 3;
/// After a question that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Rules of the kernel change without news; so often all is asked anew without a doubt.
const AUDIT: Duration = Duration::from_secs(30);
/// And so many times as long as the last one took: a hundredth of the time.
const AUDIT_FACTOR: u32 = 100;

/// What is mirrored, and when it is due again.
#[derive(Debug)]
pub struct Mirror {
    news: Socket,
    /// Routes at most.
    limit: usize,
    tables: BTreeSet<u32>,
    known: Known,
    /// What news has made of the mirror since the last publication, and when that is published.
    next: Option<Change>,
    due: Option<Instant>,
    published: Instant,
    /// More news waits than was read at once.
    more: bool,
    /// News left a doubt: when all is asked anew.
    question: Option<Instant>,
    asked: Instant,
    took: Duration,
    /// Work since the last publication, and up to it.
    work: Duration,
    worked: Duration,
    overruns: u64,
    questions: u64,
    changes: u64,
    /// Why the last question failed.
    complaint: Option<String>,
}

impl Mirror {
    /// One that mirrors nothing yet, and `limit` routes at most; `bytes` of news may wait.
    pub fn new(bytes: usize, limit: usize) -> io::Result<Self> {
        let mut news = Socket::new(NETLINK_ROUTE)?;
        news.bind_auto()?;
        for group in GROUPS {
            // Next-hop objects came with Linux 5.3: older kernels have none to tell of.
            match news.add_membership(group) {
                Err(error) if group <= 11 => return Err(error),
                _ => {}
            }
        }
        news.set_rx_buf_sz(bytes as libc::c_int)?;
        news.set_non_blocking(true)?;
        let now = Instant::now();
        Ok(Self {
            news,
            limit,
            tables: BTreeSet::new(),
            known: Known::default(),
            next: None,
            due: None,
            published: now,
            more: false,
            question: None,
            asked: now,
            took: Duration::ZERO,
            work: Duration::ZERO,
            worked: Duration::ZERO,
            overruns: 0,
            questions: 0,
            changes: 0,
            complaint: None,
        })
    }

    /// For the poll.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.news
    }

    /// Reads news into what is to be published.
    fn hear(&mut self, present: &Mirrored) {
        let (start, mut buffer) = (Instant::now(), Vec::with_capacity(32 << 10));
        self.more = false;
        for n in 0.. {
            if n == NEWS_AT_ONCE {
                self.more = true;
                break;
            }
            buffer.clear();
            match self.news.recv_from(&mut buffer, 0) {
                // Nobody asked, or all is asked anew before long.
                Ok(_) if self.tables.is_empty() || self.complaint.is_some() => {}
                Ok(_) => {
                    let change = self.next.get_or_insert_with(|| Change::of(present));
                    if self.known.take(&buffer, &self.tables, change, self.limit) {
                        self.doubt();
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.overruns += 1;
                    self.doubt();
                }
                Err(_) => break,
            }
        }
        if self.next.is_some() {
            self.due.get_or_insert(self.published + PAUSE_MIN);
        }
        self.work += start.elapsed();
    }

    fn doubt(&mut self) {
        let pause = PAUSE_MIN.max(self.took * PAUSE_FACTOR);
        self.question.get_or_insert(self.asked + pause);
    }

    /// How long until something is due.
    pub fn wait(&self) -> Option<Duration> {
        let now = self.more.then(Instant::now);
        let due = [self.due, self.question, now].into_iter().flatten().min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn is_audit_due(&self) -> bool {
        !self.tables.is_empty() && self.asked.elapsed() > AUDIT.max(self.took * AUDIT_FACTOR)
    }
}

impl Daemon {
    /// There is news of the kernel's tables.
    pub fn kernel_changed(&mut self) {
        if let Some(mirror) = &mut self.mirror {
            mirror.hear(&self.model.mirrored);
        }
    }

    /// Publishes what news changed, or asks the kernel, if it is time.
    pub fn mirror_due(&mut self) {
        let Some(mirror) = &mut self.mirror else { return };
        if mirror.more {
            mirror.hear(&self.model.mirrored);
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        if is_due(mirror.question) || mirror.is_audit_due() {
            self.ask_kernel();
        } else if is_due(mirror.due) {
            self.follow();
        }
    }

    /// What is declared has changed: other tables may be mirrored now.
    pub(super) fn mirror_tables(&mut self) {
        let names = self.model.vrf_names();
        let wanted = names.into_iter().filter(|name| self.model.mirrors(name));
        let wanted: BTreeSet<u32> = wanted.map(|name| self.model.vrf(name).kernel_table).collect();
        let Some(mirror) = self.mirror.as_mut().filter(|mirror| mirror.tables != wanted) else { return };
        mirror.tables = wanted;
        self.ask_kernel();
    }

    /// Whether the mirror has all there is in a table of the kernel.
    pub(super) fn mirrors_all(&self, table: u32) -> bool {
        let is_sure = |mirror: &Mirror| {
            mirror.tables.contains(&table) && mirror.question.is_none() && mirror.complaint.is_none()
        };
        self.mirror.as_ref().is_some_and(is_sure) && self.model.mirrored.beyond == 0
    }

    /// Publishes what news changed.
    fn follow(&mut self) {
        let start = Instant::now();
        let Some(mirror) = &mut self.mirror else { return };
        (mirror.due, mirror.published) = (None, start);
        let next = mirror.next.take().and_then(|change| change.finish(&self.model.mirrored));
        let is_other = next.is_some();
        next.into_iter().for_each(|next| self.adopt_mirrored(next));
        let Some(mirror) = &mut self.mirror else { return };
        mirror.published = Instant::now();
        let work = std::mem::take(&mut mirror.work) + start.elapsed();
        if is_other {
            (mirror.worked, mirror.changes) = (work, mirror.changes + 1);
        }
    }

    /// Makes it what workers go by: for what differs, however much there is beside it.
    fn adopt_mirrored(&mut self, next: Mirrored) {
        self.model.mirrored = Arc::new(next);
        let generation = self.publisher.generation() + 1;
        let snapshot = compile_mirrored(&self.model, self.publisher.current(), generation);
        self.publisher.publish(snapshot);
        if let Err(error) = self.await_seen(generation) {
            tracing::error!("{error}");
        }
    }

    fn ask_kernel(&mut self) {
        let Some(mirror) = &mut self.mirror else { return };
        let start = Instant::now();
        // What is answered is newer than all news by now.
        (mirror.next, mirror.due, mirror.question) = (None, None, None);
        mirror.discard();
        let found = mirror.ask();
        mirror.questions += 1;
        match found {
            Ok(Found { routes, odd }) => {
                mirror.complaint = None;
                let mut change = Change::of(&self.model.mirrored);
                change.become_all(&routes, mirror.limit, odd);
                let next = change.finish(&self.model.mirrored);
                next.into_iter().for_each(|next| self.adopt_mirrored(next));
            }
            Err(error) => {
                let text = format!("the kernel's routes cannot be read: {error}");
                if mirror.complaint.as_ref() != Some(&text) {
                    tracing::warn!("{text}");
                }
                mirror.complaint = Some(text);
                mirror.question = Some(Instant::now() + RETRY);
            }
        }
        let now = Instant::now();
        let took = now - start;
        if let Some(mirror) = &mut self.mirror {
            (mirror.asked, mirror.published, mirror.took, mirror.work) = (now, now, took, Duration::ZERO);
        }
        tracing::debug!(?took, routes = self.model.mirrored.len(), "the kernel's routes were read");
    }

    /// What is mirrored for a routing table.
    pub(super) fn mirror_status(
        &self,
        vrf: &Vrf,
        ways: &Ways,
        problems: &mut Vec<String>,
    ) -> Option<MirrorStatus> {
        if !self.model.mirrors(&vrf.name) {
            return None;
        }
        let Some(mirror) = &self.mirror else {
            problems.push("the kernel's routes cannot be mirrored here; see switchd's log".into());
            return None;
        };
        let mirrored = &self.model.mirrored;
        let is_ours = |hop: &KernelHop| ways.kernel.as_ref().is_some_and(|it| it.device == hop.device);
        let is_circle = |route: &KernelRoute<'_>| {
            route.1.hops.iter().any(is_ours) && self.model.meaning(&vrf.name, ways, *route) == Meaning::Circle
        };
        let mut circles = mirrored.of(vrf.kernel_table).filter(is_circle);
        let first = circles.next();
        problems.extend(mirror.complaint.clone());
        if let Some((place, way)) = first {
            problems.push(format!(
                "the kernel's route to {} ({}) leads back to the switch; it is not used",
                place.prefix,
                shown(way)
            ));
        }
        if mirrored.beyond > 0 {
            problems.push(format!(
                "{} routes are beyond the limit of {} (switchd --mirror-routes) and not mirrored; the kernel decides about them",
                mirrored.beyond, mirror.limit
            ));
        }
        if let (odd @ 1.., Some(why)) = &mirrored.odd {
            problems.push(format!("{odd} routes of the kernel are not understood and not used: {why}"));
        }
        Some(MirrorStatus {
            routes: mirrored.len(),
            beyond: mirrored.beyond,
            odd: mirrored.odd.0,
            circles: usize::from(first.is_some()) + circles.count(),
            overruns: mirror.overruns,
            questions: mirror.questions,
            changes: mirror.changes,
            worked_us: mirror.worked.as_micros() as u64,
        })
    }
}

/// What the kernel has: places in order, each once, and what is not understood.
#[derive(Debug, Default)]
struct Found {
    routes: Vec<(KernelPlace, Arc<KernelWay>)>,
    odd: (usize, Option<String>),
}

impl Mirror {
    /// Reads news away that a question answers.
    fn discard(&mut self) {
        let mut buffer = Vec::with_capacity(32 << 10);
        self.more = false;
        for _ in 0..NEWS_AT_ONCE {
            buffer.clear();
            match self.news.recv_from(&mut buffer, 0) {
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.overruns += 1,
                Err(_) => return,
                Ok(_) => {}
            }
        }
        self.more = true;
    }

    /// Everything in the tables, and the kernel's own addresses.
    fn ask(&mut self) -> io::Result<Found> {
        let (mut known, mut found) = (Known::default(), Found::default());
        if self.tables.is_empty() {
            return Ok(found);
        }
        let rtnl = Rtnl::open()?;
        known.learn_devices(rtnl.links()?);
        for table in self.tables.clone().into_iter().chain([TABLE_LOCAL]) {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                dump(&rtnl, table, family, |message| match known.read(message) {
                    Ok(Some((place, way))) => found.routes.push((place, way)),
                    Ok(None) => {}
                    Err(why) => {
                        found.odd.0 += 1;
                        found.odd.1.get_or_insert(why);
                    }
                })?;
            }
        }
        // Stable: of several routes in one place the kernel uses the first.
        found.routes.sort_by_key(|(place, _)| *place);
        found.routes.dedup_by(|(next, _), (first, _)| {
            let is_same = next == first;
            if is_same {
                known.crowd(*first);
            }
            is_same
        });
        self.known = known;
        Ok(found)
    }
}

fn dump(
    rtnl: &Rtnl,
    table: u32,
    family: AddressFamily,
    mut take: impl FnMut(&RouteMessage),
) -> io::Result<()> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.attributes.push(RouteAttribute::Table(table));
    let answer = rtnl.ask(RouteNetlinkMessage::GetRoute(request), NLM_F_REQUEST | NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer
            && table_of(&route) == table
        {
            take(&route);
        }
        false
    });
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        answer => answer,
    }
}
