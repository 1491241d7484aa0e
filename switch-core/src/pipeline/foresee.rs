//! What policies and lists say of the first packets of a batch, asked of all of them together before [`super::admit`] judges each: their cache
//! misses overlap, and nothing is looked up twice.

use super::flow::WayOut;
use super::headers::plain_header;
use super::judge::{Foreseen, RECEIVER, SENDER};
use super::note::Note;
use super::{Private, View};
use crate::counter::Counters;
use crate::frame::BATCH_FRAMES;
use crate::{acl, policy};
use arrayvec::ArrayVec;

/// Questions, and the places in the batch of the packets that they are about.
struct Questions<T> {
    asked: ArrayVec<T, BATCH_FRAMES>,
    about: [u8; BATCH_FRAMES],
}

const _: () = assert!(BATCH_FRAMES <= 1 << u8::BITS);

impl<T> Questions<T> {
    const fn new() -> Self {
        Self { asked: ArrayVec::new_const(), about: [0; BATCH_FRAMES] }
    }

    /// One about the packet at `index`, about which nothing was asked yet.
    #[inline(always)]
    fn ask(&mut self, question: T, index: usize) {
        self.about[self.asked.len()] = index as u8;
        self.asked.push(question);
    }
}

/// What is asked at one end.
struct End {
    policies: Questions<policy::Asked>,
    lists: Questions<acl::Asked>,
}

impl End {
    const fn new() -> Self {
        Self { policies: Questions::new(), lists: Questions::new() }
    }

    /// Asks, and notes what is said of each. What will count it is asked for, too.
    fn ask(
        &self,
        view: &View,
        end: usize,
        foreseen: &mut [[Foreseen; 2]; BATCH_FRAMES],
        counters: &Counters,
    ) {
        let Self { policies, lists } = self;
        if !policies.asked.is_empty() {
            view.snapshot.policing.judge_each(&policies.asked, |n, said| {
                foreseen[usize::from(policies.about[n])][end].policies = Some(said);
                let (Ok(slot) | Err(slot)) = said;
                counters.touch_rule(slot);
            });
        }
        if !lists.asked.is_empty() {
            view.snapshot.listed.judge_each(&lists.asked, |n, chain, said| {
                foreseen[usize::from(lists.about[n])][end].lists = Some((chain, said));
                said.into_iter().for_each(|ruling| counters.touch_rule(ruling.slot));
            });
        }
    }
}

#[inline(never)]
pub(super) fn run(view: &View, notes: &[Note], private: &mut Private) {
    let (policing, listed, from) = (&view.snapshot.policing, &view.snapshot.listed, view.facts);
    let [mut sender, mut receiver] = [const { End::new() }; 2];
    let mut way = WayOut::nowhere();
    for index in private.flows.begins {
        let (note, track) = (&notes[index], &private.flows.tracks[index]);
        private.foreseen[index] = [Foreseen::NOTHING; 2];
        debug_assert!(track.is_whole, "it was written out when its flow was not found");
        way.follow(view, note.verdict);
        let Some(to) = way.to else { continue };
        let header = plain_header(&track.packet);
        let policies =
            |set, peer| policy::Asked { set, peer, class: policing.class(header.protocol, header.number) };
        // Of several chains the first: which others are asked is up to it.
        let lists =
            |chains: acl::Chains| listed.question(chains.before.enforced.or(chains.after.enforced)?, &header);
        if let Some(set) = from.subject.egress {
            sender.policies.ask(policies(set, track.packet.dst), index);
        }
        if let Some(set) = to.subject.ingress {
            receiver.policies.ask(policies(set, track.packet.src), index);
        }
        if let Some(question) = lists(from.acl.egress) {
            sender.lists.ask(question, index);
        }
        if let Some(question) = lists(to.acl.ingress) {
            receiver.lists.ask(question, index);
        }
    }
    sender.ask(view, SENDER, &mut private.foreseen, &private.counters);
    receiver.ask(view, RECEIVER, &mut private.foreseen, &private.counters);
}
