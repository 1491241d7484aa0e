//! `trace`: the pipeline run dry over the snapshot in force, and its answer in words. What is said here is read off
//! what the stages did; nothing is decided a second time.

mod tunnel;

use super::daemon::{Daemon, PortLife};
use crate::config::gateway::from_bits;
use crate::config::model::no_such;
use crate::config::rates::{Pace, Rate};
use crate::config::snapshot::{PortId, Snapshot};
use crate::counter::{DropReason, Event, Stage};
use crate::pipeline::binding::Turn;
use crate::pipeline::dry::{Dry, Step, Traced};
use crate::pipeline::note::Note;
use crate::pipeline::verdict::{Class, Verdict, Why};
use crate::policy::Slot;
use crate::table::flow::key::End;
use crate::wire::ethernet::{ARP, IPV4, IPV6};
use crate::wire::hop;
use crate::wire::ip::Version;
use crate::worker::thread::now;
use std::cell::Cell;
use switch_api::{
    ApiError, Code, Hex, Mac, Name, RouteGet, Trace, TraceDrop, TraceOut, TraceReply, TraceStep,
};

impl Daemon {
    /// What would become of a frame now. Changes nothing.
    pub(super) fn trace(&mut self, trace: &Trace) -> Result<TraceReply, ApiError> {
        let name = &trace.in_port;
        let id = self.model.ports.get(name).ok_or_else(|| no_such("port", name).field("in"))?.id;
        let snapshot = self.publisher.current().clone();
        let (packet, size) = (&trace.frame.0, self.doors.area.size());
        let dry = match &mut self.dry {
            Some(dry) => dry,
            none => {
                let made = Dry::new(size.chunk_bytes, self.secret).map_err(|error| {
                    ApiError::new(Code::System, error.to_string())
                        .hint("a trace needs some MiB of its own: see the memory and limits of the daemon's process")
                });
                none.insert(made?)
            }
        };
        let traced = dry.run(&snapshot, &self.tables, now(), id, packet).ok_or_else(|| {
            ApiError::new(Code::InvalidParams, format!("no frame is {} bytes long", packet.len()))
                .field("frame")
                .hint("a frame is 14 to 65 853 bytes, from its destination MAC on, without FCS")
        })?;
        let teller = Teller::new(self, &snapshot, id, packet);
        Ok(teller.reply(&traced))
    }

    /// What was decided about a frame, in words that a script can tell apart.
    pub(super) fn verdict_text(&self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Undecided => "undecided".into(),
            Verdict::Port(port) => format!("port {}", self.port_name(port)),
            Verdict::Segments(port) => format!("port {}, in segments", self.port_name(port)),
            Verdict::Flood(class) => format!("flood {}", class_name(class)),
            Verdict::Drop(reason) => format!("drop {}", reason.name()),
            Verdict::Aside(why) => format!("aside {}", aside(why).0),
            #[allow(unreachable_patterns, reason = "a stage may bring a verdict of its own")]
            other => format!("{other:?}").to_lowercase(),
        }
    }

    pub(super) fn port_name(&self, port: PortId) -> Name {
        let found = self.name_of(port).cloned();
        // A port that goes away takes its number with it; only what was learned still names it.
        found.unwrap_or_else(|| format!("port-{port}").parse().unwrap_or_else(|_| Name::main()))
    }
}

/// Puts what the stages did into words.
pub(super) struct Teller<'a> {
    daemon: &'a Daemon,
    snapshot: &'a Snapshot,
    /// By which port it came in, last: out of a tunnel it comes in once more.
    in_port: Cell<PortId>,
    /// What it is by now; empty once it is inside a packet that nobody has seen.
    packet: Cell<&'a [u8]>,
}

impl<'a> Teller<'a> {
    pub fn new(daemon: &'a Daemon, snapshot: &'a Snapshot, in_port: PortId, packet: &'a [u8]) -> Self {
        Self { daemon, snapshot, in_port: Cell::new(in_port), packet: Cell::new(packet) }
    }

    fn reply(&self, traced: &Traced) -> TraceReply {
        let mut before = Note::default();
        let steps = traced.steps.iter().map(|step| {
            let why = self.why(step, &before, Some(traced));
            before = step.note;
            TraceStep { stage: step.stage.name().into(), verdict: self.verdict(step.note.verdict), why }
        });
        let steps = steps.collect();
        let out = traced.leaving.iter().map(|leaving| TraceOut {
            port: self.name(leaving.port),
            by_switch: !leaving.is_itself,
            frame: Hex(leaving.bytes.clone()),
        });
        let drops = traced.drops.iter().map(|(port, reason, _)| TraceDrop {
            port: self.name(*port),
            reason: reason.name().into(),
            meaning: reason.meaning().into(),
            rule: self.rule_of(traced, *reason),
        });
        let all = traced.steps.iter().flat_map(|step| &step.events).chain(&traced.events);
        TraceReply {
            outcome: self.outcome(traced),
            generation: self.snapshot.generation,
            steps,
            out: out.collect(),
            drops: drops.collect(),
            events: all.map(|event| event.name().to_owned()).collect(),
        }
    }

    fn outcome(&self, traced: &Traced) -> String {
        let (itself, said): (Vec<_>, Vec<_>) = traced.leaving.iter().partition(|leaving| leaving.is_itself);
        let names = |of: &[&crate::pipeline::dry::Leaving]| {
            let mut names: Vec<_> = of.iter().map(|leaving| self.name(leaving.port).to_string()).collect();
            names.dedup();
            names.join(" ")
        };
        let mut parts = Vec::new();
        if !itself.is_empty() {
            parts.push(format!("leaves by {}", names(&itself)));
        }
        for (_, reason, _) in &traced.drops {
            let rule = self.rule_of(traced, *reason).map_or_else(String::new, |rule| format!(" [{rule}]"));
            parts.push(format!("dropped, {}{rule}: {}", reason.name(), reason.meaning()));
        }
        if traced.held {
            parts.push("waits until its neighbour answers".into());
        }
        if !said.is_empty() {
            parts.push(format!("the switch itself sends {} by {}", count(said.len(), "frame"), names(&said)));
        }
        if parts.is_empty() { "taken by the switch itself".into() } else { parts.join("; ") }
    }

    fn verdict(&self, verdict: Verdict) -> String {
        self.daemon.verdict_text(verdict)
    }

    /// Why a stage left the frame as it did. What left in the end is known of a dry run alone.
    pub fn why(&self, step: &Step, before: &Note, traced: Option<&Traced>) -> String {
        let note = &step.note;
        if let Verdict::Drop(reason) = note.verdict {
            let rule =
                traced.and_then(|traced| self.rule_of(traced, reason)).filter(|_| step.stage == Stage::Admit);
            let rule = rule.map_or_else(String::new, |rule| format!("[{rule}] "));
            return format!("{rule}{}", self.why_dropped(step.stage, reason, before));
        }
        let decided = !before.is_undecided() && step.stage != Stage::Parse;
        match step.stage {
            Stage::Parse => self.read(note),
            Stage::Guard => {
                let rates = self.snapshot.port(self.in_port.get()).and_then(|facts| facts.rates.as_ref());
                format!("{}{}", self.at(note.fid), within(rates.map(|rates| rates.rx)))
            }
            Stage::Learn => self.learned(note, &step.events),
            Stage::Tunnel => self.tunnelled(note, before),
            Stage::Translate => turned(&step.turn),
            Stage::Route => self.routed(note, &step.turn),
            Stage::Forward if decided => "decided already".into(),
            Stage::Forward => self.forwarded(note),
            Stage::Rewrite if note.routed => {
                let becomes = step.turn.becomes();
                let turned = becomes.map_or(String::new(), |_| format!("; {}", turned(&step.turn)));
                format!("from {}, to {}, one hop less to go{turned}", mac(note.src()), mac(note.dst))
            }
            Stage::Rewrite => "not routed: stays as it is".into(),
            Stage::Egress => self.leaves_as(note),
            Stage::Emit => self.emitted(note, traced),
            Stage::Admit if !matches!(note.verdict, Verdict::Flood(_)) && !rules(traced).is_empty() => {
                format!("allowed{}", self.rules(rules(traced)))
            }
            _ if note.verdict != before.verdict => self.verdict(note.verdict),
            _ if step.events.is_empty() => "nothing to do".into(),
            _ => step.events.iter().map(|event| event.name()).collect::<Vec<_>>().join(", "),
        }
    }

    fn why_dropped(&self, stage: Stage, reason: DropReason, before: &Note) -> String {
        let is_new = before.verdict != Verdict::Drop(reason);
        let down = match self.daemon.ports.get(&self.in_port.get()) {
            Some(PortLife::Down(why)) if stage == Stage::Guard && reason == DropReason::PortClosed => {
                Some(why)
            }
            _ => None,
        };
        match down {
            Some(why) => format!("port {} is down: {why}", self.name(self.in_port.get())),
            None if is_new => reason.meaning().into(),
            None if stage == Stage::Emit => "counted and given back".into(),
            None => "decided already".into(),
        }
    }

    fn read(&self, note: &Note) -> String {
        let tag = if note.tagged {
            format!("tag with VLAN {}, priority {}", note.tci & 0xfff, note.tci >> 13)
        } else {
            "no tag".into()
        };
        let kind = match note.ethertype() {
            IPV4 => "IPv4".into(),
            IPV6 => "IPv6".into(),
            ARP => "ARP".into(),
            other => format!("EtherType {other:#06x}"),
        };
        let addresses = self.hop(note).map_or(String::new(), |hop| {
            format!(", {} to {}, TTL {}", from_bits(hop.src), from_bits(hop.dst), hop.ttl)
        });
        format!("{} to {}, {tag}, {kind}{addresses}", mac(note.src()), mac(note.dst))
    }

    fn hop(&self, note: &Note) -> Option<hop::Hop> {
        let version = match note.ethertype() {
            IPV4 => Version::V4,
            IPV6 => Version::V6,
            _ => return None,
        };
        hop::read(self.packet.get().get(note.payload_at()..)?, version).ok()
    }

    /// A filtering identifier, by name.
    fn at(&self, fid: u16) -> String {
        let Some(facts) = self.snapshot.fids.get(usize::from(fid)) else { return "in no VLAN".into() };
        let bridge = self.daemon.model.bridges.iter().find(|(_, bridge)| bridge.id == facts.bridge);
        format!("VLAN {} of bridge {}", facts.vid, bridge.map_or("?", |(name, _)| name.as_str()))
    }

    /// Of a frame among others, whose station may have been new or not.
    pub fn learned_before(&self, note: &Note) -> String {
        format!("{} is behind {}", mac(note.src()), self.name(self.in_port.get()))
    }

    fn learned(&self, note: &Note, events: &[Event]) -> String {
        let (station, port) = (mac(note.src()), self.name(self.in_port.get()));
        match events.first() {
            Some(Event::MacLearned) => format!("{station} is new; it would be learned behind {port}"),
            Some(Event::MacMoved) => format!("{station} was behind another port; it would move to {port}"),
            Some(Event::LearnPortLimit) => format!("{station} is not learned: {port} has as many as it may"),
            Some(Event::LearnTableFull) => {
                format!("{station} is not learned: its place in the table is taken")
            }
            Some(other) => other.name().into(),
            None => format!("{station} is known behind {port}"),
        }
    }

    fn routed(&self, note: &Note, turn: &Turn) -> String {
        if !note.routed && note.is_undecided() {
            return "not for the gateway's MAC: stays on its bridge".into();
        }
        if let Verdict::Aside(why) = note.verdict {
            return format!("{}{}", aside(why).1, self.choice(note, turn));
        }
        format!("next hop {} in {}{}", mac(note.dst), self.at(note.fid), self.choice(note, turn))
    }

    /// What `route get` says of the destination.
    fn choice(&self, note: &Note, turn: &Turn) -> String {
        let Some(hop) = self.hop(note) else { return String::new() };
        let dst = turn.real().map_or(hop.dst, |to| to.ip);
        let facts = self.snapshot.port(self.in_port.get());
        let came = facts.and_then(|facts| self.snapshot.fids.get(usize::from(facts.vlans.untagged.0)));
        let bridges = || self.daemon.model.bridges.values();
        let bridge = came.and_then(|came| bridges().find(|bridge| bridge.id == came.bridge));
        let vrf = bridge.map(|bridge| bridge.object.vrf.clone());
        let get = vrf.map(|vrf| RouteGet { address: from_bits(dst), vrf });
        let choice = get.and_then(|get| self.daemon.explain_route(&get).ok());
        choice.map_or(String::new(), |choice| format!("; {}: {}", choice.what, choice.why.join("; ")))
    }

    fn forwarded(&self, note: &Note) -> String {
        match note.verdict {
            Verdict::Port(port) => format!("{} is behind {}", mac(note.dst), self.name(port)),
            Verdict::Flood(Class::UnknownUnicast) => {
                format!("nobody knows where {} is: to every member of {}", mac(note.dst), self.at(note.fid))
            }
            Verdict::Flood(_) => format!("to every member of {}", self.at(note.fid)),
            other => self.verdict(other),
        }
    }

    fn leaves_as(&self, note: &Note) -> String {
        match note.verdict {
            Verdict::Port(port) | Verdict::Segments(port) => {
                let Some(to) = self.snapshot.port(port) else { return "the port is gone".into() };
                let tag =
                    match (to.vlans.untagged.0 == note.fid, self.snapshot.fids.get(usize::from(note.fid))) {
                        (false, Some(fid)) => format!("with a tag, VLAN {}", fid.vid),
                        _ => "without a tag".into(),
                    };
                let tx = to.rates.as_ref().map(|rates| rates.tx);
                format!("{tag}; fits the MTU of {}{}", to.mtu, within(tx))
            }
            Verdict::Flood(_) => "each copy is prepared for its port when it is made".into(),
            _ => "does not leave as it is".into(),
        }
    }

    fn emitted(&self, note: &Note, traced: Option<&Traced>) -> String {
        match (note.verdict, traced) {
            (Verdict::Aside(_), _) => "set aside for the slow path".into(),
            (Verdict::Port(port) | Verdict::Segments(port), None) => {
                format!("queued for {}", self.name(port))
            }
            (Verdict::Flood(_), None) => "copies queued for the members that take them".into(),
            (_, None) => "counted and given back".into(),
            (_, Some(traced)) => {
                let copies = traced.leaving.iter().filter(|leaving| leaving.is_itself).count();
                let rules = match note.verdict {
                    Verdict::Flood(_) if !traced.rules.is_empty() => {
                        format!("; decided{}", self.rules(&traced.rules))
                    }
                    _ => String::new(),
                };
                format!("{} queued{rules}", count(copies, "frame"))
            }
        }
    }

    /// The rule by which something was dropped.
    fn rule_of(&self, traced: &Traced, reason: DropReason) -> Option<String> {
        let refused = traced.refused.iter().find(|refused| refused.reason == reason)?;
        Some(self.daemon.model.rule_name(refused.slot?)).filter(|rule| !rule.is_empty())
    }

    /// The rules that said something.
    fn rules(&self, rules: &[Slot]) -> String {
        let names = rules.iter().map(|slot| self.daemon.model.rule_name(*slot));
        let names: Vec<_> = names.map(|name| format!("[{name}]")).collect();
        format!(" by {}", names.join(" "))
    }

    fn name(&self, port: PortId) -> Name {
        self.daemon.port_name(port)
    }
}

/// The rules that said something, which is known of a dry run alone.
fn rules(traced: Option<&Traced>) -> &[Slot] {
    traced.map_or(&[], |traced| &traced.rules)
}

fn mac(word: u64) -> Mac {
    Mac::from_u64(word)
}

/// A limit that counts as unused: what is left of it, only a worker knows.
fn within(pace: Option<Pace>) -> String {
    let Some(Pace { packets, bytes }) = pace else { return String::new() };
    let said = |rate: Option<Rate>, what| rate.map(|rate| format!("{} {what} a second", rate.per_s));
    let rates: Vec<_> = [said(packets, "packets"), said(bytes, "bytes")].into_iter().flatten().collect();
    if rates.is_empty() {
        String::new()
    } else {
        format!("; limited to {}, none used here", rates.join(" and "))
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::UnknownUnicast => "unknown-unicast",
        Class::Multicast => "multicast",
        Class::Broadcast => "broadcast",
    }
}

/// Why a frame is set aside: a word, and a sentence.
fn aside(why: Why) -> (&'static str, &'static str) {
    match why {
        Why::Host => ("host", "for the switch itself"),
        Why::Hold => ("hold", "its neighbour is not known yet"),
        Why::NoNeighbour => ("no-neighbour", "its neighbour does not answer"),
        Why::Expired => ("expired", "it has been over too many routers"),
        Why::NoRoute => ("no-route", "there is no way"),
        Why::FromKernel => ("kernel-loop", "it came from the kernel, and its only way leads back there"),
        Why::Unreachable => ("no-route", "a route says that it cannot be reached"),
        Why::Prohibited => ("prohibited", "a route forbids it"),
        Why::Scope => ("scope", "its source is link-local and its destination is not here"),
        Why::Rejected => {
            ("acl-rejected", "a rule of an access control list rejects it, and its sender is told")
        }
        Why::TooBig => ("too-big", "it does not fit through the port that leads to its destination"),
        Why::Tunnel => ("tunnel", "it came out of a tunnel, and enters once more, by its port"),
        #[allow(unreachable_patterns, reason = "a stage may bring a reason of its own")]
        _ => ("other", "for the slow path"),
    }
}

/// What becomes of a packet's addresses.
fn turned(turn: &Turn) -> String {
    let end = |end: &End| match end.port {
        0 => from_bits(end.ip).to_string(),
        port => format!("{} port {port}", from_bits(end.ip)),
    };
    match (turn.becomes(), turn.real()) {
        (Some([from, to]), _) => format!("becomes one from {} to {}", end(&from), end(&to)),
        (None, Some(to)) => format!("begins a flow that goes to {}", end(&to)),
        (None, None) => "stays as it is".into(),
    }
}
