//! Workloads that selectors cannot tell apart: of one namespace, with the same labels. A node's pods are mostly replicas of few, and what a
//! selector says is asked once of each kind.

use super::{Input, Pod};
use hashbrown::HashMap;
use switch_api::Labels;

/// See the module.
#[derive(Debug)]
pub(super) struct Kinds<'a> {
    /// One workload of each.
    pub each: Vec<&'a Pod<'a>>,
    /// By place among the workloads.
    pub of: Vec<usize>,
}

impl<'a> Kinds<'a> {
    pub fn new(input: &'a Input<'a>) -> Self {
        let mut numbers: HashMap<(&str, &Labels), usize> = HashMap::new();
        let mut each = Vec::new();
        let kind = |pod: &'a Pod<'a>| {
            *numbers.entry((&pod.workload.namespace, &pod.workload.labels)).or_insert_with(|| {
                each.push(pod);
                each.len() - 1
            })
        };
        let of = input.pods.iter().map(kind).collect();
        Self { each, of }
    }

    /// Workloads, and the kind of each.
    pub fn pods(&self, input: &'a Input<'a>) -> impl Iterator<Item = (&'a Pod<'a>, usize)> {
        input.pods.iter().zip(self.of.iter().copied())
    }
}
