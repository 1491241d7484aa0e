//! The guide's pages and the README, pasted: what a reader would type stands there as it works, and does what is said beside it.

use crate::machine::{FIRST_SWITCH, LOOK_S, Machine, PATIENCE_S, WAS_ENDED, blocks, first_switch};

const README: &str = include_str!("../../../README.md");
const FILES: &str = include_str!("../../../docs/guide/files.md");
const TWO_NODES: &str = include_str!("../../../docs/guide/two-nodes.md");
/// A daemon where the command line looks for it, with nothing declared.
const DAEMON: &str = "mkdir -p /run/first; switchd --socket $SWITCHD_SOCKET 2>/run/first/log &
until switch-ctl status >/dev/null 2>&1; do sleep 0.1; done
";

/// What stands on a page between two of its lines.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from:?}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to:?} behind {from:?}")).0
}

/// What is typed in a transcript, and what is said to come of it.
fn typed(transcript: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in transcript.lines() {
        match (line.strip_prefix("# "), all.last_mut()) {
            (Some(command), _) => all.push((command.to_owned(), String::new())),
            (None, Some((_, said))) => *said += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    all
}

/// A line without the words beside it.
fn code(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// Ends what goes on until Ctrl-C after a while, as whoever has seen enough does.
fn with_ctrl_c(line: &str) -> String {
    match line.starts_with("switch-ctl capture") {
        true => format!("timeout --signal=INT {LOOK_S} {} || test $? = {WAS_ENDED}", code(line)),
        false => line.to_owned(),
    }
}

/// Nothing is left of it: no namespace, no device, no folder.
fn assert_gone(machine: &Machine, folder: &str) {
    assert_eq!(machine.must("ip netns list"), "");
    let links = machine.must("ip -br link");
    assert!(
        links.lines().all(|link| ["lo", "eth0", "far0"].iter().any(|name| link.starts_with(name))),
        "{links}"
    );
    machine.must(&format!("test ! -e {folder}"));
}

#[test]
fn a_first_switch_from_its_first_line_to_its_last() {
    let machine = Machine::new();
    let inside = between(FIRST_SWITCH, "## A look inside", "## Away with it");
    let looks: Vec<String> =
        blocks(inside, "console").iter().flat_map(|block| block.lines()).map(str::to_owned).collect();
    // `top` asks for a person at a terminal.
    let looks: Vec<String> = looks
        .iter()
        .filter(|line| !line.starts_with("switch-ctl top"))
        .map(|line| with_ctrl_c(line))
        .collect();
    assert!(looks.len() >= 4, "{looks:?}");
    let (_, away) = FIRST_SWITCH.split_once("## Away with it").unwrap();
    let said = machine.must(&(first_switch() + &looks.join("\n") + "\n" + &blocks(away, "console").concat()));
    for word in ["ttl=63", "leaves by db", "unaccounted for", "10.66.0.2"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_gone(&machine, "/run/first");
}

#[test]
fn a_file_is_applied_as_the_page_shows_it() {
    let machine = Machine::new();
    machine.must(&format!("ip netns add web; ip netns add db\n{DAEMON}"));
    let folder = machine.folder();
    std::fs::write(folder.join("switch.toml"), &blocks(FILES, "toml")[0]).unwrap();
    let run = |line: &str| {
        let output = machine.paste(line, &folder, "60");
        assert!(output.status.success(), "{line}: {}", crate::machine::said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let (_, shown) = FILES.split_once("## As it goes").unwrap();
    let shown = typed(&blocks(shown, "console")[0]);
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(run(&shown[0].0), shown[0].1, "{}", shown[0].0);
    assert!(run(&shown[1].0).contains("2 received, 0% packet loss"), "{}", shown[1].0);
    // Then the lines at the top of the page, each beside what it is for.
    let list = &blocks(FILES, "console")[0];
    let (daemon, lines): (Vec<&str>, Vec<&str>) = list.lines().partition(|line| line.starts_with("switchd"));
    assert!(lines.len() == 8 && daemon.len() == 1, "{list}");
    lines.iter().for_each(|line| _ = run(line));
    assert!(run("switch-ctl history").contains("rollback 2"));
    run(
        "switch-ctl stop --detach; while switch-ctl status >/dev/null 2>&1; do sleep 0.1; done; mkdir /run/switchd",
    );
    run(&format!(
        "{} & daemon=$!; export SWITCHD_SOCKET=/run/switchd/switchd.sock
         until switch-ctl status >/dev/null 2>&1; do sleep 0.1; done
         switch-ctl port list | grep web1; switch-ctl stop --detach; wait $daemon",
        code(daemon[0])
    ));
}

#[test]
fn the_readmes_five_minutes_and_its_policies() {
    let machine = Machine::new();
    let shown = typed(&blocks(between(README, "## Five minutes", "What it looks like"), "console")[0]);
    let ours = shown
        .iter()
        .filter(|(command, _)| command.starts_with("switch-ctl"))
        .map(|(command, _)| command.as_str());
    let lines: Vec<&str> = ours.collect();
    assert!(lines.len() >= 8 && shown.len() == lines.len() + 2, "two of them build and start: {shown:?}");
    machine.must(&format!(
        "ip netns add web; for n in a b; do ip link add veth$n up type veth peer name far$n; ip link set far$n up; done
{DAEMON}{}
while switch-ctl status >/dev/null 2>&1; do sleep 0.1; done; ip netns del web; rm -r /run/first; ip link del vetha; ip link del vethb",
        lines.join("\n")
    ));

    machine.must(&first_switch());
    let block = between(README, "## Who may speak with whom", "A lookup takes");
    let block = block.split("```").nth(1).unwrap();
    let yaml = between(block, "<<EOF\n", "EOF\n");
    std::fs::write(machine.folder().join("policies.yaml"), yaml).unwrap();
    let lines: String =
        block.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
    let output = machine.paste(&lines, &machine.directory.join("pasted"), PATIENCE_S);
    let said = crate::machine::said(&output);
    assert!(output.status.success() && said.contains("shop/db"), "{lines}\n{said}");
}

/// In the place of a second in which both daemons start, and of those that BGP takes.
const BOTH_SERVE: &str = "for n in 1 2; do until SWITCHD_SOCKET=/run/two-nodes/$n/switchd.sock switch-ctl status >/dev/null 2>&1; do sleep 0.1; done; done";
const BGP_LEADS: &str =
    "until ip netns exec pod1 ping -c 1 -W 1 10.2.0.2 >/dev/null 2>&1; do sleep 0.1; done";

/// Two daemons, BIRD at both, a NIC that is shared: the whole page in one shell, as it is read.
#[test]
fn two_nodes_from_the_first_line_to_the_last() {
    let machine = Machine::new();
    let lines: String = blocks(TWO_NODES, "console")
        .concat()
        .lines()
        // What was built is on the path here.
        .filter(|line| !line.starts_with("export PATH"))
        .map(|line| match line.split_whitespace().take(2).collect::<Vec<_>>()[..] {
            // The daemon is stopped, and its pod's packets end.
            ["kill", "-STOP"] => format!("{{ {}; }} && exit 9 || true\n", code(line)),
            // What a reader waits seconds for takes as long as it takes.
            ["sleep", "1"] => format!("{BOTH_SERVE}\n"),
            ["sleep", "8"] => format!("{BGP_LEADS}\n"),
            ["sleep", "1;"] => line.replacen("sleep 1;", "wait;", 1) + "\n",
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(lines.contains(BOTH_SERVE) && lines.contains(BGP_LEADS) && !lines.contains("\nsleep"), "{lines}");
    let said = machine.must(&lines);
    for word in ["ttl=60", "ttl=62", "bird wrote it", "proto 83", "shared uplink"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_gone(&machine, "/run/two-nodes");
}
