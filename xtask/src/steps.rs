//! Running steps: one after another before the person's eyes, and beside them, with what one compiler at a time or a test that waits
//! leaves of the cores, those that may. What those print is shown when they are waited for, which is at once when one has failed.

use crate::sh::{Result, root, say};
use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What begins a line that says that something could not be run.
pub const NOT_RUN: &str = "NOT RUN  ";

/// When a step runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In its turn.
    Next,
    /// Beside those that follow, which go first on every core; begun when it is reached and those of this kind before it are done.
    Beside,
    /// In its turn, and nothing beside it: it watches the clock, and takes all cores.
    Alone,
    /// Only when its name is given: it builds all once more, for another machine.
    Asked,
}

/// One of the things to do.
pub struct Step {
    /// What a person sees, and finds it by.
    pub name: &'static str,
    /// When.
    pub when: When,
    /// It.
    pub run: fn() -> Result,
}

/// Runs every step whose name has `only` in it, and says how long each took and what could not be run.
pub fn run_those(all: &'static [Step], only: &str) -> Result {
    let is_due = |step: &&Step| step.name.contains(only) && (step.when != When::Asked || !only.is_empty());
    let wanted: Vec<&'static Step> = all.iter().filter(is_due).collect();
    let are_all = only.is_empty();
    let mut done = Done::default();
    match wanted.len() {
        0 => {
            let names: Vec<_> = all.iter().map(|step| step.name).collect();
            return Err(format!("no part has {only:?} in its name; there are:\n  {}", names.join("\n  ")));
        }
        _ if are_all => in_two_rows(&wanted, &mut done)?,
        _ => wanted.iter().try_for_each(|step| done.run(step))?,
    }
    say(if are_all { "all passed" } else { "these passed, the rest was not run" });
    for (name, time) in done.times {
        println!("{:>6.1} s  {name}", time.as_secs_f64());
    }
    done.not_run.iter().for_each(|what| println!("{what}"));
    Ok(())
}

fn in_two_rows(steps: &[&'static Step], done: &mut Done) -> Result {
    let mut beside = Beside::start();
    for step in steps {
        if beside.has_failed() {
            break;
        }
        match step.when {
            When::Beside => beside.add(step),
            When::Alone => {
                std::mem::replace(&mut beside, Beside::start()).wait(done)?;
                done.run(step)?;
            }
            When::Next | When::Asked => done.run(step)?,
        }
    }
    beside.wait(done)
}

#[derive(Default)]
struct Done {
    times: Vec<(&'static str, Duration)>,
    not_run: Vec<String>,
}

impl Done {
    fn run(&mut self, step: &Step) -> Result {
        say(step.name);
        let start = Instant::now();
        (step.run)().map_err(|error| format!("{}: {error}", step.name))?;
        self.times.push((step.name, start.elapsed()));
        let said = crate::test::take_not_run();
        self.not_run.extend(said);
        Ok(())
    }
}

/// What ran beside, and what became of it: its output, how long it took, whether it passed.
type Ran = (&'static str, String, Duration, bool);

/// Steps that run beside others, each in a process of its own.
struct Beside {
    row: Option<JoinHandle<Vec<Ran>>>,
    /// Closed when no more will come.
    due: Option<Sender<&'static str>>,
    over: Arc<AtomicBool>,
}

impl Beside {
    fn start() -> Self {
        let (due, names) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let row = std::thread::spawn({
            let over = over.clone();
            move || one_by_one(&names, &over)
        });
        Self { row: Some(row), due: Some(due), over }
    }

    fn add(&self, step: &Step) {
        say(&format!("beside what follows: {}", step.name));
        // Nobody listens once one has failed.
        _ = self.due.as_ref().map(|due| due.send(step.name));
    }

    /// Whether one did: what is in its turn has not to be waited for.
    fn has_failed(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn wait(mut self, done: &mut Done) -> Result {
        self.due = None;
        let Some(row) = self.row.take() else { return Ok(()) };
        for (name, said, time, passed) in row.join().map_err(|_| "a step beside others panicked")? {
            say(&format!("{name} (ran beside the others)"));
            print!("{said}");
            if !passed {
                return Err(format!("{name}: see above"));
            }
            done.times.push((name, time));
            done.not_run.extend(said.lines().filter(|line| line.starts_with(NOT_RUN)).map(str::to_owned));
        }
        Ok(())
    }
}

/// Runs what comes, until none comes any more, one fails, or what is in its turn did: then it is over.
fn one_by_one(names: &Receiver<&'static str>, over: &AtomicBool) -> Vec<Ran> {
    let mut all = Vec::new();
    for name in names {
        std::thread::sleep(HEAD_START);
        if over.load(Ordering::Relaxed) {
            break;
        }
        let start = Instant::now();
        let (said, passed) = in_a_process(name).unwrap_or_else(|error| (error, false));
        all.push((name, said, start.elapsed(), passed));
        if !passed {
            over.store(true, Ordering::Relaxed);
            break;
        }
    }
    all
}

impl Drop for Beside {
    /// Something else failed: what is under way ends, and nothing is begun.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.due = None;
        if let Some(row) = self.row.take() {
            _ = row.join();
        }
    }
}

/// How long what runs beside waits when it is reached: cargo lets one at a time build in a directory, and what is in its turn shall be
/// that one. It finds everything built, and tests without holding others up.
const HEAD_START: Duration = Duration::from_secs(5);
/// Niceness of what runs beside others: a seventieth of their share while both want a core.
const LAST: &str = "19";

/// What the step says, and whether it passed.
fn in_a_process(name: &str) -> Result<(String, bool)> {
    let path = root().join("target").join("beside.log");
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let log = File::create(&path).map_err(text)?;
    let mut command = Command::new("nice");
    command.args(["-n", LAST]).arg(std::env::current_exe().map_err(|error| error.to_string())?);
    command.args(["test", name]).stdout(log.try_clone().map_err(text)?).stderr(log);
    let passed = command.status().map_err(|error| error.to_string())?.success();
    let mut said = String::new();
    File::open(&path).and_then(|mut file| file.read_to_string(&mut said)).map_err(text)?;
    Ok((said, passed))
}
