//! Help that helps: every command has an example, and each of them works when it is pasted into a shell beside the switch of
//! docs/guide/first-switch.md, which is set up here by the very lines of that page. A mistyped command names the one that was meant.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CTL: &str = env!("CARGO_BIN_EXE_switch-ctl");
const GUIDE: &str = include_str!("../../../docs/guide/first-switch.md");
/// Columns of a terminal: a line that is longer is broken by it, or by clap, and is another one when it is pasted.
const COLUMNS: usize = 80;
/// How long what ends by itself may take on a machine that is busy.
const PATIENCE_S: &str = "120";
/// How long what ends with Ctrl-C is looked at.
const LOOK_S: &str = "2";
/// timeout(1) ended it.
const WAS_ENDED: i32 = 124;

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

/// A machine: namespaces of our own for devices, mounts and processes, with what the guide takes for granted (a NIC `eth0`, an empty
/// /run). All of it is gone with the process that holds it.
struct Machine {
    holder: Child,
    directory: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("switch-help-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sleep",
            "1800",
        ]);
        let holder = unshare.stdout(Stdio::null()).spawn().unwrap();
        let machine = Self { holder, directory };
        let started = Instant::now();
        while machine.inside().is_none() {
            assert!(started.elapsed() < Duration::from_secs(20), "unshare makes no namespaces");
            std::thread::sleep(Duration::from_millis(20));
        }
        machine.must(
            "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mount -t sysfs none /sys && mkdir /run/netns
             ip link set lo up && ip link add eth0 type veth peer name far0 && ip link set eth0 up && ip link set far0 up",
        );
        machine
    }

    /// The process inside, once it is there.
    fn inside(&self) -> Option<u32> {
        let id = self.holder.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let child = children.split_whitespace().next()?.parse().ok()?;
        // Once it is `sleep`, all is set up.
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "sleep").then_some(child)
    }

    /// Pastes lines into a shell, in a folder; timeout(1) presses Ctrl-C after a while.
    fn paste(&self, lines: &str, folder: &Path, patience_s: &str) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args(["--net", "--mount", "--pid", "--target", &self.inside().unwrap().to_string()]);
        enter.arg(format!("--wd={}", folder.display())).args(["timeout", "--signal=INT", "--kill-after=10"]);
        enter.args([patience_s, "bash", "-e", "-o", "pipefail", "-c", lines]);
        let beside = Path::new(CTL).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        enter.env("PATH", format!("{}:{}:{path}", beside.display(), switchd().parent().unwrap().display()));
        enter.env("SWITCHD_SOCKET", "/run/first/switchd.sock").stdin(Stdio::null());
        // Into files: what goes on in the background would keep a pipe open.
        let [out, err] = ["out", "err"].map(|name| self.directory.join(name));
        let [stdout, stderr] = [&out, &err].map(|path| std::fs::File::create(path).unwrap());
        let status = enter.stdout(stdout).stderr(stderr).status().unwrap();
        Output { status, stdout: std::fs::read(&out).unwrap(), stderr: std::fs::read(&err).unwrap() }
    }

    fn must(&self, lines: &str) {
        let output = self.paste(lines, &self.directory, PATIENCE_S);
        assert!(output.status.success(), "{lines}\n{}", said(&output));
    }

    /// A folder with nothing in it.
    fn folder(&self) -> PathBuf {
        let folder = self.directory.join("pasted");
        _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        folder
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its child goes with it, and with that, process 1 of its namespace, all others in there.
        _ = self.holder.kill();
        _ = self.holder.wait();
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The guide's lines of its first two parts. `traceroute` is there "if installed"; what waits a second for the daemon waits until it
/// serves.
fn first_switch() -> String {
    let (setup, _) = GUIDE.split_once("## A look inside").unwrap();
    let blocks = setup.split("```console\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let lines: String = blocks
        .flat_map(str::lines)
        .filter(|line| !line.contains("traceroute"))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(lines.contains("\nsleep 1\n") && lines.contains("port add tap lab"), "{lines}");
    lines.replace("\nsleep 1\n", "\nuntil switch-ctl status >/dev/null 2>&1; do sleep 0.1; done\n")
}

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

fn switchd() -> PathBuf {
    std::env::var_os("SWITCHD").map_or_else(|| Path::new(CTL).with_file_name("switchd"), PathBuf::from)
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
    assert_eq!(tip("port add zzzzzz"), None, "nothing is near it");
}
