//! What a worker tells the control thread unasked, at the end of a turn: loops, stations that moved, neighbours that the node's kernel is to be
//! asked for, what policies stopped and rules log, what was dropped.

use super::{Report, Turn};
use crate::counter::Event;

impl Turn {
    /// All of it; costs a look where there is nothing.
    #[inline]
    pub(super) fn report_news(&mut self) {
        self.report_loops();
        if !self.pipeline.private.moves.is_empty() {
            self.report_moves();
        }
        if !self.pipeline.private.wants.is_empty() {
            self.report_wants();
        }
        if !self.pipeline.private.refusals.is_quiet() || !self.pipeline.private.logs.is_quiet() {
            self.report_refused();
        }
        if !self.pipeline.private.drops.is_quiet() {
            self.report_drops();
        }
    }

    fn report_loops(&mut self) {
        let found = self.pipeline.private.counters.event(Event::LoopFound).get();
        if found != self.loops_reported {
            self.loops_reported = found;
            self.report(Report::Loop);
        }
    }

    /// Few, and only news: the box keeps most of its room for answers.
    #[cold]
    fn report_moves(&mut self) {
        let reports = &self.mail[usize::from(self.id)].reports;
        for moved in self.pipeline.private.moves.drain(..) {
            if reports.len() < reports.capacity() / 2 {
                _ = reports.push(Report::Moved(moved));
            }
        }
    }

    /// What finds no room is asked for again, a second later.
    #[cold]
    fn report_wants(&mut self) {
        let reports = &self.mail[usize::from(self.id)].reports;
        for key in self.pipeline.private.wants.drain(..) {
            if reports.len() < reports.capacity() / 2 {
                _ = reports.push(Report::Wanted(key));
            }
        }
    }

    /// As with moves; what finds no room is counted as not told.
    #[cold]
    fn report_refused(&mut self) {
        let reports = &self.mail[usize::from(self.id)].reports;
        let private = &mut self.pipeline.private;
        private.refusals.hand_on(&private.counters, |refused| {
            reports.len() < reports.capacity() / 2 && reports.push(Report::Refused(refused)).is_ok()
        });
        private.logs.hand_on(&private.counters, |logged| {
            reports.len() < reports.capacity() / 2 && reports.push(Report::Logged(logged)).is_ok()
        });
    }

    /// Likewise.
    #[cold]
    fn report_drops(&mut self) {
        let reports = &self.mail[usize::from(self.id)].reports;
        let private = &mut self.pipeline.private;
        private.drops.hand_on(&private.counters, |dropped| {
            reports.len() < reports.capacity() / 2 && reports.push(Report::Dropped(dropped)).is_ok()
        });
    }
}
