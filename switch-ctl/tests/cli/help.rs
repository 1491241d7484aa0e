//! Help that helps: every command has an example, and each of them works when it is pasted into a shell beside the switch of
//! docs/guide/first-switch.md, which is set up here by the very lines of that page. A mistyped command names the one that was meant.

use crate::machine::{CTL, LOOK_S, Machine, PATIENCE_S, WAS_ENDED, first_switch, said, switchd};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// Columns of a terminal: a line that is longer is broken by it, or by clap, and is another one when it is pasted.
const COLUMNS: usize = 80;
/// Examples, by how they begin, that go on until Ctrl-C.
const UNTIL_CTRL_C: &[&str] = &[
    "switch-ctl capture",
    "switch-ctl events",
    "switch-ctl flow watch --port web",
    "switch-ctl metrics --listen",
    "mkdir -p /run/switchd && switchd",
    "mkdir -p /run/switchd /var/lib/switchd && \\",
    "mkdir -p /run/first && switchd",
];
/// Examples that end with something other than 0, and with what: they ask about what a switch without connections does not have.
const ENDS_WITH: &[(&str, i32)] = &[
    ("switch-ctl flow explain tcp 10.66.0.2:40000", 4),
    ("switch-ctl flow explain udp '[fd66::2]:40000'", 4),
    ("switch-ctl ipam lease release --", 4),
];
/// Examples that are not pasted, and why.
const NOT_PASTED: &[(&str, &str)] = &[
    ("switch-ctl top", "asks for a person at a terminal; its screens are drawn in src/top"),
    ("switch-ctl install", "changes a whole machine; tests/install.rs does it to one of its own"),
    ("switch-ctl uninstall", "the same"),
    ("switch-ctl capture -w - | wireshark", "opens a window"),
];
/// The command whose example is about the first entry of the history.
const FIRST: &str = "rollback";
/// The command after which there is no switch.
const LAST: &str = "stop";
/// Pools are no part of what is declared: `apply` takes none away.
const BACK: &str = "switch-ctl apply /run/first/first.toml
     for pool in $(switch-ctl --json ipam pool list | jq -r '.[].pool.name'); do switch-ctl ipam pool delete $pool; done";

/// What a program says of itself with `--help`, where there is room: a line that is too long is not broken, and found.
fn help(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).arg("--help").env("COLUMNS", "200").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines below `Example:` or `Examples:`, as they stand there, each as long as the shell wants it: with the lines that go on.
fn examples(help: &str) -> Vec<String> {
    let mut lines =
        help.lines().skip_while(|line| !matches!(*line, "Example:" | "Examples:")).skip(1).peekable();
    let mut all = Vec::new();
    let mut one = String::new();
    while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
        assert!(line.chars().count() < COLUMNS, "it is broken on a terminal: {line}");
        one += line;
        one.push('\n');
        if !line.ends_with('\\') && is_whole(&one) {
            all.push(std::mem::take(&mut one));
        }
    }
    assert!(one.is_empty(), "it does not end: {one}");
    all
}

/// Whether the shell waits for no further line.
fn is_whole(text: &str) -> bool {
    Command::new("bash").args(["-n", "-c", text]).stderr(Stdio::null()).status().unwrap().success()
}

/// The commands that do something, by the words of each: those that are no group of others, and `stats`, which is both.
fn commands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut groups = vec![Vec::<String>::new()];
    while let Some(group) = groups.pop() {
        let words: Vec<&str> = group.iter().map(String::as_str).collect();
        let text = help(Path::new(CTL), &words);
        let (_, list) = text.split_once("\nCommands:\n").unwrap_or_default();
        let names = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
        let names: Vec<_> = names.map(|line| line.split_whitespace().next().unwrap()).collect();
        if names.is_empty() || words == ["stats"] {
            found.push(group.clone());
        }
        let below = |name: &&str| [group.as_slice(), &[(*name).to_owned()]].concat();
        groups.extend(names.iter().filter(|name| **name != "help").map(below));
    }
    found.sort();
    found
}

fn begins<'a, T>(list: &'a [T], example: &str, of: impl Fn(&T) -> &str) -> Option<&'a T> {
    list.iter().find(|item| example.trim_start().starts_with(of(item)))
}

#[test]
fn every_command_has_an_example_that_works_when_pasted() {
    let mut all: Vec<(String, Vec<String>)> = commands()
        .iter()
        .map(|words| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            (words.join(" "), examples(&help(Path::new(CTL), &words)))
        })
        .collect();
    assert!(all.len() > 80 && all.iter().any(|(name, _)| name == "port add xdp"), "{all:?}");
    all.push((String::new(), examples(&help(Path::new(CTL), &[]))));
    all.push(("switchd".into(), examples(&help(&switchd(), &[]))));
    let without: Vec<_> =
        all.iter().filter(|(_, examples)| examples.is_empty()).map(|(name, _)| name).collect();
    assert!(without.is_empty(), "`--help` has no example: {without:?}");
    let own = all.iter().filter(|(name, examples)| {
        let names = if name == "switchd" { name.clone() } else { format!(" {name}") };
        !examples.iter().any(|example| example.contains(&names))
    });
    let others: Vec<_> = own.map(|(name, _)| name).collect();
    assert!(others.is_empty(), "the examples are about something else: {others:?}");

    let machine = Machine::new();
    machine.must(&first_switch());
    // Somebody speaks, so that there is something to see; and what there is now is come back to.
    machine.must("ip netns exec web ping -q -i 0.2 10.66.0.3 >/dev/null 2>&1 &");
    machine.must("switch-ctl export > /run/first/first.toml");
    all.sort_by_key(|(name, _)| (name != FIRST, name == LAST));
    let (mut complaints, mut unused) = (Vec::new(), lists());
    for (name, examples) in &all {
        let folder = machine.folder();
        for example in examples {
            let mut uses = |start: &'static str| unused.remove(start);
            if let Some((start, _)) = begins(NOT_PASTED, example, |(start, _)| start) {
                uses(start);
                continue;
            }
            let (mut due, mut patience) = (0, PATIENCE_S);
            if let Some((start, code)) = begins(ENDS_WITH, example, |(start, _)| start) {
                uses(start);
                due = *code;
            } else if let Some(start) = begins(UNTIL_CTRL_C, example, |start| start) {
                uses(start);
                patience = LOOK_S;
            }
            let output = machine.paste(example, &folder, patience);
            // What goes on until it is told to end did not fail.
            let is_due = |code| code == due || (code == WAS_ENDED && patience == LOOK_S);
            if !output.status.code().is_some_and(is_due) {
                complaints.push(format!("{name}:\n{example}{}", said(&output)));
            }
            if name == LAST {
                machine.must(&restart());
            }
        }
        if name != "switchd" && name != LAST {
            let back = machine.paste(BACK, &machine.directory, PATIENCE_S);
            assert!(back.status.success(), "after {name}: {}", said(&back));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(unused.is_empty(), "nothing begins so any more: {unused:?}");
}

/// All that the lists above excuse.
fn lists() -> BTreeSet<&'static str> {
    let starts = ENDS_WITH.iter().map(|(start, _)| *start).chain(NOT_PASTED.iter().map(|(start, _)| *start));
    starts.chain(UNTIL_CTRL_C.iter().copied()).collect()
}

/// A daemon in the place of the one that was stopped.
fn restart() -> String {
    "while switch-ctl status >/dev/null 2>&1; do sleep 0.1; done
     switchd --socket $SWITCHD_SOCKET 2>>/run/first/log &
     until switch-ctl status >/dev/null 2>&1; do sleep 0.1; done"
        .into()
}

#[test]
fn a_mistyped_command_suggests_the_one_that_was_meant() {
    let cases = [
        ("port add tpa web", "tap"),
        ("port add hots node", "host"),
        ("port add uplnik up0", "uplink"),
        ("prot list", "port"),
        ("brigde list", "bridge"),
        ("poilcy list", "policy"),
        ("policy expalin web db", "explain"),
        ("--json route delte 10.9.0.0/16", "delete"),
        ("statsu", "status"),
        ("suport-bundle", "support-bundle"),
        ("ipam lease relase", "release"),
    ];
    for (line, meant) in cases {
        let output = Command::new(CTL).args(line.split(' ')).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {complaint}");
        let tip =
            complaint.lines().find(|line| line.contains("tip:")).unwrap_or_else(|| panic!("{complaint}"));
        assert!(tip.contains(&format!("'{meant}'")), "{line}: {complaint}");
    }
    let tip = |line: &str| {
        let output = Command::new(CTL).args(line.split(' ')).output().unwrap();
        String::from_utf8(output.stderr)
            .unwrap()
            .lines()
            .find(|line| line.contains("tip:"))
            .map(str::to_owned)
    };
    assert_eq!(tip("port add tpa").unwrap().matches('\'').count(), 2, "one, not pcap as well");
    assert_eq!(tip("zzzzzz"), None, "nothing is near it, and there are too many");
    for line in ["port add zzzzzz", "port add web --bridge br0"] {
        let tip = tip(line).unwrap_or_default();
        assert!(tip.contains("said first: tap, host, uplink, xdp, memory, pcap"), "{line}: {tip}");
    }
    assert!(tip("port add web tap --bridge br0").unwrap().contains("'tap' is said before 'web'"));
    for (line, word) in [
        ("route add 10.9.0.0/16 --via 10.66.0.2", "via"),
        ("route add 10.9.0.0/16 --via=10.66.0.2 --dev br0", "via"),
        ("route add 10.9.0.0/16 --blackhole", "blackhole"),
        ("port --list", "list"),
        ("port add --tap web", "tap"),
    ] {
        let tip = tip(line).unwrap_or_default();
        assert!(tip.contains(&format!("'{word}' is written without dashes")), "{line}: {tip}");
    }
    assert!(tip("route add 10.9.0.0/16 via 10.66.0.2 --metrik 7").unwrap().contains("--metric"));
}
