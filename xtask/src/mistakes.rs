//! Mistakes, put into a copy of the source one at a time. A test counts only after it has failed on one:
//! this shows that each of the clever places has a test that notices.

use crate::sh::{Result, root, say};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

struct Mistake {
    what: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    test: &'static str,
    loom: bool,
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        what: "what an inbox has no room for does not come home",
        file: "worker/turn.rs",
        right: "parcel.frames.into_iter().for_each(|frame| pool.give(frame));",
        wrong: "parcel.frames.into_iter().skip(1).for_each(|frame| pool.give(frame));",
        test: "inbox_tests",
        loom: false,
    },
    Mistake {
        what: "a recorder writes down what its port did not take",
        file: "port/recorder.rs",
        right: "&waiting[..waiting.len() - queue.len()]",
        wrong: "&waiting",
        test: "wrapper_tests",
        loom: false,
    },
    Mistake {
        what: "one MAC is one station on all bridges",
        file: "table/fdb.rs",
        right: "mac << 16 | u64::from(fid)",
        wrong: "mac << 16 | u64::from(fid.min(1))",
        test: "l2_tests",
        loom: false,
    },
    Mistake {
        what: "what a flow's originator sends returns to the node as well",
        file: "pipeline/back.rs",
        right: "origin == track.side ||",
        wrong: "",
        test: "back_tests",
        loom: false,
    },
    Mistake {
        what: "networks that touch are two ranges",
        file: "nft/ranges.rs",
        right: "before.last.saturating_add(1)",
        wrong: "before.last",
        test: "nft::ranges",
        loom: false,
    },
    Mistake {
        what: "two ports of the node for one address and for any do not collide",
        file: "config/outside.rs",
        right: "publish.collides(other)",
        wrong: "publish == other",
        test: "outside_tests",
        loom: false,
    },
    Mistake {
        what: "hosts are to make addresses of networks of any size",
        file: "host/advert.rs",
        right: "advert.autonomous && len == AUTONOMOUS_LEN",
        wrong: "advert.autonomous",
        test: "host::advert",
        loom: false,
    },
    Mistake {
        what: "of several ways back only the first one counts",
        file: "pipeline/route.rs",
        right: "group.hops().iter().any(|hop| fits(hop.fid))",
        wrong: "group.hops().iter().skip(1).any(|hop| fits(hop.fid))",
        test: "sources_come_the_way",
        loom: false,
    },
    Mistake {
        what: "a segment size at an odd place is taken out of the checksum as if it were at an even one",
        file: "wire/mss.rs",
        right: "(value_at - at) % 2 == 1",
        wrong: "false",
        test: "wire::mss",
        loom: false,
    },
    Mistake {
        what: "a file takes what another owner declared",
        file: "config/plan.rs",
        right: "all.filter(|object| object.owner() == owner).cloned()",
        wrong: "all.cloned()",
        test: "a_plan_arrives",
        loom: false,
    },
    Mistake {
        what: "a port's stations are forgotten when it comes again",
        file: "config/plan.rs",
        right: "desired.fdb.iter().filter(|station| station.port == after.name)",
        wrong: "desired.fdb.iter().filter(|station| station.port != after.name)",
        test: "a_plan_arrives",
        loom: false,
    },
    Mistake {
        what: "a guarded port may name any MAC in neighbour discovery",
        file: "pipeline/guard/source.rs",
        right: "matches!(kind, 1 | 2) && !guard.has_mac(mac_at(rest, 2))",
        wrong: "matches!(kind, 1 | 2) && false",
        test: "guard::source",
        loom: false,
    },
    Mistake {
        what: "a later fragment of a guarded port is read as a request for an address",
        file: "pipeline/guard/source.rs",
        right: "let is_udp = read.protocol == UDP && !read.later_fragment;",
        wrong: "let is_udp = read.protocol == UDP;",
        test: "guard::source",
        loom: false,
    },
    Mistake {
        what: "an IPv4 address is inside every short IPv6 network",
        file: "config/source_guard.rs",
        right: " && network.is_v4 == is_v4",
        wrong: "",
        test: "agrees_with_the_prefixes",
        loom: false,
    },
    Mistake {
        what: "the reader does not look at the sequence again",
        file: "table/atomic.rs",
        right: "let is_whole = before & LOCKED == 0 && self.control.load(Ordering::Relaxed) == before;",
        wrong: "let is_whole = before & LOCKED == 0;",
        test: "loom_reader",
        loom: true,
    },
    Mistake {
        what: "a writer does not exclude another",
        file: "table/atomic.rs",
        right: "locked.then_some(control)",
        wrong: "(locked || true).then_some(control)",
        test: "loom_two_writers",
        loom: true,
    },
    Mistake {
        what: "a reader of the wide table does not look at the sequence again",
        file: "table/wide.rs",
        right: "if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {",
        wrong: "if before & 1 == 0 {",
        test: "loom_a_reader_of_the_wide_table",
        loom: true,
    },
    Mistake {
        what: "writers of the wide table do not lock the key's home",
        file: "table/wide.rs",
        right: "        if !home.lock() {\n            return Outcome::Busy;\n        }\n",
        wrong: "        _ = home.lock();\n",
        test: "loom_two_writers_of_the_wide_table",
        loom: true,
    },
    Mistake {
        what: "a woken worker serves a lane before it carries out what was asked of it",
        file: "worker/turn.rs",
        right: "self.mail().is_waiting() || self.pause.is_some()",
        wrong: "self.pause.is_some()",
        test: "a_command_that_waits",
        loom: false,
    },
    Mistake {
        what: "a woken worker's first frame waits for the rest of the turn",
        file: "worker/turn.rs",
        right: "        self.hurried = true;\n",
        wrong: "",
        test: "the_lane_that_woke",
        loom: false,
    },
    Mistake {
        what: "a superframe is held against the MTU as a whole",
        file: "pipeline/egress.rs",
        right: "frame.offload.gso.map_or(frame.len(), |gso| gso::longest(area.bytes(frame), gso))",
        wrong: "frame.len()",
        test: "superframes",
        loom: false,
    },
    Mistake {
        what: "a superframe that leaves in segments does not free the frame it came in",
        file: "pipeline/segment.rs",
        right: "    pool.give(frame);\n}\n\nfn write",
        wrong: "    let _ = frame.len();\n}\n\nfn write",
        test: "superframes",
        loom: false,
    },
    Mistake {
        what: "the sleeper does not look again after it said that it sleeps",
        file: "worker/idle.rs",
        right: "                if work.load(Ordering::Relaxed) == 0 {\n                    waker.bell.wait();\n                }",
        wrong: "                waker.bell.wait();",
        test: "loom_no_wake_up",
        loom: true,
    },
    Mistake {
        what: "the waker looks at the state before the work is visible",
        file: "worker/idle.rs",
        right: "        // The work that was put down comes before the look at the state, for everybody.\n        fence(Ordering::SeqCst);\n        if self.state.load(Ordering::SeqCst)",
        wrong: "        if self.state.load(Ordering::Relaxed)",
        test: "loom_no_wake_up",
        loom: true,
    },
    Mistake {
        what: "a route that goes keeps its number in use",
        file: "config/making.rs",
        right: "                self.book.leave(was);\n",
        wrong: "                _ = was;\n",
        test: "a_change_does_what_starting_anew_does",
        loom: false,
    },
    Mistake {
        what: "routes are not checked again when a gateway goes",
        file: "config/nexthops.rs",
        right: "            && self.addresses == before.addresses\n",
        wrong: "",
        test: "a_change_does_what_starting_anew_does",
        loom: false,
    },
    Mistake {
        what: "a worker says that it has seen a snapshot before it took it",
        file: "config/publish.rs",
        right: "        let slot = &self.shared.slots[self.worker];\n        if let",
        wrong: "        let slot = &self.shared.slots[self.worker];\n        slot.seen.store(self.shared.generation.load(Ordering::Acquire), Ordering::Release);\n        if slot.seen.load(Ordering::Relaxed) > 1 {\n            return;\n        }\n        if let",
        test: "loom_seen",
        loom: true,
    },
    Mistake {
        what: "a frame goes back out by the port it came from",
        file: "pipeline/forward.rs",
        right: "if port == view.in_port && !to.hairpin {",
        wrong: "if false && port == view.in_port && !to.hairpin {",
        test: "switches_as_the_blackboard_does",
        loom: false,
    },
    Mistake {
        what: "isolated ports hear each other's floods",
        file: "pipeline/emit.rs",
        right: "&& !(member.isolated && view.facts.isolated)",
        wrong: "",
        test: "switches_as_the_blackboard_does",
        loom: false,
    },
    Mistake {
        what: "a pushed tag loses the priority",
        file: "pipeline/egress.rs",
        right: "let tci = note.tci & 0xf000 | vid;",
        wrong: "let tci = vid;",
        test: "switches_as_the_blackboard_does",
        loom: false,
    },
    Mistake {
        what: "a superframe is joined to a train as if it were a segment",
        file: "port/tap/joined.rs",
        right: "next.offload.gso.is_none() && ",
        wrong: "",
        test: "travel_alone",
        loom: false,
    },
    Mistake {
        what: "a segment with a wrong checksum is joined",
        file: "wire/gro.rs",
        right: "if known_good(next, &transport, csum).is_none() {",
        wrong: "if false {",
        test: "travel_alone",
        loom: false,
    },
    Mistake {
        what: "a missed copy loses a frame",
        file: "pipeline/emit.rs",
        right: "None if others > 0 => private.drop(pool, view.in_port, DropReason::FloodOff, frame),",
        wrong: "None if others > 0 => drop(frame),",
        test: "switches_as_the_blackboard_does",
        loom: false,
    },
    Mistake {
        what: "a ring is given a frame it does not have",
        file: "frame/area.rs",
        right: "if record.load(Relaxed) != holder.0 || len",
        wrong: "if len",
        test: "a_recorded_chunk_comes_back_once",
        loom: false,
    },
    Mistake {
        what: "a spilled key is not looked for",
        file: "table/atomic.rs",
        right: "Some(Reading { spilled: false, .. }) => None,",
        wrong: "Some(Reading { .. }) => None,",
        test: "does_what_a_map_does",
        loom: false,
    },
    Mistake {
        what: "a computed UDP checksum of zero is sent as zero",
        file: "wire/checksum.rs",
        right: "if checksum == 0 && udp {",
        wrong: "if checksum == 0 && !udp {",
        test: "a_udp_checksum_of_zero",
        loom: false,
    },
    Mistake {
        what: "one port fills the table",
        file: "table/fdb.rs",
        right: "self.entries.load(Ordering::Relaxed) < limits.shared())",
        wrong: "true || self.entries.load(Ordering::Relaxed) < limits.shared())",
        test: "one_port_cannot_take",
        loom: false,
    },
    Mistake {
        what: "a worker says that it stands still while frames wait in its queues",
        file: "worker/turn/pause.rs",
        right: "self.pipeline.private.dirty.iter().all(stays_in_order)",
        wrong: "self.pipeline.private.dirty.iter().all(stays_in_order) || true",
        test: "lost_or_overtaken_while_lanes_move",
        loom: false,
    },
    Mistake {
        what: "a worker that is to stand still takes frames in",
        file: "worker/turn.rs",
        right: "if self.pause.is_none() {",
        wrong: "if self.pause.is_none() || self.id == 1 {",
        test: "lost_or_overtaken_while_lanes_move",
        loom: false,
    },
    Mistake {
        what: "what waits for a neighbour stays behind when its lane moves",
        file: "worker/turn/pause.rs",
        right: "            self.pipeline.private.holds.pack((port, queue), &mut luggage);\n",
        wrong: "",
        test: "moves_with_its_lane",
        loom: false,
    },
    Mistake {
        what: "a lane that is larger than the gap is moved",
        file: "balance/mod.rs",
        right: "let closer = 2 * busy.min(gap.saturating_sub(busy));",
        wrong: "let closer = 2 * busy.min(gap);",
        test: "plans_what_trying_everything_finds",
        loom: false,
    },
    Mistake {
        what: "TCP beyond the window passes",
        file: "table/flow/tcp.rs",
        right: "let fits = !before(may_until, segment.seq)",
        wrong: "let fits = (true || before(may_until, segment.seq))",
        test: "only_what_fits_the_window",
        loom: false,
    },
    Mistake {
        what: "a reset anywhere in the window closes a connection",
        file: "table/flow/tcp.rs",
        right: "    } else {\n        Err(Refused::Passes)\n    }",
        wrong: "    } else {\n        Ok(state.at(Stage::Closed))\n    }",
        test: "a_reset_closes_if",
        loom: false,
    },
    Mistake {
        what: "sequence numbers do not wrap",
        file: "table/flow/tcp.rs",
        right: "(a.wrapping_sub(b) as i32) < 0",
        wrong: "a < b",
        test: "an_honest_connection",
        loom: false,
    },
    Mistake {
        what: "the two directions of a flow have two keys",
        file: "table/flow/key.rs",
        right: "let side = u64::from(swapped);",
        wrong: "let side = u64::from(swapped && packet.protocol == 6);",
        test: "a_key_has_no_direction",
        loom: false,
    },
    Mistake {
        what: "a flood evicts established flows",
        file: "table/flow/keeper.rs",
        right: "state.stage == Stage::Dead || state.stage.is_half_open() && flows.end(place, state)",
        wrong: "state.stage == Stage::Dead || flows.end(place, state)",
        test: "a_flood_",
        loom: false,
    },
    Mistake {
        what: "a flow that is over is not forgotten",
        file: "table/flow/keeper.rs",
        right: "let is_over = record.age_s(now_s) > state.stage.timeout_s();",
        wrong: "let is_over = record.age_s(now_s) > u32::MAX - 1;",
        test: "a_flow_is_forgotten",
        loom: false,
    },
    Mistake {
        what: "an ICMP error is believed whoever it is sent to",
        file: "pipeline/track.rs",
        right: "if quoted.src != track.packet.dst {",
        wrong: "if false {",
        test: "errors_belong_to_the_flow_they_quote",
        loom: false,
    },
    Mistake {
        what: "a later fragment may lie over the first one",
        file: "table/flow/fragments.rs",
        right: "if (fragment.offset as u64) < first_len {",
        wrong: "if false && (fragment.offset as u64) < first_len {",
        test: "fragments_go_with_their_first",
        loom: false,
    },
    Mistake {
        what: "a reader of a flow's entry does not look at the sequence again",
        file: "table/flow/record.rs",
        right: "differ == 0 && before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before",
        wrong: "differ == 0",
        test: "loom_a_place_that_is_used_again",
        loom: true,
    },
    Mistake {
        what: "two workers that make one flow make two",
        file: "table/flow/mod.rs",
        right: "if present.is_some() { Want::Keep } else { Want::Put(place) }",
        wrong: "Want::Put(place)",
        test: "loom_two_first_packets",
        loom: true,
    },
    Mistake {
        what: "a place is taken back from a flow that begins anew",
        file: "table/flow/mod.rs",
        right: "state.stage == Stage::Dead && (state == free || record.change(state, free))",
        wrong: "(state == free || record.change(state, free)) || true",
        test: "loom_a_place_is_not_taken_back",
        loom: true,
    },
    Mistake {
        what: "the storm limit counts from an empty past",
        file: "pipeline/storm.rs",
        right: "content - i128::from(segments) * NS",
        wrong: "content - i128::from(segments) * NS / 2",
        test: "never_more_than_the_limit",
        loom: false,
    },
    Mistake {
        what: "a frame of a region that is to go is free again",
        file: "frame/pool.rs",
        right: "if self.emptying.as_ref().is_some_and(|emptying| emptying.region == region) {",
        wrong: "if false && self.emptying.as_ref().is_some_and(|emptying| emptying.region == region) {",
        test: "no_frame_is_lost",
        loom: false,
    },
    Mistake {
        what: "a region is given back for as many frames, whosesoever",
        file: "frame/area.rs",
        right: "frames.len() != self.size.chunks as usize || !frames.iter().all(ours)",
        wrong: "frames.len() != self.size.chunks as usize || (false && !frames.iter().all(ours))",
        test: "a_region_comes_and_goes",
        loom: false,
    },
    Mistake {
        what: "the ceiling does not count the region that comes",
        file: "control/budget.rs",
        right: "if self.used() + wanted + grown > self.sizes.ceiling {",
        wrong: "if self.used() + wanted > self.sizes.ceiling {",
        test: "the_ceiling_is_never_passed",
        loom: false,
    },
    Mistake {
        what: "the role cni may delete anybody's port",
        file: "control/peer.rs",
        right: "owner(&by.name).is_none_or(|owner| owner == Owner::Cni)",
        wrong: "owner(&by.name).is_none_or(|owner| owner == Owner::Cni || true)",
        test: "the_role_cni_touches",
        loom: false,
    },
];

/// Mistakes whose place is not in the source any more, or not there alone.
pub fn misplaced() -> Vec<String> {
    let is_there = |mistake: &&Mistake| {
        let text = fs::read_to_string(root().join("switch-core/src").join(mistake.file)).unwrap_or_default();
        text.matches(mistake.right).count() == 1
    };
    let lost = MISTAKES.iter().filter(|mistake| !is_there(mistake));
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
    let is_meant = |mistake: &&Mistake| mistake.what.contains(only) || mistake.file.contains(only);
    for mistake in MISTAKES.iter().filter(is_meant) {
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
        command.args(["test", "--quiet", "--package", "switch-core", "--lib"]).args(extra).current_dir(copy);
        // The copy's own RUSTFLAGS, not those of whoever runs us.
        command.env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", root().join("target/mistakes-build"));
        if mistake.loom {
            command.arg("--release").env("RUSTFLAGS", "--cfg loom");
        }
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
