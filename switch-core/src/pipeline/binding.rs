//! What stages share about translation: what `translate` found out of each frame of a batch, for whoever routes it to where
//! it really goes (`route`), makes its flow (`translate` again) and writes its new addresses (`rewrite`).

use super::{Private, View};
use crate::nat::Target;
use crate::table::flow::key::End;

/// What becomes of a frame's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// They stay.
    #[default]
    Stays,
    /// It begins a flow, which goes to another destination.
    Begins {
        /// Where it goes.
        to: End,
        /// By which rule.
        target: Target,
    },
    /// Its flow is bound.
    Bound {
        /// Its new source.
        from: End,
        /// Where it goes.
        to: End,
    },
}

impl Turn {
    /// Where it really goes, if that is not what it says.
    #[inline]
    pub fn real(&self) -> Option<End> {
        match self {
            Self::Stays => None,
            Self::Begins { to, .. } | Self::Bound { to, .. } => Some(*to),
        }
    }
}

/// The address that the frame at `index` really goes to, if it is translated.
#[inline]
pub(super) fn real(view: &View, private: &Private, index: usize) -> Option<u128> {
    if !view.facts.translated {
        return None;
    }
    private.flows.turns[index].real().map(|to| to.ip)
}
