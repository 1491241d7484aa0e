//! `switch-ctl route`.

mod lines;

use crate::output::Output;
use clap::{Args, Subcommand, ValueEnum};
use lines::Reading;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use switch_api::{
    ApiError, Client, Code, Done, Name, NextHop, Nothing, Prefix, ROUTE_PAGE_MAX, Request, Route,
    RouteChoice, RouteCount, RouteDelete, RouteFilter, RouteGet, RouteKind, RoutePlace, RouteStatus, Vid,
};

/// What can be done with routes.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists routes.
    #[command(after_help = "\
Examples:
  switch-ctl route list
  switch-ctl route list --vrf main")]
    List {
        /// Only of this routing table.
        #[arg(long)]
        vrf: Option<Name>,
    },
    /// Adds a route: by next hops, among which flows are shared by weight, or to nowhere.
    #[command(after_help = "\
Examples:
  switch-ctl route add 10.9.0.0/16 via 10.66.0.2
  switch-ctl route add 10.10.0.0/16 via '10.66.0.2*3' 10.66.0.3 --count
  switch-ctl route add 192.0.2.0/24 blackhole")]
    Add(Box<Add>),
    /// Changes many routes at once, all of them or none: a line for each.
    ///
    /// `[add|replace|delete] NETWORK via ADDRESS[*WEIGHT]… [dev BRIDGE] [vid VLAN] [metric N] [mtu BYTES] [count] [vrf NAME]`, with `blackhole`,
    /// `unreachable` or `prohibit` in place of `via …`; or what `ip route` and `ip -o route` print. A line without a verb
    /// replaces. What stands behind # is left out. The order of lines does not count: what is deleted goes first.
    #[command(after_help = "\
Examples:
  echo '10.9.0.0/16 via 10.66.0.2
  10.10.0.0/16 via 10.66.0.2*3 10.66.0.3
  blackhole 192.0.2.0/24' | switch-ctl route apply -")]
    Apply {
        /// The file, or - for the standard input.
        file: PathBuf,
        /// The routing table of routes that name none.
        #[arg(long, default_value = "main")]
        vrf: Name,
        /// Leave out `dev`: it names devices of the kernel.
        #[arg(long)]
        ignore_dev: bool,
        /// Make several changes of it, of some 8 000 routes: what is too much for one request (32 MiB, some 250 000 routes), or holds others up
        /// for too long. Each is made whole or not at all; the first that is refused ends it, and those before stay made.
        #[arg(long)]
        parts: bool,
    },
    /// Removes the routes to a network.
    #[command(after_help = "\
Examples:
  switch-ctl route add 10.9.0.0/16 via 10.66.0.2
  switch-ctl route delete 10.9.0.0/16")]
    Delete {
        /// The network.
        prefix: Prefix,
        /// Only the one with this metric.
        #[arg(long)]
        metric: Option<u32>,
        /// The routing table.
        #[arg(long, default_value = "main")]
        vrf: Name,
    },
    /// Shows what went by the routes that are counted (`route add … --count`).
    #[command(after_help = "\
Examples:
  switch-ctl route add 10.9.0.0/16 via 10.66.0.2 --count
  switch-ctl route stats")]
    Stats {
        /// Only of this routing table.
        #[arg(long)]
        vrf: Option<Name>,
    },
    /// Says what becomes of a packet to an address, and why.
    #[command(after_help = "Example:\n  switch-ctl route get 10.67.0.2")]
    Get {
        /// The address.
        address: IpAddr,
        /// The routing table.
        #[arg(long, default_value = "main")]
        vrf: Name,
    },
}

/// A route.
#[derive(Debug, Args)]
pub struct Add {
    /// The network, like 10.9.0.0/16 or ::/0.
    prefix: Prefix,
    /// What becomes of packets.
    #[arg(value_enum)]
    kind: Kind,
    /// Next hops, each ADDRESS or ADDRESS*WEIGHT; several share the flows.
    #[arg(value_parser = parse_hop, required_if_eq("kind", "via"))]
    hops: Vec<(IpAddr, u16)>,
    /// The bridge that the next hops are on; needed for link-local ones.
    #[arg(long)]
    dev: Option<Name>,
    /// The VLAN they are in; only with a bridge.
    #[arg(long, default_value = "1", value_parser = crate::fdb::parse_vid, requires = "dev")]
    vid: Vid,
    /// Of several routes to one network the one with the lowest is used.
    #[arg(long, default_value_t = 0)]
    metric: u32,
    /// Longest packet that goes this way, bytes with its IP header: 68 (IPv6: 1280) to 65535. The port's MTU holds as well.
    #[arg(long)]
    mtu: Option<u16>,
    /// Count what goes this way, for `route stats`. It costs the route a number of its own, and packets a few nanoseconds.
    #[arg(long)]
    count: bool,
    /// The routing table.
    #[arg(long, default_value = "main")]
    vrf: Name,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// To a next hop.
    Via,
    /// Dropped in silence.
    Blackhole,
    /// Dropped; the sender is told that there is no way.
    Unreachable,
    /// Dropped; the sender is told that it is forbidden.
    Prohibit,
}

fn parse_hop(text: &str) -> Result<(IpAddr, u16), String> {
    let (address, weight) = text.split_once('*').unwrap_or((text, "1"));
    let malformed = || format!("{text:?} is no next hop: write ADDRESS or ADDRESS*WEIGHT, like 10.1.0.2*3");
    Ok((address.parse().map_err(|_| malformed())?, weight.parse().map_err(|_| malformed())?))
}

impl Add {
    fn to_api(&self) -> Route {
        let hop = |(address, weight): &(IpAddr, u16)| NextHop {
            address: *address,
            bridge: self.dev.clone(),
            vid: self.vid,
            weight: *weight,
        };
        let kind = match self.kind {
            Kind::Via => RouteKind::Via,
            Kind::Blackhole => RouteKind::Blackhole,
            Kind::Unreachable => RouteKind::Unreachable,
            Kind::Prohibit => RouteKind::Prohibit,
        };
        let via = self.hops.iter().map(hop).collect();
        let route = Route::new(self.prefix, kind, via);
        Route { vrf: self.vrf.clone(), metric: self.metric, mtu: self.mtu, count: self.count, ..route }
    }
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let (request, what) = match verb {
        Verb::List { vrf } => {
            let routes = all(client, vrf.clone())?;
            output.answer(&routes, |routes| list(routes, output));
            return Ok(());
        }
        Verb::Stats { vrf } => {
            let mut all: Vec<RouteCount> = client.call(&Request::RouteStats(Nothing {}))?;
            all.retain(|count| vrf.as_ref().is_none_or(|vrf| count.vrf == *vrf));
            output.answer(&all, |all| counts(all, output));
            return Ok(());
        }
        Verb::Apply { file, vrf, ignore_dev, parts } => {
            let reading = Reading { vrf: vrf.clone(), ignore_dev: *ignore_dev };
            return apply(file, &reading, *parts, client, output);
        }
        Verb::Get { address, vrf } => {
            let get = RouteGet { address: *address, vrf: vrf.clone() };
            let choice: RouteChoice = client.call(&Request::RouteGet(get))?;
            output.answer(&choice, |choice| explain(address, choice));
            return Ok(());
        }
        Verb::Add(add) => (Request::RouteAdd(add.to_api()), format!("there is a route to {}", add.prefix)),
        Verb::Delete { prefix, metric, vrf } => {
            let by = RouteDelete { prefix: *prefix, vrf: vrf.clone(), metric: *metric };
            (Request::RouteDelete(by), format!("the route to {prefix} is gone"))
        }
    };
    let done: Done = client.call(&request)?;
    output.done(&done, &what);
    Ok(())
}

/// Every route, page by page.
fn all(client: &mut Client, vrf: Option<Name>) -> Result<Vec<RouteStatus>, ApiError> {
    let mut filter = RouteFilter { vrf, ..RouteFilter::default() };
    let mut routes: Vec<RouteStatus> = Vec::new();
    loop {
        let page: Vec<RouteStatus> = client.call(&Request::RouteList(filter.clone()))?;
        let is_last = page.len() < ROUTE_PAGE_MAX as usize;
        routes.extend(page);
        match routes.last().filter(|_| !is_last) {
            None => return Ok(routes),
            Some(RouteStatus { route, .. }) => {
                filter.after = Some(RoutePlace { vrf: route.vrf.clone(), prefix: route.prefix });
            }
        }
    }
}

/// Bytes of a request beside its routes.
const ENVELOPE_BYTES: usize = 256;

fn apply(
    file: &Path,
    reading: &Reading,
    parts: bool,
    client: &mut Client,
    output: &Output,
) -> Result<(), ApiError> {
    let of_file = |error: ApiError| {
        let message = format!("{}: {}", file.display(), error.message);
        ApiError { message, ..error }
    };
    let lines = reading.read(&crate::files::text(file)?).map_err(of_file)?;
    // Parts are small, so that others have their turn between them.
    let bytes = if parts { switch_api::codec::LINE_LEN_MAX } else { client.line_len_max() };
    let requests = lines::requests(&lines, bytes - ENVELOPE_BYTES);
    let changes = requests.len();
    if changes > 1 && !parts {
        let text = format!("{} routes are {changes} times as much as a request holds", lines.len());
        let hint = "--parts makes several changes of it, each of them whole or not at all";
        return Err(of_file(ApiError::new(Code::Limit, text).hint(hint)));
    }
    let mut done = None;
    for (n, (request, lines)) in requests.into_iter().enumerate() {
        let outcome: Result<Done, _> = client.call(&Request::RouteApply(request));
        done = Some(outcome.map_err(|error| {
            let line = error.data.field.as_ref().and_then(|field| lines::line_of(field, lines));
            let line = line.map_or(String::new(), |line| format!("line {line}: "));
            let after =
                if n > 0 { format!(" (after {n} of {changes} changes, which stay)") } else { String::new() };
            let message = format!("{line}{}{after}", error.message);
            of_file(ApiError { message, ..error })
        })?);
    }
    if let Some(done) = done {
        output.done(&done, &format!("{} routes were changed, in {changes} changes", lines.len()));
    }
    Ok(())
}

/// Where a route leads, as it would be typed.
fn way(status: &RouteStatus) -> String {
    if let Some(bridge) = &status.connected {
        return format!("dev {bridge}");
    }
    if let Some(origin) = status.origin.as_ref().filter(|_| status.route.via.is_empty()) {
        return format!("kernel: {}", origin.way);
    }
    match status.route.kind {
        RouteKind::Blackhole => "blackhole".into(),
        RouteKind::Unreachable => "unreachable".into(),
        RouteKind::Prohibit => "prohibit".into(),
        RouteKind::Via => {
            let hop = |hop: &NextHop| match hop.weight {
                1 => hop.address.to_string(),
                weight => format!("{}*{weight}", hop.address),
            };
            let hops: Vec<_> = status.route.via.iter().map(hop).collect();
            let mtu = status.route.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
            format!("via {}{mtu}", hops.join(" "))
        }
    }
}

fn counts(counts: &[RouteCount], output: &Output) -> String {
    if counts.is_empty() {
        return "no route is counted: `switch-ctl route add ... --count` counts one".into();
    }
    let mut table = output.table(&["NETWORK", "METRIC", "VRF", "PACKETS", "BYTES"]);
    for count in counts {
        table.add_row(vec![
            count.prefix.to_string(),
            count.metric.to_string(),
            count.vrf.to_string(),
            count.packets.to_string(),
            count.bytes.to_string(),
        ]);
    }
    table.to_string()
}

/// Who brought it.
fn origin(status: &RouteStatus) -> String {
    match (&status.origin, &status.connected) {
        (Some(origin), _) => origin.protocol.clone(),
        (None, Some(_)) => "connected".into(),
        (None, None) => "declared".into(),
    }
}

fn list(routes: &[RouteStatus], output: &Output) -> String {
    if routes.is_empty() {
        return "no routes: the first comes with a gateway address, `switch-ctl bridge address add`".into();
    }
    let mut table = output.table(&["NETWORK", "WAY", "FROM", "OWNER", "METRIC", "VRF", "USED"]);
    for status in routes {
        table.add_row(vec![
            status.route.prefix.to_string(),
            way(status),
            origin(status),
            status.route.owner.to_string(),
            status.route.metric.to_string(),
            status.route.vrf.to_string(),
            if status.active { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.to_string()
}

fn explain(address: &IpAddr, choice: &RouteChoice) -> String {
    let way = choice.route.as_ref().map(|status| format!(" ({} {})", status.route.prefix, way(status)));
    let mut lines = vec![format!("{address}: {}{}", choice.what, way.unwrap_or_default())];
    lines.extend(choice.why.iter().map(|line| format!("  {line}")));
    lines.join("\n")
}
