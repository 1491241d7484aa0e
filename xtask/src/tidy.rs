//! The rules of the house, as tests that say what to do instead.

use crate::sh::{Result, root};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file: one idea fits in fewer.
const LINES_MAX: usize = 600;

/// Rooms that touch no descriptor, thread, clock, log or environment.
const PURE: &[&str] = &[
    "wire", "table", "config", "host", "pipeline", "frame", "counter", "ipam", "balance", "policy", "acl",
    "nat",
];
/// What they may not name, and why.
const IMPURE: &[(&str, &str)] = &[
    ("std::thread", "a thread"),
    ("std::time::Instant", "a clock: take `now` as an argument"),
    ("std::time::SystemTime", "a clock: take `now` as an argument"),
    ("std::env::", "the environment"),
    ("std::fs", "a file"),
    ("std::net::Tcp", "a socket"),
    ("tracing::", "a log"),
    ("println!", "the terminal"),
    ("std::os::fd", "a descriptor"),
    ("rand::", "randomness: take a seed as an argument"),
];
/// Rooms that run on workers and do nothing but that, and how one speaks: a log takes a lock and a system call.
const SILENT: &[&str] = &["worker", "port"];
const SPEAKING: &[&str] = &["tracing::", "println!", "print!", "dbg!"];
/// Where `unsafe` may live, each block with the promise it keeps.
const UNSAFE_ROOMS: &[&str] = &[
    "switch-core/src/port/xdp/",
    "switch-core/src/port/tap/",
    "switch-core/src/frame/area.rs",
    "switch-core/src/pages.rs",
    "switch-core/src/prefetch.rs",
    // One system call that no library has.
    "switch-core/src/worker/prompt.rs",
    "lab/src/cable.rs",
    "lab/src/raw.rs",
    "lab/src/trouble.rs",
    "benches/src/allocations.rs",
    // A submission names memory that outlives it.
    "benches/src/tap_loops.rs",
];
/// Which room may not import which; the reason in a word.
const WALLS: &[(&str, &str, &str)] = &[
    ("switch-core/src/wire/", "crate::pipeline", "wire is a leaf"),
    ("switch-core/src/table/", "crate::pipeline", "table is a leaf"),
    ("switch-core/src/table/", "crate::config", "table is a leaf"),
    ("switch-core/src/host/", "crate::pipeline", "host is below pipeline"),
    ("switch-core/src/host/", "crate::config", "host knows packets only"),
    ("switch-core/src/host/", "crate::frame", "host knows packets only"),
    ("switch-core/src/frame/", "crate::pipeline", "frame is a leaf"),
    ("switch-core/src/frame/", "crate::port", "frame is a leaf"),
    ("switch-core/src/counter/", "crate::pipeline", "counter is a leaf"),
    ("switch-core/src/config/", "crate::pipeline", "config comes before pipeline"),
    ("switch-core/src/config/", "crate::worker", "config comes before worker"),
    ("switch-core/src/policy/", "crate::config", "policy compiles what it is given"),
    ("switch-core/src/policy/", "crate::pipeline", "policy compiles what it is given"),
    ("switch-core/src/policy/", "crate::acl", "policies know nothing of lists"),
    ("switch-core/src/acl/", "crate::config", "lists are compiled as they are given"),
    ("switch-core/src/acl/", "crate::pipeline", "lists are compiled as they are given"),
    ("switch-core/src/nat/", "crate::config", "rules are compiled as they are given"),
    ("switch-core/src/nat/", "crate::pipeline", "rules are compiled as they are given"),
    ("switch-core/src/ipam/", "crate::control", "ipam plans, control writes"),
    ("switch-core/src/pipeline/", "crate::worker", "pipeline comes before worker"),
    ("switch-core/src/port/", "crate::pipeline", "a port knows frames only"),
    ("switch-core/src/port/", "crate::worker", "a port knows frames only"),
    ("switch-core/src/worker/", "crate::control", "worker comes before control"),
    ("switch-ctl/", "switch_core", "clients know the switch only through the socket"),
    ("plugins/", "switch_core", "clients know the switch only through the socket"),
    ("switch-api/", "switch_core", "the API is below everything"),
];
/// How a refusal is made, the call by which it says what to do, and what needs none: a defect's refusal says that by itself.
const REFUSALS: &[(&str, &str, &str)] =
    &[("ApiError::new(", "hint", "Code::Internal"), ("Refusal::new(", "details", "NOTHING")];
/// Stages meet in pipeline/mod.rs only.
const STAGES: &[&str] =
    &["parse", "guard", "learn", "back", "route", "forward", "admit", "rewrite", "egress", "emit"];

/// Checks every rule; all violations at once.
pub fn run() -> Result {
    let mut files = Vec::new();
    for directory in ["switch-api", "switch-core", "switch-ctl", "lab", "plugins", "benches", "fuzz", "xtask"]
    {
        collect(&root().join(directory), &mut files);
    }
    let mut problems = Vec::new();
    for file in &files {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let name = file.strip_prefix(root()).unwrap_or(file).display().to_string();
        check(&name, &text, &mut problems);
    }
    check_documents(&mut problems);
    problems.extend(crate::mistakes::misplaced());
    if problems.is_empty() {
        println!("{} files are tidy", files.len());
        return Ok(());
    }
    Err(format!("{} rules are broken:\n{}", problems.len(), problems.join("\n")))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn check(name: &str, text: &str, problems: &mut Vec<String>) {
    if name == "xtask/src/tidy.rs" {
        return;
    }
    let tested = name.contains("/tests");
    // Tests may do what they like: only what is shipped is held to the walls.
    let shipped =
        text.split("#[cfg(test)]").next().unwrap_or(text).split("#[cfg(all(test").next().unwrap_or(text);
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems.push(format!("{name}: {lines} lines; split it by idea, {LINES_MAX} are the most"));
    }
    if !text.starts_with("//!") && !text.starts_with("#![no_main]") {
        problems.push(format!("{name}: begin with a //! comment that says what this file is"));
    }
    let uses_unsafe =
        shipped.contains("unsafe {") || shipped.contains("unsafe impl") || shipped.contains("unsafe fn");
    if uses_unsafe && !UNSAFE_ROOMS.iter().any(|room| name.starts_with(room)) {
        problems.push(format!("{name}: unsafe outside its rooms ({})", UNSAFE_ROOMS.join(", ")));
    }
    if tested {
        return;
    }
    for (room, import, reason) in WALLS {
        if name.starts_with(room)
            && shipped.lines().any(|line| line.contains(import) && !line.trim_start().starts_with("//"))
        {
            problems.push(format!("{name}: imports {import}, but {reason}"));
        }
    }
    let pure = PURE.iter().any(|room| name.starts_with(&format!("switch-core/src/{room}/")));
    for (word, what) in IMPURE.iter().filter(|_| pure) {
        if shipped.contains(word) {
            problems.push(format!("{name}: a pure room names {what} ({word})"));
        }
    }
    let silent = SILENT.iter().any(|room| name.starts_with(&format!("switch-core/src/{room}/")));
    for word in SPEAKING.iter().filter(|_| silent) {
        if shipped.contains(word) {
            problems.push(format!(
                "{name}: workers say nothing ({word}): count it, or report it to the control thread"
            ));
        }
    }
    for (start, call, needs_none) in REFUSALS {
        for (line, refusal) in refusals(shipped, start) {
            if !refusal.starts_with(needs_none) && !is_called(call, &refusal) {
                problems.push(format!(
                    "{name}:{line}: a refusal that does not say what to do: put .{call}(…) behind {start}…)"
                ));
            }
        }
    }
    check_stage(name, shipped, problems);
}

/// Every expression that begins with `start`, with the line it is on: what is in the brackets, and what is called on it.
fn refusals(text: &str, start: &str) -> Vec<(usize, String)> {
    let found = text.match_indices(start);
    let found = found.map(|(at, _)| {
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + start.len()..];
        let mut end = closed(rest);
        // The calls behind: a dot, a name, and brackets.
        while let Some(call) = rest[end..].trim_start().strip_prefix('.') {
            let Some((name, arguments)) = call.split_once('(') else { break };
            if !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                break;
            }
            end = rest.len() - arguments.len() + closed(arguments);
        }
        (line, rest[..end].to_owned())
    });
    found.collect()
}

/// Where the bracket that was opened before `text` is closed; brackets in strings are none.
fn closed(text: &str) -> usize {
    let (mut depth, mut in_string, mut escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match (in_string, c) {
            (true, _) if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (_, '"') => in_string = !in_string,
            (false, '(' | '[' | '{') => depth += 1,
            (false, ')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Whether a method of this name is called in an expression.
fn is_called(name: &str, expression: &str) -> bool {
    expression.contains(&format!(".{name}(")) || (name == "details" && expression.contains(".and("))
}

fn check_stage(name: &str, text: &str, problems: &mut Vec<String>) {
    let stage = STAGES.iter().find(|stage| name == format!("switch-core/src/pipeline/{stage}.rs"));
    for other in STAGES.iter().filter(|other| stage.is_some_and(|stage| stage != *other)) {
        if text.contains(&format!("use super::{other}"))
            || text.contains(&format!("use crate::pipeline::{other}"))
        {
            problems.push(format!("{name}: a stage imports {other}; they meet in pipeline/mod.rs"));
        }
    }
}

/// What readers are promised is there.
fn check_documents(problems: &mut Vec<String>) {
    for file in ["README.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/API.md", "deny.toml"] {
        if !root().join(file).is_file() {
            problems.push(format!("{file} is missing"));
        }
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    for command in ["cargo xtask demo", "cargo xtask test"] {
        if !readme.contains(command) {
            problems.push(format!("README.md does not name `{command}`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_does_not_say_what_to_do_is_found() {
        let told = |text: &str| {
            let mut problems = Vec::new();
            check("switch-core/src/control/x.rs", &format!("//! x\n{text}"), &mut problems);
            problems
        };
        let good = [
            r#"Err(ApiError::new(Code::Limit, text).field("x").hint("do this"))"#,
            "ApiError::new(Code::Limit, format!(\"({x}\"))\n    .field(f(\")\"))\n    .hint(\"do this\")",
            r#"ApiError::new(Code::Internal, "a defect")"#,
            r#"Refusal::new(IO_FAILURE, text).details("do this")"#,
        ];
        for text in good {
            assert_eq!(told(text), [""; 0], "{text}");
        }
        let bad = [
            r#"Err(ApiError::new(Code::Limit, text).field("x"))"#,
            r#"f(ApiError::new(Code::Limit, text)).hint("it is the other's")"#,
            r#"Refusal::new(IO_FAILURE, text)"#,
        ];
        for text in bad {
            assert!(told(text).iter().any(|problem| problem.contains("x.rs:2")), "{text}");
        }
    }
}
