//! What becomes of flows, told as it happens to whoever asked for it. The workers hand it over by a bounded queue that
//! is there only while somebody listens; what finds no room there, or comes faster than it is told, is counted.

use super::capture::epoch_ns;
use super::daemon::Daemon;
use super::flows::Names;
use super::refused::protocol_name;
use crate::table::flow::watch::{FlowNews, Watch, What};
use crate::wire::ip::{SCTP, TCP, UDP};
use crate::worker::Command;
use crate::worker::thread::{command, now};
use std::sync::Arc;
use switch_api::{EVENT_KINDS, FlowEnd, FlowEntry, Happened};

/// Events told before the loop looks at others again: a few milliseconds.
const FLOWS_A_TURN: usize = 512;

impl Daemon {
    /// Begins or ends to hear of flows.
    pub(super) fn watch_flows(&mut self, wanted: bool) {
        self.watches_ended.retain(|watch| Arc::strong_count(watch) > 1);
        match (&self.flow_watch, wanted) {
            (None, true) => self.flow_watch = Some(Arc::default()),
            // Freed here, when no worker has it any more; a worker frees nothing.
            (Some(_), false) => self.watches_ended.extend(self.flow_watch.take()),
            _ => return,
        }
        for mail in self.doors.mail.iter() {
            // A worker that takes no commands is stopped as a whole: see `await_seen`.
            _ = command(mail, Command::WatchFlows(self.flow_watch.clone()));
        }
    }

    /// Whether somebody hears of flows.
    pub(super) fn is_watching_flows(&self) -> bool {
        self.flow_watch.is_some()
    }

    /// What has become of flows, and of how many more that was lost.
    pub(super) fn take_flow_news(&self) -> (Vec<Happened>, u64) {
        let Some(watch) = &self.flow_watch else { return (Vec::new(), 0) };
        let lost = watch.take_lost();
        let mut news = std::iter::from_fn(|| watch.take()).take(FLOWS_A_TURN).peekable();
        if news.peek().is_none() {
            return (Vec::new(), lost);
        }
        let (names, time_ns) = (Names::of(self), epoch_ns() + now().ns);
        (news.map(|news| happened(&names, &news, time_ns)).collect(), lost)
    }
}

/// Told of a flow that was ended by request.
pub(super) fn tell_ended(watch: Option<&Arc<Watch>>, news: FlowNews) {
    if let Some(watch) = watch {
        watch.tell(news.what, news.key, news.state);
    }
}

fn happened(names: &Names, news: &FlowNews, time_ns: u64) -> Happened {
    let flow = names.flow(&news.key, news.state);
    let (what, why) = match news.what {
        What::New => ("flow-new", None),
        What::Established => ("flow-established", None),
        What::Judged(true) => ("flow-judged", Some("still allowed")),
        What::Judged(false) => ("flow-judged", Some("no longer allowed")),
        What::Ended(why) => ("flow-ended", Some(why.name())),
    };
    let (from, to) = (end(&flow, &flow.from), end(&flow, &flow.to));
    let protocol = protocol_name(flow.protocol);
    let mut text = format!("{protocol} {from} to {to}, {} ({})", flow.state, flow.zone);
    text.extend(why.map(|why| format!(": {why}")));
    let mut parts = vec![
        ("protocol", protocol),
        ("from", from),
        ("to", to),
        ("state", flow.state.clone()),
        ("zone", flow.zone.clone()),
    ];
    parts.extend(flow.port.as_ref().map(|port| ("port", port.to_string())));
    parts.extend(why.map(|why| ("why", why.to_owned())));
    let parts = parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    debug_assert!(EVENT_KINDS.contains(&what), "{what} is no kind of event");
    Happened { time_ns, what: what.to_owned(), text, parts }
}

fn end(flow: &FlowEntry, end: &FlowEnd) -> String {
    let has_ports = matches!(flow.protocol, TCP | UDP | SCTP);
    super::refused::endpoint(crate::config::gateway::to_bits(end.address), end.number, has_ports)
}
