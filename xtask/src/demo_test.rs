//! The first command of the README: to its end, left running and then stopped by the line that it prints, interrupted by Ctrl-C, failing in
//! the middle, and by somebody who may not. None of them may leave anything behind. It shows the programs that the tests were built with:
//! what the release's are faster by shows nothing here, and building them takes a quarter of the whole time.

use crate::sh::{self, Result, capture, root};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A user who is nobody (Debian's base-passwd).
const NOBODY: u32 = 65_534;
/// How long a daemon may take to end, on a busy machine.
const ENDED_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// What came of a demo.
struct Shown {
    /// Its process: namespaces, devices and files are called after it.
    process: i32,
    said: String,
    complaint: String,
    succeeded: bool,
}

/// See the module.
pub fn run() -> Result {
    let mut build = crate::test::tests(&["kernel", "cli"]);
    build.args(["--no-run", "--quiet"]);
    sh::run(build)?;
    let programs = root().join("target/debug");
    // Most of the time both wait.
    let (ended, kept) = std::thread::scope(|scope| {
        let kept = scope.spawn(|| show(&programs, &["--keep"], None));
        (
            show(&programs, &[], None),
            kept.join().unwrap_or_else(|_| Err("the test of --keep panicked".into())),
        )
    });
    // Whatever else is wrong, nothing is left running.
    let stopped = kept.as_ref().map_or(Ok(()), stop);
    let (ended, kept) = (ended?, kept?);
    stopped?;
    kept.is_whole()?;
    kept.expect("everything is left running", kept.succeeded)?;
    ended.is_whole()?;
    ended.expect("everything down", ended.succeeded)?;
    ended.left_nothing()?;

    let interrupted = show(&programs, &[], Some("in one VLAN and reach each other"))?;
    let is_told = interrupted.complaint.contains("interrupted; everything was removed");
    interrupted
        .expect("", !interrupted.succeeded && is_told && !interrupted.said.contains("everything down"))?;
    interrupted.left_nothing()?;

    let failed = show(&broken_programs(&programs)?, &[], None)?;
    failed
        .expect("four pods with a veth each", !failed.succeeded && failed.complaint.contains("switch-ctl"))?;
    failed.left_nothing()?;

    refuse()?;
    println!(
        "shown, left running and stopped, interrupted, failed: all left nothing behind; who is not root is told so"
    );
    Ok(())
}

/// What the demo says, to its end or until it says `stop_at`.
fn show(programs: &Path, words: &[&str], stop_at: Option<&str>) -> Result<Shown> {
    let text = |error: std::io::Error| error.to_string();
    let mut command = Command::new(std::env::current_exe().map_err(text)?);
    // A process group of its own: a terminal's Ctrl-C goes to all of it.
    command.args(["demo", "--programs"]).arg(programs).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(text)?;
    let group = Pid::from_child(&child);
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        let line = line.map_err(text)?;
        if stop_at.is_some_and(|words| line.contains(words)) {
            kill_process_group(group, Signal::INT).map_err(|error| error.to_string())?;
        }
        said += &line;
        said.push('\n');
    }
    let output = child.wait_with_output().map_err(text)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Shown { process: group.as_raw_nonzero().get(), said, complaint, succeeded: output.status.success() })
}

impl Shown {
    fn expect(&self, words: &str, is_right: bool) -> Result {
        if is_right && self.said.contains(words) {
            return Ok(());
        }
        Err(format!("the demo was to say {words:?}, and said:\n{}{}", self.said, self.complaint))
    }

    /// It showed all that it is to show.
    fn is_whole(&self) -> Result {
        let count = |words: &str| self.said.matches(words).count();
        let seen = [
            count(", every byte checked,"),
            count(", 0% packet loss"),
            count(": no answer, as it should be"),
        ];
        // The MAC table, counters and drop reasons, cycles per stage, and the workers.
        let tables =
            ["$ switch-ctl fdb list", "$ switch-ctl stats", "$ switch-ctl worker list", "CYCLES A PACKET"];
        self.expect("", seen == [4, 7, 4] && tables.iter().all(|table| self.said.contains(table)))
    }

    /// Namespaces, programs and files that are there of it.
    fn left(&self) -> Vec<String> {
        let name = format!("sw{}-", self.process);
        let namespaces = switch_lab::net::run("ip", &["netns", "list"]);
        let namespaces = namespaces.lines().filter(|line| line.starts_with(&name)).map(str::to_owned);
        let entries = |directory: &Path| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let files = entries(&std::env::temp_dir());
        let is_its =
            |path: &&PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name));
        let files = files.iter().filter(is_its).map(|path| path.display().to_string());
        let place = format!("/{name}");
        let running = entries(Path::new("/proc")).into_iter().filter_map(|process| {
            let words = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).replace('\0', " ");
            words.contains(&place).then_some(words)
        });
        namespaces.chain(files).chain(running).collect()
    }

    fn left_nothing(&self) -> Result {
        match self.left() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("the demo left:\n{}", left.join("\n"))),
        }
    }

    /// What stands behind a word at a line's beginning.
    fn told(&self, word: &str) -> Result<&str> {
        let told = self.said.lines().find_map(|line| line.strip_prefix(word));
        told.map(str::trim).ok_or_else(|| format!("the demo does not say {word:?}:\n{}", self.said))
    }
}

/// What was left running answers and carries, and is stopped as was said.
fn stop(kept: &Shown) -> Result {
    if kept.left().len() < 3 {
        return Err(format!("nothing was left running: {:?}", kept.left()));
    }
    let line = |line: &str| capture(Command::new("sh").args(["-c", line]));
    let outcome = line(kept.told("talk to it:")?).and_then(|ports| {
        let answered = line(&format!("{} -c 1 -W 5", kept.told("enter a pod:")?))?;
        match ports.contains("pod1") && answered.contains("1 received") {
            true => Ok(()),
            false => Err(format!("what was left running says:\n{ports}{answered}")),
        }
    });
    line(kept.told("stop it:")?)?;
    // A daemon that was told to stop ends by and by.
    let asked = Instant::now();
    while !kept.left().is_empty() && asked.elapsed() < ENDED_WITHIN {
        std::thread::sleep(LOOK);
    }
    outcome.and_then(|()| kept.left_nothing())
}

/// The daemon, and a command line that always fails.
fn broken_programs(programs: &Path) -> Result<PathBuf> {
    let place = root().join("target/demo-test");
    let text = |error: std::io::Error| format!("{}: {error}", place.display());
    _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).map_err(text)?;
    symlink(programs.join("switchd"), place.join("switchd")).map_err(text)?;
    symlink("/bin/false", place.join("switch-ctl")).map_err(text)?;
    Ok(place)
}

/// Who is not root is told what is missing, and gets nothing else.
fn refuse() -> Result {
    // By this name it may be started by whoever may not see where it is.
    let mut command = Command::new("/proc/self/exe");
    let output = command.arg("demo").uid(NOBODY).gid(NOBODY).output().map_err(|error| error.to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    match !output.status.success() && complaint.contains("run it with sudo") {
        true => Ok(()),
        false => Err(format!("who is not root gets {}: {complaint}", output.status)),
    }
}
