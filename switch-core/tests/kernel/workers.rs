//! Workers as threads of a real daemon: where they run, when they sleep, and how long they take to wake up.

use std::time::Duration;
use switch_api::{
    ByName, Done, Happened, MemorySource, Nothing, Port, PortKind, PortSettings, Request, WorkerStatus,
};
use switch_lab::{Daemon, Node, Options, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// It is looked once a second; what lasts is told after five looks.
const SOME_LOOKS: Duration = Duration::from_secs(10);

fn start(node: &Node, words: &str) -> Daemon {
    node.start(&Options::new(env!("CARGO_BIN_EXE_switchd")).with(words))
}

fn workers(daemon: &Daemon) -> Vec<WorkerStatus> {
    daemon.call(&Request::WorkerList(Nothing {}))
}

/// On which cores the kernel lets each thread of this name run (`Cpus_allowed_list`, proc_pid_status(5)).
fn cores_of(daemon: &Daemon, thread: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let statuses = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    let found: Vec<_> = statuses.filter(|status| field(status, "Name:") == thread).collect();
    assert_eq!(found.len(), 1, "threads named {thread}");
    field(&found[0], "Cpus_allowed_list:")
}

#[test]
fn each_worker_is_pinned_to_its_core_and_wakes_by_the_bell() {
    let node = Node::new();
    let daemon = start(&node, "--cores 1,0");
    for (id, core) in [(0, 1), (1, 0)] {
        let name = format!("worker-{id}");
        wait_until("it is pinned", LONG, || workers(&daemon)[id].core == Some(core));
        assert_eq!(cores_of(&daemon, &name), core.to_string(), "{name}");
    }
    // A frame from one worker to a port of the other's rings that one's bell. What comes back may find the first
    // one awake still, so that each is rung by pings from the other's pod.
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for (worker, pod) in pods.iter().enumerate() {
        daemon.attach(pod, "br0", PortSettings { worker: Some(worker as u16), ..PortSettings::default() });
    }
    wait_until("ping", LONG, || pods[0].reaches("10.66.0.2"));
    let woken = || -> Vec<u64> {
        workers(&daemon).iter().map(|worker| worker.wake_latency_us.iter().map(|(_, n)| n).sum()).collect()
    };
    // How often, and how often within a few milliseconds: what is counted are microseconds.
    let below = |us: u64| -> u64 {
        let all = workers(&daemon).into_iter().flat_map(|worker| worker.wake_latency_us);
        all.filter(|(bound, _)| *bound <= us).map(|(_, count)| count).sum()
    };
    // On a machine that is busy with other tests not each time: until most of them are so quick.
    wait_until("both are woken within milliseconds", 2 * LONG, || {
        let (before, all, quick): (Vec<u64>, _, _) = (woken(), below(u64::MAX), below(8192));
        pods[0].net.run("ping -n -q -c 20 -i 0.02 10.66.0.2");
        pods[1].net.run("ping -n -q -c 20 -i 0.02 10.66.0.1");
        let (all, quick) = (below(u64::MAX) - all, below(8192) - quick);
        woken().iter().zip(&before).all(|(after, before)| after > before) && quick * 2 > all
    });
    let bounds: Vec<u64> = workers(&daemon)[0].wake_latency_us.iter().map(|(bound, _)| *bound).collect();
    assert!(bounds.iter().enumerate().all(|(i, bound)| *bound == 1 << i), "{bounds:?}");
    daemon.assert_conserved();
}

#[test]
fn the_default_is_one_worker_on_the_last_core() {
    let node = Node::new();
    let daemon = start(&node, "");
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    wait_until("it is pinned", LONG, || workers(&daemon)[0].core == Some(last));
    assert_eq!((workers(&daemon).len(), cores_of(&daemon, "worker-0")), (1, last.to_string()));
}

/// No more turns without a frame go before the first sleep than `--idle-turns` says, and as many if they are short: a core that is taken away meanwhile
/// counts as a long one.
#[test]
fn a_worker_sleeps_after_as_many_idle_turns_as_it_was_told() {
    let node = Node::new();
    for idle_turns in [0, 200_000] {
        let daemon = start(&node, &format!("--idle-turns {idle_turns}"));
        wait_until("it sleeps", LONG, || workers(&daemon)[0].sleeps > 3);
        let worker = &workers(&daemon)[0];
        // A sleep is followed by one turn; nothing else made turns here but what starting up asked of it.
        let others = worker.turns.saturating_sub(worker.sleeps);
        assert!((idle_turns / 16..idle_turns + 1000).contains(&others), "{idle_turns}: {worker:?}");
    }
    let daemon = start(&node, &format!("--idle-turns {}", u32::MAX));
    wait_until("it turns", LONG, || workers(&daemon)[0].turns > 200_000);
    assert_eq!(workers(&daemon)[0].sleeps, 0);
}

/// A source that never has nothing: told once, and once when it is gone.
#[test]
fn a_worker_with_more_to_do_than_time_is_told_of_once_and_when_it_is_over() {
    let node = Node::new();
    let daemon = start(&node, "");
    daemon.bridge("br0");
    let told = || {
        let recent: Vec<Happened> = daemon.call(&Request::EventsRecent(Nothing {}));
        let kinds = recent.into_iter().filter(|event| event.what.starts_with("worker-"));
        kinds.map(|event| (event.what.clone(), event.parts["worker"].clone())).collect::<Vec<_>>()
    };
    let source = MemorySource { flows: 8, frame_len: 60, seed: 1, reverse: false, rate_pps: 0 };
    for (name, source) in [("source", Some(source)), ("sink", None)] {
        let port = Port::new(name.parse().unwrap(), "br0".parse().unwrap(), PortKind::Memory { source });
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    let overloaded = ("worker-overloaded".to_owned(), "0".to_owned());
    wait_until("it is told", 3 * LONG, || told() == std::slice::from_ref(&overloaded));
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(told(), std::slice::from_ref(&overloaded), "told more than once");
    let _: Done = daemon.call(&Request::PortDelete(ByName { name: "source".parse().unwrap() }));
    let over = ("worker-recovered".to_owned(), "0".to_owned());
    wait_until("it is over", 3 * LONG, || told() == [overloaded.clone(), over.clone()]);
}

/// Inside of the sandbox, where a call that is not allowed for is refused: what a worker asks of the scheduler, and whom it leaves alone.
#[test]
fn a_worker_goes_first_on_its_core_and_no_other_thread_does() {
    let node = Node::new();
    for (words, nice) in [("", -10), ("--nice -3", -3), ("--nice 0", 0)] {
        let daemon = start(&node, words);
        let thread = |name: &str| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
            let mut paths = tasks.map(|task| task.unwrap().path());
            let is_it = |path: &std::path::PathBuf| {
                std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
            };
            paths.find(is_it).unwrap_or_else(|| panic!("no thread {name}"))
        };
        // The 19th field of proc_pid_stat(5), the 17th of those after the name.
        let nice_of = |name: &str| -> i32 {
            let stat = std::fs::read_to_string(thread(name).join("stat")).unwrap();
            let fields = stat.rsplit_once(')').unwrap().1;
            fields.split_whitespace().nth(16).unwrap().parse().unwrap()
        };
        wait_until("the worker has asked", LONG, || nice_of("worker-0") == nice);
        wait_until("the control thread is one among equals", LONG, || nice_of("switchd") == 0);
        let id = thread("worker-0").file_name().unwrap().to_str().unwrap().to_owned();
        let slack = std::fs::read_to_string(format!("/proc/{id}/timerslack_ns")).unwrap();
        assert_eq!(slack.trim(), "1000", "its naps end when they should");
        assert!(!daemon.log().contains("the kernel refuses"), "{}", daemon.log());
    }
}
