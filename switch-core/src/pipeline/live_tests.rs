//! A live trace marks the next frames that it wants, no more, and says of each what a dry run would have said.

use super::capture::Capture;
use super::capture_tests::{NOW, frame, rig};
use super::dry::Dry;
use super::live::{FRAMES_MAX, Live};
use super::verdict::Verdict;
use crate::counter::{Event, Stage};
use crate::rig::Rig;
use crate::wire::bpf::{Instruction, Program};
use std::sync::Arc;

/// The last byte of the source is `src`.
fn from(src: u32) -> Option<Program> {
    let ask = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let lines = [ask(0x30, 0, 0, 11), ask(0x15, 0, 1, src), ask(0x06, 0, 0, 1), ask(0x06, 0, 0, 0)];
    Some(Program::new(&lines).unwrap())
}

fn follow(rig: &Rig, ports: [bool; 3], live: Live) -> Arc<Capture> {
    let capture = Arc::new(Capture::live(ports.into(), live));
    rig.capture(Some(capture.clone()));
    capture
}

#[test]
fn the_next_frames_that_match_are_marked_and_no_more() {
    let (mut rig, peers) = rig(1);
    let capture = follow(&rig, [true, true, false], Live::new(from(1), 3));
    let live = capture.following().unwrap();
    // Together, so that they go through the stages in one batch; some of it are not wanted, and one port is not.
    for (dst, src, len) in [(9, 1, 60), (9, 7, 61), (8, 1, 400), (9, 8, 63)] {
        assert!(peers[0].send(frame(dst, src, len)));
    }
    assert!(peers[2].send(frame(9, 1, 64)));
    rig.settle(NOW);
    let marked: Vec<_> = std::iter::from_fn(|| live.take()).collect();
    assert_eq!(
        marked.iter().map(|it| (it.port, it.len, it.batch)).collect::<Vec<_>>(),
        [(0, 60, 4), (0, 400, 4)]
    );
    assert_eq!(marked[1].bytes, frame(8, 1, 256), "its headers, as they came");
    for (marked, dst) in marked.iter().zip([9, 8]) {
        assert!(marked.steps.iter().all(|step| step.note.dst & 0xff == dst), "what is known of another");
    }
    assert!(live.is_open());
    for _ in 0..5 {
        assert!(peers[1].send(frame(9, 1, 70)));
        rig.settle(NOW);
    }
    assert!(!live.is_open() && !capture.wants_in(0), "nothing is looked for any more");
    let last: Vec<_> = std::iter::from_fn(|| live.take()).collect();
    assert_eq!(last.iter().map(|it| (it.port, it.batch)).collect::<Vec<_>>(), [(1, 1)]);
    assert_eq!(capture.lost(), 0);
    rig.assert_conserved();
}

#[test]
fn a_real_frame_goes_the_way_that_a_dry_one_does() {
    let (mut rig, peers) = rig(1);
    let mut dry = Dry::new(2048, 1).unwrap();
    for (n, (port, bytes)) in [
        (0, frame(9, 1, 60)),
        (1, frame(1, 2, 60)),
        (0, frame(2, 1, 60)),
        (0, frame(1, 1, 60)),
        (2, frame(2, 3, 90)),
    ]
    .into_iter()
    .enumerate()
    {
        let dry = rig.trace(&mut dry, port, &bytes, NOW).unwrap();
        let capture = follow(&rig, [true; 3], Live::new(None, FRAMES_MAX));
        assert!(peers[usize::from(port)].send(bytes));
        rig.settle(NOW);
        let marked = capture.following().unwrap().take().unwrap();
        let real: Vec<_> =
            marked.steps.iter().map(|step| (step.stage, step.note, step.events.to_vec())).collect();
        let made: Vec<_> = dry.steps.into_iter().map(|step| (step.stage, step.note, step.events)).collect();
        assert_eq!(real, made, "frame {n}");
        assert!(
            made.last()
                .is_some_and(|(stage, note, _)| *stage == Stage::Emit && note.verdict != Verdict::Undecided)
        );
        if n < 2 {
            assert!(real.iter().any(|(_, _, events)| events.contains(&Event::MacLearned)), "frame {n}");
        }
        assert!(marked.steps.iter().any(|step| step.cycles > 0), "time passes");
        rig.capture(None);
        rig.settle(NOW);
        assert_eq!(Arc::strong_count(&capture), 1);
    }
    rig.assert_conserved();
}
