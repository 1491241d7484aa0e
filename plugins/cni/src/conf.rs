//! The network configuration: what the runtime says on standard input. Everything that is wrong is said at
//! once. DEL and GC need little of it and go on with that: a configuration that was edited into nonsense
//! must not keep a container from going away.

use crate::answer::{Answer, Route};
use crate::bandwidth;
use crate::fields::{Fields, Problems};
use crate::invocation::{address, is_identifier};
use crate::outside::Outside;
use crate::refusal::{DECODING_FAILURE, INVALID_CONFIG, Refusal, UNSUPPORTED_FIELD};
use crate::version::Version;
use crate::workload::Label;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use switch_api::{Holder, Mac, Name, PoolRange, PortLimits, Prefix, Vid};

/// What the plugin is called in a configuration.
pub const TYPE: &str = "switch-cni";
/// Where deletions wait unless said otherwise; it outlives a boot.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/switch-cni";
/// Seconds to wait for the daemon unless said otherwise: less than any runtime waits for us.
const TIMEOUT_S_DEFAULT: u64 = 30;
/// Longest configuration, in bytes. With the result of a long chain it is some kilobytes.
pub const CONF_LEN_MAX: u64 = 1 << 20;

/// Networks that containers may send from beside their own addresses: a port's guard has 64, and a container's own
/// addresses must find room.
const ALLOWED_MAX: usize = 48;

/// Every field that a configuration of ours may have; the manual page has a word on each.
pub(crate) const KNOWN: &[&str] = &[
    "cniVersion",
    "name",
    "type",
    "socket",
    "stateDir",
    "timeoutSeconds",
    "bridge",
    "vlan",
    "mtu",
    "mac",
    "isolated",
    "sourceGuard",
    "allowedSourcePrefixes",
    "queues",
    "driver",
    "ipam",
    "dns",
    "args",
    "runtimeConfig",
    "capabilities",
    "prevResult",
    "ipMasq",
    "noMasquerade",
    "confDirs",
];

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Conf {
    /// The version of the words.
    pub version: Version,
    /// The network's name.
    pub network: String,
    /// Whose configuration this is: ours, or that of a plugin that uses us for addresses.
    pub is_ours: bool,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Where deletions wait for the daemon.
    pub state_dir: PathBuf,
    /// How long to wait for the daemon.
    pub timeout: Duration,
    /// Where the runtime keeps its networks; none: where runtimes do.
    pub conf_dirs: Option<Vec<PathBuf>>,
    /// The bridge; made if it is not there.
    pub bridge: Name,
    /// The VLAN on it.
    pub vlan: Option<Vid>,
    /// The interface's MTU.
    pub mtu: Option<u16>,
    /// The interface's MAC address.
    pub mac: Option<Mac>,
    /// Containers of an isolated network do not reach each other.
    pub isolated: bool,
    /// Containers send from their own addresses only.
    pub source_guard: bool,
    /// And from these.
    pub allowed_source_prefixes: Vec<Prefix>,
    /// Queues of the TAP.
    pub queues: u16,
    /// How fast a container may send and be sent.
    pub limits: PortLimits,
    /// What a container attaches by.
    pub driver: Driver,
    /// How containers reach the outside and are reached.
    pub outside: Outside,
    /// Where addresses come from.
    pub ipam: Ipam,
    /// Addresses asked for by name.
    pub ips: Vec<IpAddr>,
    /// What policies select the container by.
    pub labels: Vec<Label>,
    /// Further names of it.
    pub aliases: Vec<String>,
    /// Passed on.
    pub dns: Option<Value>,
    /// What plugins before us did, or, for CHECK and DEL, what we did.
    pub previous: Option<Answer>,
    /// GC: what is still there.
    pub valid: Option<Vec<Attachment>>,
    /// As it came, for other plugins.
    pub raw: Value,
}

/// What a container attaches by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// A TAP with full offloads: bulk TCP is fastest so.
    #[default]
    Tap,
    /// A veth pair whose other end is an xdp port: small packets are fastest so.
    Xdp,
}

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Ipam {
    /// Nowhere: an interface without.
    None,
    /// The daemon's pool.
    Pool {
        /// Which.
        pool: Name,
        /// What it is made of if it is not there.
        ranges: Vec<PoolRange>,
        /// Routes for the container; none: the default route of each family that has a gateway.
        routes: Option<Vec<Route>>,
    },
    /// Another plugin.
    Delegate(String),
}

impl Ipam {
    /// Whether whoever gives addresses asks for them by the container's interface, which is then there before them; and lets go of
    /// them by it, before it goes.
    pub fn needs_interface(&self) -> bool {
        matches!(self, Self::Delegate(kind) if kind == "dhcp")
    }
}

/// An attachment that is still there (specification, `cni.dev/valid-attachments`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface in it.
    #[serde(rename = "ifname")]
    pub interface: String,
}

impl Conf {
    /// Reads and checks. `lenient`: what is wrong beyond the network's name and version does not matter.
    pub fn read(bytes: &[u8], lenient: bool) -> Result<Self, Refusal> {
        let raw: Value = serde_json::from_slice(bytes).map_err(|error| {
            Refusal::new(DECODING_FAILURE, format!("the network configuration is not JSON: {error}"))
                .details("the runtime passes it on standard input")
        })?;
        let Value::Object(map) = &raw else {
            return Err(Refusal::new(DECODING_FAILURE, "the network configuration is no JSON object")
                .details("the runtime passes it on standard input"));
        };
        // First the version: it says how to read the rest.
        let version = Version::find(map.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0"))?;
        let mut problems = Problems::default();
        let conf = take(map.clone(), raw.clone(), version, &mut problems);
        match problems.all().filter(|_| !lenient || !is_identifier(&conf.network)) {
            None => Ok(conf),
            Some(text) => Err(Refusal::new(INVALID_CONFIG, text)
                .details("correct the network configuration; docs/CNI.md describes every field")),
        }
    }

    /// Refuses what other plugins do better, by name.
    pub fn refuse_unsupported(&self) -> Result<(), Refusal> {
        let asked = |field: &str| {
            let value = self.raw.get("runtimeConfig").and_then(|it| it.get(field));
            value.is_some_and(|value| !is_empty(value))
        };
        let instead = [("ipRanges", "name a pool in \"ipam\", and ranges in the pool")];
        match instead.into_iter().find(|(field, _)| asked(field)) {
            Some((field, instead)) => {
                let text = format!("the capability {field} is not one of switch-cni");
                Err(Refusal::new(UNSUPPORTED_FIELD, text).details(instead))
            }
            None => Ok(()),
        }
    }

    /// Who an attachment belongs to, for the daemon.
    pub fn holder(&self, container: &str, interface: &str) -> Holder {
        Holder {
            network: self.network.clone(),
            container: container.to_owned(),
            interface: interface.to_owned(),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn take(map: Map<String, Value>, raw: Value, version: Version, problems: &mut Problems) -> Conf {
    let mut fields = Fields::new(map);
    let text = |field: &str| raw.get(field).and_then(Value::as_str).unwrap_or_default();
    let ipam_is_ours =
        raw.get("ipam").and_then(|ipam| ipam.get("type")).and_then(Value::as_str) == Some(TYPE);
    // With another plugin's type and our name under "ipam", it is that plugin's, which asks us for addresses.
    let is_ours = text("type") == TYPE || !ipam_is_ours;
    let network: String = fields.need("name", problems).unwrap_or_default();
    if !network.is_empty() && !is_identifier(&network) {
        problems.add("name: use letters, digits and _ . - and begin with a letter or a digit");
    }
    let mut conf = Conf {
        version,
        network,
        is_ours,
        socket: fields.take("socket", problems).unwrap_or_else(|| switch_api::DEFAULT_SOCKET.into()),
        state_dir: fields.take("stateDir", problems).unwrap_or_else(|| STATE_DIR_DEFAULT.into()),
        timeout: Duration::from_secs(fields.take("timeoutSeconds", problems).unwrap_or(TIMEOUT_S_DEFAULT)),
        conf_dirs: None,
        bridge: default_bridge(),
        vlan: None,
        mtu: None,
        mac: None,
        isolated: false,
        source_guard: true,
        allowed_source_prefixes: Vec::new(),
        queues: 1,
        limits: PortLimits::default(),
        driver: Driver::Tap,
        outside: Outside::default(),
        ipam: Ipam::None,
        ips: Vec::new(),
        labels: Vec::new(),
        aliases: Vec::new(),
        dns: None,
        previous: None,
        valid: fields.take("cni.dev/valid-attachments", problems),
        raw: raw.clone(),
    };
    // 1.1.0 as it was published says "attachments"; what runtimes send says "valid-attachments".
    conf.valid = conf.valid.or_else(|| fields.take("cni.dev/attachments", problems));
    if !(1..=600).contains(&conf.timeout.as_secs()) {
        problems.add("timeoutSeconds: use 1 to 600");
    }
    take_ipam(&mut fields, &mut conf, problems);
    take_runtime(&mut fields, &mut conf, problems);
    if is_ours {
        fields.ignore("cniVersion");
        take_port(&mut fields, &mut conf, problems);
        take_previous(&mut fields, &mut conf, problems);
        fields.none_left(KNOWN, problems);
    }
    conf
}

fn default_bridge() -> Name {
    "cni0".parse().unwrap_or_else(|_| unreachable!("cni0 is a name"))
}

fn take_port(fields: &mut Fields, conf: &mut Conf, problems: &mut Problems) {
    let kind: Option<String> = fields.need("type", problems);
    if kind.is_some_and(|kind| kind != TYPE) {
        problems.add(format!("type is not {TYPE}, nor is ipam.type"));
    }
    conf.bridge = fields.take("bridge", problems).unwrap_or_else(default_bridge);
    conf.conf_dirs = fields.take("confDirs", problems);
    conf.vlan = fields.take("vlan", problems);
    conf.mtu = fields.take("mtu", problems);
    if conf.mtu.is_some_and(|mtu| !(68..=9000).contains(&mtu)) {
        problems.add("mtu: use 68 to 9000 bytes");
    }
    let mac = fields.parse("mac", problems);
    conf.mac = conf.mac.or(mac);
    if conf.mac.is_some_and(|mac: Mac| mac.is_group() || mac.is_zero()) {
        problems.add("mac: this is no address of a single station");
    }
    conf.isolated = fields.take("isolated", problems).unwrap_or_default();
    conf.source_guard = fields.take("sourceGuard", problems).unwrap_or(true);
    conf.allowed_source_prefixes = fields.take("allowedSourcePrefixes", problems).unwrap_or_default();
    if conf.allowed_source_prefixes.len() > ALLOWED_MAX {
        problems.add(format!("allowedSourcePrefixes: {ALLOWED_MAX} at most"));
    }
    if !conf.source_guard && !conf.allowed_source_prefixes.is_empty() {
        problems.add("allowedSourcePrefixes: without sourceGuard any is allowed; take one of the two out");
    }
    conf.queues = fields.take("queues", problems).unwrap_or(1);
    if !(1..=16).contains(&conf.queues) {
        problems.add("queues: use 1 to 16");
    }
    conf.driver = fields.take("driver", problems).unwrap_or_default();
    if conf.driver == Driver::Xdp && conf.queues > 1 {
        problems.add("queues: they are a TAP's; the driver xdp has one");
    }
    let dns: Option<Map<String, Value>> = fields.take("dns", problems);
    conf.dns = dns.filter(|dns| !dns.is_empty()).map(Value::Object);
    conf.outside.take(fields, problems);
    _ = fields.take::<Map<String, Value>>("capabilities", problems);
}

fn take_previous(fields: &mut Fields, conf: &mut Conf, problems: &mut Problems) {
    let Some(previous) = fields.take::<Value>("prevResult", problems) else { return };
    match Answer::read(previous, "prevResult") {
        Ok(previous) => conf.previous = Some(previous),
        Err(error) => problems.add(error.message),
    }
}

fn take_ipam(fields: &mut Fields, conf: &mut Conf, problems: &mut Problems) {
    let Some(mut ipam) = fields.object("ipam", problems) else { return };
    let Some(kind) = ipam.take::<String>("type", problems) else {
        // An empty object is how some runtimes write "none".
        return ipam.none_left(&["type"], problems);
    };
    if kind != TYPE {
        if kind.is_empty() || kind.contains(['/', '\0']) {
            return problems.add("ipam.type: give the name of a plugin, without a path");
        }
        conf.ipam = Ipam::Delegate(kind);
        return;
    }
    let ranges: Vec<PoolRange> = ipam.take("ranges", problems).unwrap_or_default();
    let routes = ipam.take("routes", problems);
    if let Some(pool) = ipam.need("pool", problems) {
        conf.ipam = Ipam::Pool { pool, ranges, routes };
    }
    if let Some(socket) = ipam.take("socket", problems) {
        conf.socket = socket;
    }
    if let Some(directory) = ipam.take("stateDir", problems) {
        conf.state_dir = directory;
    }
    ipam.none_left(&["type", "pool", "ranges", "routes", "socket", "stateDir"], problems);
}

/// What a person or the runtime asks for this one container: `args.cni` and `runtimeConfig`.
fn take_runtime(fields: &mut Fields, conf: &mut Conf, problems: &mut Problems) {
    let cni = fields.object("args", problems).and_then(|mut args| args.object("cni", problems));
    let mut runtime = fields.object("runtimeConfig", problems);
    if let Some(runtime) = &mut runtime {
        conf.outside.take_mappings(runtime, problems);
        conf.limits = bandwidth::take(runtime, problems);
    }
    for mut asked in [cni, runtime].into_iter().flatten() {
        let path = asked.path("ips");
        for text in asked.take::<Vec<String>>("ips", problems).unwrap_or_default() {
            match address(&text) {
                Some(ip) => conf.ips.push(ip),
                None => problems
                    .add(format!("{path}: {:?} is no address", text.chars().take(64).collect::<String>())),
            }
        }
        conf.mac = asked.parse("mac", problems).or(conf.mac);
        conf.labels.extend(asked.take::<Vec<Label>>("labels", problems).unwrap_or_default());
        conf.aliases.extend(asked.take::<Vec<String>>("aliases", problems).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::INCOMPATIBLE_VERSION;
    use serde_json::json;

    fn read(value: Value) -> Result<Conf, Refusal> {
        Conf::read(value.to_string().as_bytes(), false)
    }

    fn good() -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "pods", "type": TYPE, "bridge": "br0", "vlan": 7, "mtu": 1400,
            "ipam": {"type": TYPE, "pool": "pods", "ranges": [{"subnet": "10.1.0.0/24"}],
                     "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
            "capabilities": {"ips": true}, "runtimeConfig": {"ips": ["10.1.0.9/24"], "mac": "02:00:00:00:00:09"},
            "args": {"cni": {"ips": ["fd00::9"]}}, "org.example.note": {"x": 1},
        })
    }

    #[test]
    fn a_whole_configuration_is_understood() {
        let conf = read(good()).unwrap();
        assert_eq!((conf.bridge.as_str(), conf.vlan.map(Vid::get), conf.mtu), ("br0", Some(7), Some(1400)));
        assert_eq!(conf.ips, ["fd00::9".parse::<IpAddr>().unwrap(), "10.1.0.9".parse().unwrap()]);
        assert_eq!(conf.mac.unwrap().to_string(), "02:00:00:00:00:09");
        assert!(matches!(conf.ipam, Ipam::Pool { routes: Some(routes), .. } if routes.len() == 1));
        let small = read(json!({"cniVersion": "0.4.0", "name": "n", "type": TYPE})).unwrap();
        assert_eq!((small.ipam, small.bridge.as_str()), (Ipam::None, "cni0"));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let mut bad = good();
        bad["mtu"] = 10.into();
        bad["brigde"] = "br0".into();
        bad["vlan"] = 5000.into();
        bad["name"] = "a/b".into();
        bad["ipam"]["pool"] = Value::Null;
        bad["ipam"]["ranges"][0]["subnet"] = "10.1".into();
        bad["runtimeConfig"]["ips"][0] = "x\ny".into();
        let error = read(bad.clone()).unwrap_err();
        assert_eq!(error.code, INVALID_CONFIG);
        let parts =
            ["mtu:", "brigde", "vlan:", "name:", "ipam.pool is missing", "ipam.ranges:", "runtimeConfig.ips"];
        for part in parts {
            assert!(error.message.contains(part), "{part}: {error}");
        }
        // DEL needs none of it but the name.
        bad["name"] = "pods".into();
        assert!(Conf::read(bad.to_string().as_bytes(), true).is_ok());
    }

    #[test]
    fn versions_that_nobody_speaks_are_refused_first() {
        for version in [json!("0.1.0"), json!("0.2.0"), json!("2.0.0"), json!(1), Value::Null] {
            let error = read(json!({"cniVersion": version, "nonsense": 1})).unwrap_err();
            assert_eq!(error.code, INCOMPATIBLE_VERSION, "{version}");
            assert!(error.details.contains("1.1.0"));
        }
        assert_eq!(Conf::read(b"{", true).unwrap_err().code, DECODING_FAILURE);
        assert_eq!(Conf::read(b"[]", true).unwrap_err().code, DECODING_FAILURE);
    }

    #[test]
    fn what_other_plugins_do_is_refused_with_their_names() {
        let mut conf = good();
        conf["runtimeConfig"]["ipRanges"] = json!([[]]);
        let error = read(conf).unwrap().refuse_unsupported().unwrap_err();
        assert_eq!(error.code, UNSUPPORTED_FIELD);
        assert!(error.message.contains("ipRanges") && !error.details.is_empty());
        let mut conf = good();
        conf["runtimeConfig"]["ipRanges"] = json!([]);
        assert!(read(conf).unwrap().refuse_unsupported().is_ok());
    }

    #[test]
    fn another_plugin_may_ask_for_addresses() {
        let theirs = json!({
            "cniVersion": "1.0.0", "name": "n", "type": "bridge", "bridge": "br-x", "isGateway": true,
            "ipam": {"type": TYPE, "pool": "pods"},
        });
        let conf = read(theirs).unwrap();
        assert!(!conf.is_ours);
        let foreign = read(json!({"cniVersion": "1.0.0", "name": "n", "type": "bridge"})).unwrap_err();
        assert!(foreign.message.contains("type is not switch-cni"), "{foreign}");
    }
}
