//! A [`Config`] as a TOML file: read with all its problems at once, each with the place it is at, and written so that reading
//! it again gives the same.

use crate::{Bridge, Config, Name, Object, ObjectRef, Owner, Port, PortKind, Problem, Vrf};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Problems that are shown of one file: what a person reads at a time.
pub const SHOWN_MAX: usize = 32;
/// What a file may have, one list of tables each.
const NOUNS: [&str; 13] = [
    "bridge",
    "vrf",
    "address",
    "port",
    "fdb",
    "neigh",
    "route",
    "namespace",
    "policy",
    "port_set",
    "address_set",
    "acl",
    "nat",
];

/// Something wrong at a place of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A file that was read.
#[derive(Debug)]
pub struct File<'a> {
    text: &'a str,
    /// What it says.
    pub config: Config,
    root: DeTable<'a>,
}

impl<'a> File<'a> {
    /// Reads `text`; else everything that is wrong with it, in its order.
    pub fn read(text: &'a str) -> Result<Self, Vec<Complaint>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What follows a broken line may be read as something else: its meaning is not looked at.
            let told = |error: toml::de::Error| Complaint {
                span: error.span().unwrap_or(0..0),
                message: error.message().replace('\n', ", "),
                hint: None,
            };
            return Err(in_order(errors.into_iter().map(told).collect()));
        }
        let root = root.into_inner();
        let mut reading = Reading { root: &root, complaints: Vec::new() };
        let config = reading.config();
        match reading.complaints.is_empty() {
            true => Ok(Self { text, config, root }),
            false => Err(in_order(reading.complaints)),
        }
    }

    /// What the daemon says of the file's objects, at their places.
    pub fn complaints(&self, problems: &[Problem]) -> Vec<Complaint> {
        let told = |problem: &Problem| Complaint {
            span: self.place(problem),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        };
        in_order(problems.iter().map(told).collect())
    }

    fn place(&self, problem: &Problem) -> Range<usize> {
        let place = problem.object.as_ref().and_then(|object| self.table_of(object));
        let field = problem.field.as_deref().unwrap_or_default();
        // About an object that the file does not have: at its end, where it could be.
        place.map_or(self.text.len()..self.text.len(), |(span, table)| {
            place_in(table, field, false).unwrap_or(span)
        })
    }

    fn table_of(&self, object: &ObjectRef) -> Option<(Range<usize>, &DeTable<'a>)> {
        let n = self.config.keys(&object.noun).iter().position(|key| *key == object.key)?;
        let item = self.root.get(object.noun.as_str())?.get_ref().as_array()?.get(n)?;
        Some((item.span(), item.get_ref().as_table()?))
    }
}

struct Reading<'r, 'a> {
    root: &'r DeTable<'a>,
    complaints: Vec<Complaint>,
}

impl<'a> Reading<'_, 'a> {
    fn config(&mut self) -> Config {
        for (key, _) in self.root.iter().filter(|(key, _)| !NOUNS.contains(&key.get_ref().as_ref())) {
            let message = format!("nothing called {:?} can be declared", key.get_ref());
            let hint = Some(format!("write [[NOUN]], where NOUN is one of {}", NOUNS.join(", ")));
            self.complaints.push(Complaint { span: key.span(), message, hint });
        }
        Config {
            bridge: self.list(),
            vrf: self.list(),
            address: self.list(),
            port: self.list(),
            fdb: self.list(),
            neigh: self.list(),
            route: self.list(),
            namespace: self.list(),
            policy: self.list(),
            port_set: self.list(),
            address_set: self.list(),
            acl: self.list(),
            nat: self.list(),
        }
    }

    fn list<T: Object + DeserializeOwned>(&mut self) -> Vec<T> {
        let Some((key, value)) = self.root.get_key_value(T::NOUN) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("{} is a list of tables", T::NOUN);
            let hint = Some(format!("write [[{}]], with two brackets, above each", T::NOUN));
            self.complaints.push(Complaint { span: key.span(), message, hint });
            return Vec::new();
        };
        let mut list: Vec<T> = Vec::new();
        for item in array.iter() {
            let Some(object) = self.object::<T>(item) else { continue };
            if list.iter().any(|other| other.key() == object.key()) {
                let message = format!("{} {} is there twice", T::NOUN, object.key());
                self.complaints.push(Complaint { span: item.span(), message, hint: None });
            }
            list.push(object);
        }
        list
    }

    /// Reads one object. What is wrong with a field is noted and the field left out, and what is missing has something that stands in
    /// for it, so that the others are looked at too.
    fn object<T: DeserializeOwned>(&mut self, item: &Spanned<DeValue<'a>>) -> Option<T> {
        let mut rest = item.clone();
        // Fields that are not as they were written, and how many have stood in for each.
        let mut told = BTreeMap::<String, usize>::new();
        loop {
            let error = match read::<T>(&rest) {
                Ok(object) => return told.is_empty().then_some(object),
                Err(error) => error,
            };
            let path = path_of::<T>(&rest, &error);
            let first = path.split(['.', '[']).next().unwrap_or_default().to_owned();
            let message = error.inner().message().to_owned();
            if first.is_empty() && !told.is_empty() {
                // Nobody knows what it is about; it may be what stands in.
                return None;
            }
            if !told.contains_key(&first) {
                let table = item.get_ref().as_table();
                let is_key = crate::codec::named_in(&message).is_some();
                let place = table.and_then(|table| place_in(table, &path, is_key));
                let span = place.or_else(|| error.inner().span()).unwrap_or(item.span());
                self.complaints.push(Complaint { span, message: message.replace('\n', ", "), hint: None });
            }
            let DeValue::Table(table) = rest.get_mut() else { return None };
            let was_there = table.remove(first.as_str()).is_some();
            let tried = told.entry(first.clone()).or_default();
            if !was_there {
                let key = Spanned::new(item.span(), first.into());
                table.insert(key, Spanned::new(item.span(), stand_in(*tried)?));
                *tried += 1;
            }
        }
    }
}

type Refused = serde_path_to_error::Error<toml::de::Error>;

fn read<T: DeserializeOwned>(value: &Spanned<DeValue>) -> Result<T, Refused> {
    serde_path_to_error::deserialize(ValueDeserializer::from(value.clone()))
}

/// The field that an error is about, with what is around it; nothing if nobody knows.
fn path_of<T: DeserializeOwned>(value: &Spanned<DeValue>, error: &Refused) -> String {
    let (path, message) = (error.path().to_string(), error.inner().message());
    match crate::codec::named_in(message) {
        Some(name) if path == "." => name.to_owned(),
        Some(name) if path.rsplit('.').next() != Some(name) => format!("{path}.{name}"),
        None if path == "." => culprit::<T>(value, message).unwrap_or_default(),
        _ => path,
    }
}

/// Of the parts of an object that are part of another, serde does not say which field is wrong: the one without which something
/// else is said.
fn culprit<T: DeserializeOwned>(value: &Spanned<DeValue>, message: &str) -> Option<String> {
    let keys = value.get_ref().as_table()?.keys();
    let is_it = |key: &&Spanned<Cow<str>>| {
        let mut without = value.clone();
        let DeValue::Table(table) = without.get_mut() else { return false };
        table.remove(key.get_ref().as_ref());
        // Without its kind, or what it needs, anything is said of an object.
        key.get_ref() != "kind"
            && read::<T>(&without).map_or_else(
                |error| {
                    let said = error.inner().message();
                    said != message && !said.starts_with("missing field")
                },
                |_| true,
            )
    };
    keys.into_iter().find(is_it).map(|key| key.get_ref().to_string())
}

/// The nth of what may stand in for a field that is missing: one of them may be what it takes.
fn stand_in(n: usize) -> Option<DeValue<'static>> {
    let text = |text: &'static str| DeValue::String(Cow::Borrowed(text));
    Some(match n {
        0 => text("x"),
        1 => text("10.0.0.1"),
        2 => text("10.0.0.0/8"),
        3 => text("02:00:00:00:00:01"),
        4 => DeValue::Array(Default::default()),
        5 => DeValue::Table(Default::default()),
        6 => DeValue::Boolean(true),
        _ => return None,
    })
}

/// Where a field is, or as much of its path as there is: the key if that is what is meant or its value is a table, else the value.
fn place_in(table: &DeTable, path: &str, is_key: bool) -> Option<Range<usize>> {
    let (mut place, mut table) = (None, Some(table));
    let mut value: Option<&Spanned<DeValue>> = None;
    for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        let next = match (step.parse::<usize>(), value.map(|value| value.get_ref())) {
            (Ok(n), Some(DeValue::Array(array))) => array.get(n).map(|item| (item.span(), item)),
            _ => table.and_then(|table| table.get_key_value(step)).map(|(key, value)| {
                (if is_key || value.get_ref().is_table() { key.span() } else { value.span() }, value)
            }),
        };
        let Some((span, found)) = next else { break };
        (place, value, table) = (Some(span), Some(found), found.get_ref().as_table());
    }
    place
}

fn in_order(mut complaints: Vec<Complaint>) -> Vec<Complaint> {
    complaints.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
    complaints
}

/// Complaints as a person reads them: each with line, column and the line itself.
pub fn render(name: &str, text: &str, complaints: &[Complaint], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut said = String::new();
    for complaint in complaints.iter().take(SHOWN_MAX) {
        let end = text.len();
        let span = complaint.span.start.min(end)..complaint.span.end.min(end);
        let snippet = Snippet::source(text).path(name).annotation(AnnotationKind::Primary.span(span));
        let mut group = Level::ERROR.primary_title(complaint.message.as_str()).element(snippet);
        if let Some(hint) = &complaint.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        said.push_str(&renderer.render(&[group]));
        said.push_str("\n\n");
    }
    if complaints.len() > SHOWN_MAX {
        said.push_str(&format!("and {} more\n", complaints.len() - SHOWN_MAX));
    }
    said
}

/// Line and column of a byte of the text, both from 1; a column is a character.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// A file that says `config`. What is as it is by default is left out.
pub fn write(config: &Config) -> Result<String, String> {
    let mut root = toml::Table::try_from(config).map_err(|error| error.to_string())?;
    for (noun, list) in root.iter_mut() {
        let items = list.as_array_mut().into_iter().flatten();
        for (n, item) in items.enumerate() {
            let plain = match noun.as_str() {
                "bridge" => table(&Bridge::new(Name::main())),
                "vrf" => table(&plain_vrf()),
                "port" => config.port.get(n).and_then(|port| table(&plain_port(port))),
                _ => None,
            };
            if let Some(item) = item.as_table_mut() {
                leave_out(noun, item, plain.unwrap_or_default());
            }
        }
    }
    toml::to_string(&root).map_err(|error| error.to_string())
}

/// Leaves out of an object what reading it puts there anyway.
fn leave_out(noun: &str, item: &mut toml::Table, mut plain: toml::Table) {
    let by_default: &[(&str, toml::Value)] = match noun {
        "address" | "fdb" | "neigh" => &[("vid", toml::Value::Integer(1))],
        "route" => &[("metric", toml::Value::Integer(0)), ("kind", toml::Value::String("via".into()))],
        "policy" => &[
            ("apiVersion", toml::Value::String("networking.k8s.io/v1".into())),
            ("kind", toml::Value::String("NetworkPolicy".into())),
        ],
        "acl" => &[
            ("tier", toml::Value::String("before".into())),
            ("priority", toml::Value::Integer(crate::ACL_PRIORITY_DEFAULT.into())),
        ],
        _ => &[],
    };
    plain.extend(by_default.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    if noun == "port" {
        // What a reader looks for first is said even where it could be left out.
        plain.remove("kind");
    }
    plain.remove("name");
    plain.remove("bridge");
    item.remove("owner");
    if let (Some(settings), Some(toml::Value::Table(plain))) =
        (item.get_mut("settings").and_then(toml::Value::as_table_mut), plain.get("settings"))
    {
        settings.retain(|key, value| plain.get(key) != Some(value));
        if settings.is_empty() {
            item.remove("settings");
        }
    }
    item.retain(|key, value| plain.get(key) != Some(value));
    let hops = item.get_mut("via").and_then(toml::Value::as_array_mut).into_iter().flatten();
    for hop in hops.filter_map(toml::Value::as_table_mut) {
        hop.retain(|key, value| !(*key == *"vid" || *key == *"weight") || value.as_integer() != Some(1));
    }
}

fn table(object: &impl Serialize) -> Option<toml::Table> {
    toml::Table::try_from(object).ok()
}

fn plain_vrf() -> Vrf {
    Vrf { uplink: crate::Uplink::default(), ..Vrf::unset(Name::main()) }
}

/// A port of the same kind with everything else by default; names are others than a port can have.
fn plain_port(port: &Port) -> Port {
    let kind = match &port.kind {
        PortKind::Xdp { .. } => PortKind::xdp(""),
        PortKind::Tap { .. } => PortKind::tap(""),
        PortKind::Host { .. } => PortKind::Host {
            device: crate::HOST_DEVICE_DEFAULT.into(),
            mac: None,
            addresses: Vec::new(),
            routes: Vec::new(),
        },
        PortKind::Memory { .. } => PortKind::Memory { source: None },
        PortKind::Pcap { .. } => PortKind::Pcap { read: None, write: None },
        // Neither is one that a tunnel can have.
        PortKind::Vxlan { .. } => PortKind::vxlan(0, std::net::Ipv4Addr::UNSPECIFIED.into()),
    };
    Port::new(Name::main(), Name::main(), kind)
}

/// Objects that say they are somebody else's than `owner`'s, whose configuration this is.
pub fn foreign(config: &Config, owner: Owner) -> Vec<Problem> {
    fn of<T: Object>(list: &[T], owner: Owner, problems: &mut Vec<Problem>) {
        for object in list.iter().filter(|object| object.owner() != owner) {
            let object = ObjectRef::of(object);
            problems.push(Problem {
                message: format!("{object} cannot be declared here as another owner's"),
                object: Some(object),
                field: Some("owner".into()),
                hint: Some(
                    "leave `owner` out of a file; the objects of one are its owner's, all of them".into(),
                ),
            });
        }
    }
    let mut problems = Vec::new();
    of(&config.bridge, owner, &mut problems);
    of(&config.vrf, owner, &mut problems);
    of(&config.address, owner, &mut problems);
    of(&config.port, owner, &mut problems);
    of(&config.fdb, owner, &mut problems);
    of(&config.neigh, owner, &mut problems);
    of(&config.route, owner, &mut problems);
    of(&config.namespace, owner, &mut problems);
    of(&config.policy, owner, &mut problems);
    of(&config.port_set, owner, &mut problems);
    of(&config.address_set, owner, &mut problems);
    of(&config.acl, owner, &mut problems);
    of(&config.nat, owner, &mut problems);
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
[[bridge]]
name = "br0"

[[address]]
bridge = "br0"
address = "10.1.0.1/24"

[[port]]
name = "web"
bridge = "br0"
kind = "tap"
netns = "/run/netns/web"
mac = "02:00:00:00:00:01"
addresses = ["10.1.0.2/24"]

[port.settings]
mtu = 1400

[port.settings.limits.rx_packets]
per_s = 10000

[port.settings.limits.tx_bytes]
per_s = 12500000
burst = 3000000

[port.settings.vlan]
mode = "access"
vid = 7

[[port]]
name = "vx"
bridge = "over"
kind = "vxlan"
vni = 4096
local = "192.0.2.1"

[[fdb]]
mac = "02:00:00:00:00:99"
bridge = "br0"
vid = 7
port = "web"

[[fdb]]
mac = "02:00:00:00:00:98"
bridge = "over"
port = "vx"
dst = "192.0.2.2"

[[route]]
prefix = "10.9.0.0/16"

[[route.via]]
address = "10.1.0.9"

[[policy]]

[policy.metadata]
name = "deny"
namespace = "default"

[policy.spec.podSelector.matchLabels]
app = "web"

[[acl]]
name = "metadata"
applies_to = { ports = ["web"] }

[[acl.egress]]
action = "deny"
protocol = "tcp"
destination = ["169.254.169.254/32"]
destination_ports = [80, "8000-8080"]

[[nat]]
name = "out"
kind = "source"
from = ["10.1.0.0/16"]
to = ["192.0.2.1"]
ports = "2000-2999"

[[nat]]
name = "dns"
vrf = "red"
kind = "destination"
address = "192.0.2.1"
protocol = "udp"
port = 53
to = "10.1.0.5"
"#;

    #[test]
    fn what_is_written_reads_the_same() {
        let file = File::read(EXAMPLE).unwrap();
        let text = write(&file.config).unwrap();
        let again = File::read(&text).unwrap_or_else(|wrong| panic!("{wrong:?}\n{text}"));
        assert_eq!(again.config, file.config, "{text}");
        for noise in
            ["owner", "queues", "flood", "metric", "apiVersion", "ageing", "priority", "tier", "udp_port"]
        {
            assert!(!text.contains(noise), "{noise} is as it is by default:\n{text}");
        }
        let limits = file.config.port[0].settings.limits;
        assert_eq!(
            limits.tx_bytes.map(|limit| (limit.per_s, limit.burst)),
            Some((12_500_000, Some(3_000_000)))
        );
        assert_eq!(limits.each().iter().filter(|(_, limit)| limit.is_some()).count(), 2);
        assert_eq!(write(&again.config).unwrap(), text);
    }

    /// Everything that is wrong is told at once, each at its line.
    #[test]
    fn all_complaints_at_once_with_line_and_column() {
        let text = "[[bridge]]\nname = \"a/b\"\nageing = 5\n\n[[port]]\nname = \"p\"\nbridge = \"br0\"\nkind = \"memory\"\n\
                    settings.mtu = \"large\"\nsettings.vlan = { mode = \"access\", vid = 5000 }\n\n[[prot]]\nname = \"q\"\n\n\
                    [[address]]\nbridge = \"br0\"\naddress = \"10.0.0.1\"\n\n[[port]]\nname = \"r\"\nkind = \"memory\"\nbrdge = \"br0\"\nsettings.mtu = \"small\"\n";
        let complaints = File::read(text).unwrap_err();
        let places: Vec<_> = complaints.iter().map(|wrong| line_and_column(text, wrong.span.start)).collect();
        let said = render("switch.toml", text, &complaints, false);
        assert_eq!(
            places,
            [(2, 8), (3, 1), (9, 16), (12, 3), (17, 11), (19, 1), (22, 1), (23, 16)],
            "{said}"
        );
        for (place, what) in [
            ("switch.toml:2:8", "is not a name"),
            ("switch.toml:3:1", "unknown field `ageing`"),
            ("switch.toml:12:3", "nothing called \"prot\""),
            ("switch.toml:17:11", "is no prefix"),
            ("switch.toml:19:1", "missing field `bridge`"),
            ("switch.toml:22:1", "unknown field `brdge`"),
        ] {
            assert!(said.contains(place) && said.contains(what), "{said}");
        }
    }

    /// Also of what a port is by its kind, of which serde does not say where it is.
    #[test]
    fn complaints_about_a_kind_hide_no_other() {
        let text = "[[port]]\nname = \"p\"\nbridge = \"br0\"\nkind = \"tap\"\nnetsn = \"/run/netns/p\"\nmac = \"zz\"\n\
                    addresses = [\"10.0.0.300\"]\nsettings.mtu = \"large\"\n";
        let complaints = File::read(text).unwrap_err();
        let lines: Vec<_> =
            complaints.iter().map(|wrong| line_and_column(text, wrong.span.start).0).collect();
        assert_eq!(lines, [5, 6, 7, 8], "{}", render("switch.toml", text, &complaints, false));
    }

    #[test]
    fn broken_lines_are_told_as_such() {
        let complaints = File::read("[[bridge]]\nname = br0\n\n[[port\nname = \"p\"\n").unwrap_err();
        assert!(complaints.len() >= 2, "{complaints:?}");
    }
}
