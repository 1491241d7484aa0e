//! The manual page, made of what the code itself goes by: verbs, versions, fields, codes. `switch-cni --man` prints it.

use crate::conf::{CONF_LEN_MAX, STATE_DIR_DEFAULT, TYPE};
use crate::invocation::Verb;
use crate::refusal::CODES;
use crate::version::Version;
use roff::{Roff, bold, roman};

/// A configuration to begin with.
const EXAMPLE: &str = include_str!("../../../deploy/cni/10-switch.conflist");

/// Each field of the configuration, and what it is for. docs/CNI.md says more of each.
pub(crate) const FIELDS: &[(&str, &str)] = &[
    ("cniVersion", "the version of the words, one of the above"),
    ("name", "the network's name: letters, digits and _ . -"),
    ("type", "switch-cni"),
    ("bridge", "the bridge, made if it is not there (cni0)"),
    ("vlan", "the VLAN on it (1)"),
    ("driver", "tap: a TAP device with full offloads; xdp: a veth pair with AF_XDP on the node's end (tap)"),
    ("mtu", "the interface's MTU, 68 to 9000 (what fits through the node's way out, and follows it)"),
    ("mac", "the interface's MAC address (one that follows from its IPv4 address)"),
    ("isolated", "containers of this network do not reach each other (false)"),
    ("sourceGuard", "a container sends from its own MAC and addresses only (true)"),
    ("allowedSourcePrefixes", "networks it may send from beside its own addresses (none)"),
    ("ipMasq", "what the container sends and leaves the node has the node's address (true)"),
    ("noMasquerade", "networks towards which it keeps its own (none)"),
    ("queues", "queues of the TAP, 1 to 16; the driver xdp has one (1)"),
    (
        "ipam",
        "type: switch-cni, the daemon's pool named by pool and made of ranges; or another plugin's (none)",
    ),
    ("socket", "the daemon's socket (/run/switchd/switchd.sock)"),
    (
        "stateDir",
        "where deletions wait while the daemon is down, and whom another plugin gave addresses (/var/lib/switch-cni)",
    ),
    (
        "confDirs",
        "where the runtime keeps its lists, to find those that cannot work (/etc/cni/net.d, and those of k3s, MicroK8s and OpenShift)",
    ),
    ("timeoutSeconds", "how long to wait for the daemon, 1 to 600 (30)"),
    ("dns", "passed on in the result"),
    ("args", "args.cni: ips, mac, labels, aliases of one container"),
    ("capabilities", "what a runtime may say of one container: portMappings, bandwidth, ips, mac, aliases"),
    ("runtimeConfig", "what it says"),
    ("prevResult", "what plugins before this one did"),
];

/// What a verb is for.
fn meaning(verb: Verb) -> &'static str {
    match verb {
        Verb::Add => {
            "attach a container; asked again it answers the same, and undoes what it did if it cannot finish"
        }
        Verb::Del => {
            "detach it; succeeds twice, without a namespace, and with the daemon down (the deletion then waits on disk)"
        }
        Verb::Check => "compare what there is with the result of ADD, and name every difference",
        Verb::Gc => {
            "remove every port, lease and address of another plugin's that the runtime does not name in the network"
        }
        Verb::Status => "whether ADD would work now",
        Verb::Version => "the versions that are spoken",
    }
}

/// The page, in roff.
pub fn page() -> String {
    let mut page = Roff::new();
    let program = format!("{TYPE} {}", env!("CARGO_PKG_VERSION"));
    // Without a date: it would be another page with every build.
    page.control("TH", [TYPE, "8", " ", program.as_str(), "The switch"]);
    paragraph(&mut page, "NAME", "switch-cni - attach containers to the switch, as a CNI plugin");
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("CNI_COMMAND="), roman("VERB "), bold(TYPE), roman(" < CONFIGURATION")]);
    page.control("br", []);
    page.text([bold(TYPE), roman(" --help | --version | --man")]);
    paragraph(
        &mut page,
        "DESCRIPTION",
        "Container runtimes call it, not people. It lies in their plugin directory (/opt/cni/bin, /usr/lib/cni) and is named in a network \
         configuration (/etc/cni/net.d). What is to be done comes in the environment, the configuration on standard input; the result, or \
         an error with what to do about it, goes to standard output. It knows the switch only by the daemon's socket.",
    );
    let versions = Version::ALL.map(Version::as_str).join(", ");
    page.control("PP", []);
    page.text([roman(format!(
        "It speaks CNI {versions}. A configuration has at most {CONF_LEN_MAX} bytes."
    ))]);
    list(&mut page, "VERBS", Verb::ALL.iter().map(|(name, verb)| ((*name).to_owned(), meaning(*verb))));
    let fields = FIELDS.iter().map(|(field, what)| ((*field).to_owned(), *what));
    list(&mut page, "CONFIGURATION", fields);
    page.control("PP", []);
    page.text([roman(
        "A field that nobody knows is refused by name, and everything that is wrong is said at once; fields with a dot or a slash in their \
         name are others' and left alone.",
    )]);
    let environment = [
        ("CNI_COMMAND", "the verb"),
        ("CNI_CONTAINERID", "the container"),
        ("CNI_NETNS", "its network namespace, a path"),
        ("CNI_IFNAME", "the interface in it"),
        ("CNI_PATH", "where other plugins are, for an ipam of another type"),
        (
            "CNI_ARGS",
            "MAC, IP, K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID, IgnoreUnknown: KEY=VALUE;KEY=VALUE",
        ),
    ];
    list(&mut page, "ENVIRONMENT", environment.map(|(name, what)| (name.to_owned(), what)).into_iter());
    paragraph(
        &mut page,
        "EXIT STATUS",
        "0 if it was done; 1 if not, and then the answer has one of these codes:",
    );
    CODES.iter().for_each(|(code, what)| item(&mut page, &code.to_string(), what));
    let files = [
        (switch_api::DEFAULT_SOCKET, "the daemon's socket"),
        (STATE_DIR_DEFAULT, "deletions that wait for the daemon"),
        ("/etc/cni/net.d", "where runtimes look for configurations"),
    ];
    list(&mut page, "FILES", files.map(|(name, what)| (name.to_owned(), what)).into_iter());
    page.control("SH", ["EXAMPLES"]);
    page.text([roman("A network whose containers get addresses from the daemon's pool:")]);
    literal(&mut page, EXAMPLE);
    page.text([roman("Asked by hand:")]);
    literal(&mut page, "CNI_COMMAND=VERSION /usr/lib/cni/switch-cni < /dev/null");
    paragraph(
        &mut page,
        "SEE ALSO",
        "switchd(8), switch-ctl(1), switch-ctl-install(1), switch-ctl-ipam(1); /usr/share/doc/switchd/CNI.md; the specification, \
         https://www.cni.dev/docs/spec/",
    );
    page.render()
}

fn paragraph(page: &mut Roff, heading: &str, text: &str) {
    page.control("SH", [heading]);
    page.text([roman(text)]);
}

fn list<'a>(page: &mut Roff, heading: &str, items: impl Iterator<Item = (String, &'a str)>) {
    page.control("SH", [heading]);
    items.for_each(|(name, what)| item(page, &name, what));
}

fn item(page: &mut Roff, name: &str, what: &str) {
    page.control("TP", []);
    page.text([bold(name)]);
    page.text([roman(what)]);
}

fn literal(page: &mut Roff, text: &str) {
    page.control("PP", []);
    page.control("nf", []);
    text.lines().for_each(|line| _ = page.text([roman(line)]));
    page.control("fi", []);
    page.control("PP", []);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::KNOWN;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_has_every_field_that_a_configuration_may_have_and_so_has_the_guide() {
        let described: BTreeSet<&str> = FIELDS.iter().map(|(field, _)| *field).collect();
        assert_eq!(described, KNOWN.iter().copied().collect());
        let guide = include_str!("../../../docs/CNI.md");
        // What the specification says of every configuration, and what runtimes put in, stands in the specification.
        let of_all =
            ["cniVersion", "name", "type", "args", "runtimeConfig", "capabilities", "prevResult", "ipam"];
        for field in KNOWN.iter().filter(|field| !of_all.contains(field)) {
            assert!(guide.contains(&format!("| `{field}` |")), "docs/CNI.md has no row of {field}");
        }
    }

    #[test]
    fn the_page_has_verbs_codes_versions_and_an_example() {
        let page = page();
        assert!(page.contains(".TH switch-cni 8 "), "{page}");
        let sections = ["NAME", "SYNOPSIS", "VERBS", "CONFIGURATION", "ENVIRONMENT", "FILES", "EXAMPLES"];
        assert!(sections.iter().all(|section| page.contains(&format!(".SH {section}\n"))), "{page}");
        for (verb, _) in Verb::ALL {
            assert!(page.contains(&format!("\\fB{verb}\\fR")), "{verb}: {page}");
        }
        for (code, what) in CODES {
            assert!(page.contains(&format!("\\fB{code}\\fR\n")) && !what.is_empty(), "{code}: {page}");
        }
        assert!(page.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0") && page.contains("\"pool\": "), "{page}");
    }
}
