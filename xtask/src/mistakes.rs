//! Mistakes, put into a copy of the source one at a time. A test counts only after it has failed on one:
//! this shows that each of the clever places has a test that notices.

mod acl;
mod daemon;
mod exact;
mod flow;
mod law;
mod list;
mod nat;
mod policy;
mod races;
mod route;
mod tunnel;
mod uplink;
mod ways;

use crate::sh::{Result, root, say};
use acl::ACLS;
use daemon::DAEMON;
use exact::EXACT;
use flow::FLOWS;
use law::LAW;
use list::MISTAKES;
use nat::NAT;
use policy::POLICY;
use races::RACES;
use route::ROUTES;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use tunnel::TUNNEL;
use uplink::UPLINK;
use ways::WAYS;

struct Mistake {
    what: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    test: &'static str,
    loom: bool,
}

fn all() -> impl Iterator<Item = &'static Mistake> {
    let of_tables = MISTAKES.iter().chain(ACLS).chain(NAT).chain(DAEMON).chain(WAYS).chain(ROUTES);
    of_tables.chain(RACES).chain(UPLINK).chain(FLOWS).chain(TUNNEL).chain(EXACT).chain(LAW).chain(POLICY)
}

/// Mistakes whose place is not in the source any more, or not there alone.
pub fn misplaced() -> Vec<String> {
    let is_there = |mistake: &&'static Mistake| {
        let text = fs::read_to_string(root().join("switch-core/src").join(mistake.file)).unwrap_or_default();
        text.matches(mistake.right).count() == 1
    };
    let lost = all().filter(|mistake| !is_there(mistake));
    lost.map(|mistake| format!("{}: no place for the mistake \"{}\"", mistake.file, mistake.what)).collect()
}

/// Makes every mistake, or `only` some, and runs the test that should notice.
pub fn run(only: &str) -> Result {
    let copy = root().join("target/mistakes");
    _ = fs::remove_dir_all(copy.join("switch-core"));
    fs::create_dir_all(&copy).map_err(|error| error.to_string())?;
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "clippy.toml",
        "switch-api",
        "switch-core",
        "switch-ctl",
        "lab",
        "benches",
        "plugins",
        "xtask",
    ] {
        copy_all(&root().join(part), &copy.join(part)).map_err(|error| format!("{part}: {error}"))?;
    }
    let mut unnoticed = Vec::new();
    let is_meant = |mistake: &&'static Mistake| mistake.what.contains(only) || mistake.file.contains(only);
    for mistake in all().filter(is_meant) {
        say(mistake.what);
        let file = copy.join("switch-core/src").join(mistake.file);
        let right = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", mistake.file))?;
        if right.matches(mistake.right).count() != 1 {
            return Err(format!(
                "{}: the place for \"{}\" is not there any more; mend this list",
                mistake.file, mistake.what
            ));
        }
        fs::write(&file, right.replace(mistake.right, mistake.wrong)).map_err(|error| error.to_string())?;
        let noticed = is_noticed(&copy, mistake)?;
        fs::write(&file, right).map_err(|error| error.to_string())?;
        println!("{} by {}", if noticed { "noticed" } else { "NOT NOTICED" }, mistake.test);
        if !noticed {
            unnoticed.push(mistake.what);
        }
    }
    if unnoticed.is_empty() { Ok(()) } else { Err(format!("nobody noticed: {}", unnoticed.join("; "))) }
}

fn is_noticed(copy: &Path, mistake: &Mistake) -> Result<bool> {
    let test = |extra: &[&str]| {
        let mut command = Command::new("cargo");
        let which: &[&str] = match mistake.loom {
            true => &["--package", "switch-loom", "--test", "races"],
            false => &["--package", "switch-core", "--lib"],
        };
        command.args(["test", "--quiet"]).args(which).args(extra).current_dir(copy);
        // The copy's own RUSTFLAGS, not those of whoever runs us.
        command.env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", root().join("target/mistakes-build"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // A mistake that does not compile is noticed by nobody's test: the list is wrong then.
    if !test(&["--no-run"]).status().is_ok_and(|status| status.success()) {
        return Err(format!("\"{}\" does not compile; mend this list", mistake.what));
    }
    // A deadlock is noticed too: by the clock.
    let mut command = Command::new("timeout");
    let inner = test(&[]);
    command.arg("120").arg(inner.get_program()).args(inner.get_args()).arg(mistake.test).current_dir(copy);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(!status.map_err(|error| error.to_string())?.success())
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_file() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "target" {
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
