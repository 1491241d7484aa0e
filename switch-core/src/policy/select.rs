//! Which labels a selector wants (Kubernetes, "Labels and Selectors").

use std::collections::BTreeMap;
use switch_api::{LabelExpression, LabelOperator, LabelSelector, Labels, NAMESPACE_NAME_LABEL};

/// Whether labels are those that a selector wants. `implied` is a label that is there by itself.
fn matches(selector: &LabelSelector, labels: &Labels, implied: Option<(&str, &str)>) -> bool {
    let value = |key: &str| match implied {
        Some((own, value)) if own == key => Some(value),
        _ => labels.get(key).map(String::as_str),
    };
    selector.match_labels.iter().all(|(key, wanted)| value(key) == Some(wanted))
        && selector.match_expressions.iter().all(|wanted| holds(wanted, value(&wanted.key)))
}

fn holds(wanted: &LabelExpression, value: Option<&str>) -> bool {
    let is_one_of = || value.is_some_and(|value| wanted.values.iter().any(|wanted| wanted == value));
    match wanted.operator {
        LabelOperator::In => is_one_of(),
        LabelOperator::NotIn => !is_one_of(),
        LabelOperator::Exists => value.is_some(),
        LabelOperator::DoesNotExist => value.is_none(),
    }
}

/// Whether a selector means a workload with these labels.
pub(super) fn pods(selector: &LabelSelector, labels: &Labels) -> bool {
    matches(selector, labels, None)
}

/// Whether a selector means a namespace.
pub(super) fn namespace(selector: &LabelSelector, name: &str, namespaces: &BTreeMap<String, Labels>) -> bool {
    let none = Labels::new();
    matches(selector, namespaces.get(name).unwrap_or(&none), Some((NAMESPACE_NAME_LABEL, name)))
}
