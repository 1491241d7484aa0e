//! Every limit has its row in docs/guide/limits.md, with the number that the code holds to: `UPDATE_GUIDE=1 cargo test guide` writes
//! the table. A new constant named `…_MAX` has to be put into one of the two lists here: those that somebody may meet, and those
//! that only the code does.

#![allow(clippy::unnecessary_cast, reason = "constants are of many types, one of which is the wanted one")]

use std::collections::BTreeSet;
use std::path::Path;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/limits.md");
const BEGIN: &str = "<!-- limits: `UPDATE_GUIDE=1 cargo test guide` writes this -->\n";
const END: &str = "<!-- /limits -->";

/// A limit that somebody may meet.
struct Limit {
    /// The constant, as a path.
    path: &'static str,
    most: u64,
    /// Whether it counts bytes.
    is_bytes: bool,
    what: &'static str,
    /// The option that sets another one, if one does.
    option: &'static str,
}

macro_rules! limit {
    (bytes $path:path, $what:literal) => {
        Limit { is_bytes: true, ..limit!($path, $what) }
    };
    ($path:path, $what:literal) => {
        limit!($path, $what, "")
    };
    ($path:path, $what:literal, $option:literal) => {
        Limit { path: stringify!($path), most: $path as u64, is_bytes: false, what: $what, option: $option }
    };
}

/// Those that somebody may meet, by what they are about.
const TOLD: &[(&str, &[Limit])] = &[
    (
        "ports",
        &[
            limit!(crate::config::PORTS_MAX, "ports"),
            limit!(crate::config::checked::QUEUES_MAX, "queues of an xdp port that are served"),
            limit!(crate::config::checked::TAP_QUEUES_MAX, "queues of a tap or host port"),
            limit!(crate::config::checked::ADDRESSES_MAX, "addresses of a device that the switch makes"),
            limit!(crate::config::checked::ROUTES_MAX, "routes of such a device"),
            limit!(bytes crate::config::checked::ADVMSS_MAX, "segment size that such a route tells (`advmss`)"),
            limit!(crate::config::checked::LABELS_MAX, "notes (`labels`) on a port"),
            limit!(crate::config::checked::RULES_MAX, "rules of what an xdp port takes (`take`)"),
            limit!(crate::config::GUARD_MACS_MAX, "MACs of a source guard"),
            limit!(crate::config::GUARD_ADDRESSES_MAX, "networks of a source guard"),
            limit!(switch_api::LIMIT_MAX, "bytes or packets a second, or at once, of a rate limit"),
            limit!(switch_api::name::NAME_LEN_MAX, "characters of a name"),
        ],
    ),
    (
        "bridges",
        &[
            limit!(crate::config::BRIDGES_MAX, "bridges"),
            limit!(crate::config::FIDS_MAX, "pairs of bridge and VLAN with a member"),
            limit!(crate::config::STATIC_MACS_MAX, "static stations"),
            limit!(
                crate::config::FDB_ENTRIES_DEFAULT,
                "stations that are known; of a full table the newest are not learned",
                "switchd --fdb-entries"
            ),
        ],
    ),
    (
        "routing",
        &[
            limit!(crate::config::uplink::VRFS_MAX, "VRFs that are set"),
            limit!(crate::config::ADDRESSES_MAX, "gateway addresses"),
            limit!(crate::config::ROUTES_STATIC_MAX, "declared routes"),
            limit!(
                crate::config::mirrored::MIRRORED_MAX,
                "mirrored routes of the kernel",
                "switchd --mirror-routes"
            ),
            limit!(crate::config::ecmp::NEXT_HOPS_MAX, "next hops of a route"),
            limit!(crate::config::ROUTES_COUNTED_MAX, "routes that are counted"),
            limit!(crate::table::lpm::VALUE_MAX, "different answers of one routing table"),
            limit!(crate::config::NEIGHBOURS_DEFAULT, "neighbours that are known", "switchd --neighbours"),
            limit!(crate::config::NEIGHBOURS_STATIC_MAX, "declared neighbours"),
            limit!(crate::pipeline::hold::WAITED_FOR_MAX, "neighbours that a worker waits for at a time"),
            limit!(crate::pipeline::hold::HELD_MAX, "packets that a worker holds meanwhile"),
            limit!(crate::pipeline::hold::HELD_A_NEIGHBOUR_MAX, "of these for one neighbour"),
            limit!(crate::host::advert::NETWORKS_MAX, "networks in a router advertisement"),
            limit!(crate::host::fragment::FRAGMENTS_MAX, "pieces that a packet is cut into"),
            limit!(crate::wire::ip::EXTENSIONS_MAX, "IPv6 extension headers that are looked through"),
            limit!(crate::config::shared::NIC_ADDRESSES_MAX, "addresses of a NIC that an uplink shares"),
            limit!(crate::config::tunnels::TUNNELS_MAX, "tunnels"),
            limit!(crate::port::xdp::networks::NETWORKS_MAX, "networks and addresses that an uplink takes"),
        ],
    ),
    (
        "flows",
        &[
            limit!(crate::table::flow::FLOWS_DEFAULT, "flows that are known", "switchd --flows"),
            limit!(crate::table::flow::fragments::FRAGMENTED_MAX, "packets in pieces at a time"),
        ],
    ),
    (
        "policies and lists",
        &[
            limit!(crate::policy::POLICIES_MAX, "network policies"),
            limit!(crate::config::policies::NAMESPACES_MAX, "namespaces with labels"),
            limit!(
                crate::policy::check::WORKLOAD_ITEMS_MAX,
                "labels, named ports and addresses of a workload, each"
            ),
            limit!(crate::acl::ACLS_MAX, "access control lists"),
            limit!(crate::policy::RULES_MAX, "rules of both together, two more of each policy among them"),
            limit!(
                crate::acl::RULE_ITEMS_MAX,
                "networks, ports or ICMP types that a rule of a list names, each"
            ),
            limit!(crate::acl::fields::MAC_MASKS_MAX, "masks of MACs, of all lists together"),
            limit!(crate::config::port_sets::PORT_SETS_MAX, "port sets"),
            limit!(crate::acl::sets::SETS_MAX, "address sets"),
            limit!(switch_api::ADDRESS_SET_MEMBERS_MAX, "members of an address set"),
            limit!(crate::acl::sets::MEMBERS_MAX, "members of all of them"),
            limit!(bytes crate::policy::MEMORY_MAX, "memory that compiled policies take"),
            limit!(bytes crate::policy::budget::MEANWHILE_MAX, "memory that compiling them takes beside that"),
            limit!(
                crate::policy::budget::STEPS_MAX,
                "steps that compiling them takes, each a look at a term, an entry or a column"
            ),
            limit!(bytes crate::acl::MEMORY_MAX, "memory that compiled lists take"),
            limit!(bytes crate::acl::compile::ROOM_BYTES_MAX, "room for kinds of addresses to come, beside that"),
            limit!(bytes crate::acl::ADDRESSES_MEMORY_MAX, "memory that networks and members of sets take beside both"),
            limit!(
                crate::pipeline::judge::PROBES_MAX,
                "reads that wait for each other until a new flow is judged, whatever the number of rules"
            ),
            limit!(crate::pipeline::judge::V4_PROBES_MAX, "the same between addresses of IPv4"),
            limit!(crate::policy::diff::PAIRS_MAX, "pairs that `policy diff` judges"),
            limit!(crate::policy::diff::BLOCKS_MAX, "blocks of addresses that it judges as ends"),
            limit!(switch_api::DIFF_PAIRS_MAX, "pairs that it tells of"),
            limit!(switch_api::DIFF_FLOWS_MAX, "flows that it tells of"),
            limit!(switch_api::DIFF_PORTS_MAX, "ranges of ports that it tells of, of one pair"),
        ],
    ),
    (
        "translation and the node",
        &[
            limit!(crate::nat::NATS_MAX, "rules of network address translation"),
            limit!(crate::nat::SOURCE_RULES_MAX, "source rules of them"),
            limit!(crate::nat::RULE_ITEMS_MAX, "networks or addresses of a rule, each"),
            limit!(crate::nat::PROBES_MAX, "ports that are tried for a new flow"),
            limit!(crate::config::outside::PUBLISHED_MAX, "published ports of the node"),
            limit!(crate::config::outside::PUBLISH_MAX, "of these of one port"),
            limit!(crate::config::outside::NETWORKS_MAX, "networks that a port's masquerade names"),
            limit!(crate::ipam::POOLS_MAX, "address pools"),
            limit!(crate::ipam::RANGES_MAX, "ranges of a pool, and exclusions of a range"),
            limit!(crate::ipam::LEASES_MAX, "leases"),
            limit!(crate::ipam::ADDRESSES_MAX, "addresses that one holder asks for by name"),
            limit!(bytes crate::ipam::HOLDER_LEN_MAX, "length of the name of a network, container or interface of a lease"),
        ],
    ),
    (
        "workers and memory",
        &[
            limit!(crate::config::checked::WORKERS_MAX, "workers"),
            limit!(crate::worker::naps::NAP_US_MAX, "microseconds of a nap (`switchd --nap-us`)"),
            limit!(crate::frame::area::CHUNKS_MAX, "frames of packet memory"),
            limit!(crate::frame::area::REGIONS_MAX, "regions that they lie in"),
            limit!(crate::frame::area::HOLDERS_MAX, "queues of ports that hold frames"),
            limit!(crate::frame::area::LARGE_CHUNKS_MAX, "large frames"),
            limit!(bytes crate::frame::area::CHUNK_BYTES_MAX, "size of a frame (`--frame-size`)"),
            limit!(crate::port::xdp::jumbo::PIECES_MAX, "buffers of the kernel that one jumbo frame lies in"),
            limit!(crate::wire::gso::SEGMENTS_MAX, "segments that a superframe is cut into"),
        ],
    ),
    (
        "requests and clients",
        &[
            limit!(crate::control::places::CLIENTS_MAX, "clients at a time"),
            limit!(crate::control::places::CLIENTS_OTHERS_MAX, "of these, clients that are no admins"),
            limit!(crate::control::places::CLIENTS_READERS_MAX, "of these, clients that only look"),
            limit!(crate::control::places::CLIENTS_A_USER_MAX, "clients of one user who is no admin"),
            limit!(bytes switch_api::codec::LINE_LEN_MAX, "length of a request"),
            limit!(bytes switch_api::codec::LONG_LINE_LEN_MAX, "length of an admin's"),
            limit!(bytes crate::control::input::LONG_BYTES_MAX, "what of long requests may be on its way, of all clients"),
            limit!(switch_api::ROUTE_PAGE_MAX, "routes in one answer"),
            limit!(switch_api::ADDRESS_SET_PAGE_MAX, "members of an address set in one answer"),
            limit!(switch_api::FLOW_PAGE_MAX, "flows in one answer"),
            limit!(switch_api::FLOWS_EXPLAINED_MAX, "flows that `flow explain` tells of"),
            limit!(crate::control::history::HISTORY_MAX, "states in the history"),
            limit!(bytes crate::control::history::HISTORY_BYTES_MAX, "memory of all of them"),
            limit!(bytes crate::control::history::ENTRY_BYTES_MAX, "memory of one of them"),
            limit!(switch_api::CONFIRM_WITHIN_S_MAX, "seconds that a change waits to be confirmed"),
        ],
    ),
    (
        "looking",
        &[
            limit!(bytes crate::pipeline::capture::SNAPLEN_MAX, "part of a frame that a capture keeps"),
            limit!(crate::pipeline::live::FRAMES_MAX, "frames that one live trace follows"),
            limit!(crate::wire::bpf::INSTRUCTIONS_MAX, "instructions of a filter"),
            limit!(
                crate::control::news::KEPT_MAX,
                "events that are kept: of changes, of what policies and lists stopped, of all else"
            ),
            limit!(
                crate::control::news::WAITING_MAX,
                "events that wait for whoever listens; more are lost, and counted"
            ),
            limit!(bytes crate::control::feed::WAITING_MAX, "what waits for one client that listens"),
            limit!(crate::control::log::LINES_MAX, "lines of one place in the program within 10 s"),
            limit!(crate::control::log::LINES_MAX_DEBUG, "the same of `debug` and `trace`"),
            limit!(bytes crate::control::log::LEVEL_LEN_MAX, "length of what `log level` is given"),
            limit!(switch_api::file::SHOWN_MAX, "mistakes that are shown of one file"),
        ],
    ),
];

/// Those that only the code meets, and why nobody else does.
const WITHIN: &[(&str, &[&str])] = &[
    (
        "what a text or a table may be by its own standard, said where it is broken",
        &[
            "crate::policy::check::POLICY_NAME_LEN_MAX",
            "crate::policy::check::LABEL_LEN_MAX",
            "crate::policy::check::KEY_PREFIX_LEN_MAX",
            "crate::policy::check::PORT_NAME_LEN_MAX",
            "crate::wire::gro::IP_LEN_MAX",
            "crate::wire::packet::SCALE_MAX",
            "crate::wire::vxlan::VNI_MAX",
            "crate::host::PACKET_LEN_MAX",
            "crate::host::error::V4_LEN_MAX",
            "crate::table::neigh::PROBES_MAX",
            "crate::table::flow::tcp::ACK_BEHIND_MAX",
            "crate::table::lpm::node::WHOLE_ITEMS_MAX",
        ],
    ),
    (
        "another limit, as another type or for another program",
        &[
            "crate::config::snapshot::LANES_MAX",
            "crate::port::xdp::beat::WORKERS_MAX",
            "crate::port::xdp::program::RULES_MAX",
            "crate::port::xdp::program::SOCKETS_MAX",
        ],
    ),
    (
        "as much as one step may do; the rest is done in the next",
        &[
            "crate::pipeline::slow::SAID_MAX",
            "crate::pipeline::slow::PIECES_MAX",
            "crate::port::xdp::kicks::FRAMES_MAX",
            "crate::port::xdp::kicks::TURNS_MAX",
            "crate::worker::naps::BARREN_MAX",
            "crate::worker::turn::lane::SENT_WATCHED_MAX",
            "crate::port::tap::joined::JOINED_FRAMES_MAX",
            "crate::balance::MOVES_MAX",
            "crate::port::traffic::BURST_MAX",
        ],
    ),
    (
        "room that what it is for cannot pass",
        &[
            "crate::sandbox::keeper::MESSAGE_MAX",
            "crate::pipeline::judge::RULINGS_MAX",
            "crate::pipeline::live::STEPS_MAX",
            "crate::pipeline::live::EVENTS_MAX",
            "crate::pipeline::private::ANNOUNCED_MAX",
            "crate::host::advert::WITHDRAWN_MAX",
            "crate::table::lpm::arena::SLABS_MAX",
            "crate::table::lpm::part::RUNS_MAX",
            "crate::port::faulty::DELAYED_MAX",
            "switch_api::ANSWER_LEN_MAX",
            "switch_api::FIELDS_MAX",
        ],
    ),
    (
        "times, not numbers of things; limits.md says those that matter",
        &[
            "crate::config::snapshot::BEAT_MS_MAX",
            "crate::control::announce::LOOK_PAUSE_MAX",
            "crate::control::retry::REOPEN_PAUSE_MAX",
            "crate::control::uplinks::SETTLE_MS_MAX",
            "crate::control::server::STALL_MAX",
            "crate::table::fdb::AGE_MAX_S",
            "crate::table::neigh::STALE_MAX_S",
        ],
    ),
    (
        "how much a sentence names; all of it is in the list that it is about",
        &[
            "crate::control::supervisor::NAMED_MAX",
            "crate::control::owners::NAMED_MAX",
            "crate::control::upkeep::TOLD_MAX",
        ],
    ),
    (
        "when compiled rules are made anew, or refused; limits.md says it in rules",
        &[
            "crate::policy::diff::JUDGED_MAX",
            "crate::acl::compile::MEANWHILE_MAX",
            "crate::acl::compile::STEPS_MAX",
            "crate::acl::identities::IDLE_MAX",
            "crate::acl::numbered::LATEST_MAX",
            "crate::acl::table::ROOM_MAX",
        ],
    ),
    (
        "how many reads one lookup takes; limits.md says what those of a new flow are together",
        &[
            "crate::table::lpm::PROBES_MAX",
            "crate::table::lpm::V4_PROBES_MAX",
            "crate::policy::PROBES_MAX",
            "crate::policy::V4_PROBES_MAX",
            "crate::acl::PROBES_MAX",
            "crate::acl::V4_PROBES_MAX",
            "crate::acl::FIELDS_PROBES_MAX",
        ],
    ),
    ("the kernel's name of something", &["crate::port::xdp::socket::XDP_MAX_TX_SKB_BUDGET"]),
];

impl Limit {
    /// Where it stands: of the API's constants the name alone, whose modules are private.
    fn key(&self) -> String {
        let path = self.path.replace(' ', "");
        match path.strip_prefix("switch_api::").and_then(|rest| rest.rsplit("::").next()) {
            Some(name) => format!("switch_api::{name}"),
            None => path,
        }
    }

    fn row(&self, about: &str) -> String {
        let most = match self.most {
            bytes if self.is_bytes && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
            bytes if self.is_bytes && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
            bytes if self.is_bytes => format!("{} bytes", apart(bytes)),
            number => apart(number),
        };
        let option = if self.option.is_empty() { String::new() } else { format!(" (`{}`)", self.option) };
        format!("| {about} | {} | {most}{option} |\n", self.what)
    }
}

/// With its thousands apart.
fn apart(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

#[test]
fn the_guide_has_every_limit() {
    let text = std::fs::read_to_string(GUIDE).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the guide has no place for the table");
    let (_, after) = rest.split_once(END).expect("the table has no end");
    let rows: String =
        TOLD.iter().flat_map(|(about, limits)| limits.iter().map(|limit| limit.row(about))).collect();
    let wanted = format!("{before}{BEGIN}| about | what | at most |\n|---|---|---|\n{rows}{END}{after}");
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        std::fs::write(GUIDE, &wanted).unwrap();
    }
    assert!(
        text == wanted,
        "docs/guide/limits.md is not what the code says: UPDATE_GUIDE=1 cargo test guide"
    );
}

#[test]
fn every_limit_of_the_code_is_told_or_said_to_be_within() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = BTreeSet::new();
    collect(&root.join("src"), "crate", &mut there);
    let mut api = BTreeSet::new();
    collect(&root.join("../switch-api/src"), "switch_api", &mut api);
    let name = |path: &String| format!("switch_api::{}", path.rsplit("::").next().unwrap());
    there.extend(api.iter().map(name));
    assert!(there.len() > 100, "{there:?}");

    let told = TOLD.iter().flat_map(|(_, limits)| limits.iter().map(Limit::key));
    let within = WITHIN.iter().flat_map(|(_, paths)| paths.iter().map(|path| (*path).to_owned()));
    let listed: Vec<String> = told.chain(within).collect();
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), unique.len(), "one stands there twice");
    let missing: Vec<_> = there.difference(&unique).collect();
    assert!(missing.is_empty(), "put them into one of the two lists of src/limits.rs: {missing:#?}");
    let gone: Vec<_> = unique.difference(&there).filter(|path| !path.ends_with("_DEFAULT")).collect();
    assert!(gone.is_empty(), "they are no constants any more: {gone:#?}");
}

/// Every constant with `MAX` in its name of the files below, as a path; tests have their own.
fn collect(directory: &Path, module: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let inside = format!("{module}::{stem}");
        if path.is_dir() {
            if stem != "bin" {
                collect(&path, &inside, found);
            }
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let is_test = stem == "limits"
            || stem.ends_with("tests")
            || matches!(stem.as_ref(), "cases" | "fuzz_snapshots");
        let inside = if matches!(stem.as_str(), "mod" | "lib") { module.to_owned() } else { inside };
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for line in shipped.lines().filter(|_| !is_test) {
            let Some((before, rest)) = line.trim_start().split_once("const ") else { continue };
            let name = rest.split(':').next().unwrap();
            let is_name = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
            if is_name && (before.is_empty() || before.starts_with("pub")) && name.contains("_MAX") {
                found.insert(format!("{inside}::{name}"));
            }
        }
    }
}
