//! The mirror of the kernel's routing tables. News of a route says what stands there now, and is taken at its word: a change
//! costs what it changes, however many routes there are. Where news does not say all (some was lost, a device went, several
//! routes stand in one place; see [`news`]) everything is asked anew and compared, so that nothing is missed for good; that
//! costs the control thread a quarter of its time at most (ADR 0023).
//!
//! | module | what |
//! |---|---|
//! | [`answer`] | what the kernel answers to a question for everything, and what that may lack |
//! | [`news`] | what a message of news changes, or that it leaves a doubt |
//! | [`read`] | a route as the kernel writes it |

mod answer;
mod news;
mod read;
#[cfg(test)]
mod tests;

use super::daemon::Daemon;
use super::rtnl::{Rtnl, table_of};
use crate::config::mirrored::{Change, KernelHop, KernelRoute, Meaning, Mirrored, TABLE_LOCAL, shown};
use crate::config::shared::Ways;
use crate::config::snapshot::compile_mirrored;
use answer::{Answer, Meanwhile, Missing};
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
/// The same if nothing is in doubt but whether the answer was whole: where routes of IPv6 come and go all the time it never is.
const PAUSE_FACTOR_GAPS: u32 = 30;
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
    /// What the last answer lacked, and stays.
    missing: Missing,
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
            missing: Missing::default(),
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
        let start = Instant::now();
        let (known, tables, next, limit) = (&mut self.known, &self.tables, &mut self.next, self.limit);
        // Else nobody asked, or all is asked anew before long.
        let is_wanted = !tables.is_empty() && self.complaint.is_none();
        let mut is_doubt = false;
        let read = read_news(&self.news, |bytes| {
            if is_wanted {
                let change = next.get_or_insert_with(|| Change::of(present));
                is_doubt |= known.take(bytes, tables, change, limit);
            }
        });
        self.count(&read);
        if is_wanted && (is_doubt || read.overruns > 0) {
            self.doubt(PAUSE_FACTOR);
        }
        if self.next.is_some() {
            self.due.get_or_insert(self.published + PAUSE_MIN);
        }
        self.work += start.elapsed();
    }

    fn count(&mut self, read: &Read) {
        self.more = read.more;
        self.overruns += read.overruns;
        if !read.more {
            self.known.is_up_to_date();
        }
    }

    fn doubt(&mut self, factor: u32) {
        let at = self.asked + PAUSE_MIN.max(self.took * factor);
        self.question = Some(self.question.map_or(at, |due| due.min(at)));
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
        let read = read_news(&mirror.news, |_| ());
        (mirror.more, mirror.overruns) = (read.more, mirror.overruns + read.overruns);
        let answer = mirror.ask();
        mirror.questions += 1;
        let mut doubt = None;
        match answer {
            Ok(answer) => {
                mirror.complaint = None;
                let mut change = Change::of(&self.model.mirrored);
                doubt = mirror.settle(answer, read.more, &mut change);
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
            doubt.into_iter().for_each(|factor| mirror.doubt(factor));
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
            unsure: mirror.question.is_some(),
        })
    }
}

/// How news was read.
#[derive(Debug, Default)]
struct Read {
    /// More waits.
    more: bool,
    /// Times that some was lost.
    overruns: u64,
}

/// Gives `take` the news that waits, up to so much at once.
fn read_news(socket: &Socket, mut take: impl FnMut(&[u8])) -> Read {
    let (mut read, mut buffer) = (Read::default(), Vec::with_capacity(32 << 10));
    for _ in 0..NEWS_AT_ONCE {
        buffer.clear();
        match socket.recv_from(&mut buffer, 0) {
            Ok(_) => take(&buffer),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => read.overruns += 1,
            Err(_) => return read,
        }
    }
    Read { more: true, ..read }
}

impl Mirror {
    /// Everything in the tables, and the kernel's own addresses.
    fn ask(&mut self) -> io::Result<Answer> {
        let mut answer = Answer::default();
        if self.tables.is_empty() {
            self.known = Known::default();
            return Ok(answer);
        }
        let rtnl = Rtnl::open()?;
        let mut known = Known::of_answer(rtnl.links()?);
        for table in self.tables.clone().into_iter().chain([TABLE_LOCAL]) {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                dump(&rtnl, table, family, |message| match known.read(message) {
                    Ok(Some((place, way))) => answer.routes.push((place, way)),
                    Ok(None) => {}
                    Err(why) => {
                        answer.odd.0 += 1;
                        answer.odd.1.get_or_insert(why);
                    }
                })?;
            }
        }
        known.put_in_order(&mut answer.routes);
        self.known = known;
        Ok(answer)
    }

    /// Makes of an answer, and of what was told while it was read, what there is. `more`: what was told before waits still. If
    /// that leaves a doubt: how many times as long as the question took the next one has time.
    fn settle(&mut self, answer: Answer, more: bool, change: &mut Change) -> Option<u32> {
        let mut meanwhile = Meanwhile::default();
        if self.tables.is_empty() {
            // Nothing is kept, and nobody wants news.
            change.become_all(&[], self.limit, Default::default(), |_| false);
            self.missing = Missing::default();
            return None;
        }
        let read = read_news(&self.news, |bytes| meanwhile.news.push(bytes.to_vec()));
        meanwhile.is_part = more || read.more || read.overruns > 0;
        let missing = std::mem::take(&mut self.missing);
        let put = answer.put(&meanwhile, &mut self.known, missing, &self.tables, change, self.limit);
        self.missing = put.missing;
        self.count(&read);
        if put.is_doubt { Some(PAUSE_FACTOR) } else { put.has_gaps.then_some(PAUSE_FACTOR_GAPS) }
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
