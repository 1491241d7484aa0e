//! `api/*`: requests read, answers written. The control thread's work: it may allocate.

use super::{Case, Work, only};
use crate::{routed, rules};
use std::hint::black_box;
use switch_api::codec::{decode_request, encode_answer, encode_request};
use switch_api::{Bridge, Request, RouteApply};
use switch_core::config::{Checked, Model};

pub(super) const CASES: &[Case] = &[
    Case { id: "api/request-decode-bridge", items: 1, is_on_path: false, make: || decode(bridge()) },
    Case { id: "api/request-decode-50-routes", items: 50, is_on_path: false, make: || decode(routes()) },
    Case { id: "api/request-encode-50-routes", items: 50, is_on_path: false, make: encode },
    Case { id: "api/answer-encode", items: 1, is_on_path: false, make: answer },
    Case { id: "api/policies-checked-1000-rules", items: 1_000, is_on_path: false, make: check },
];

fn bridge() -> Request {
    Request::BridgeAdd(Bridge::new("br0".parse().unwrap_or_else(|error| panic!("{error}"))))
}

fn routes() -> Request {
    Request::RouteApply(RouteApply { add: routed::full_table(50), ..RouteApply::default() })
}

fn decode(request: Request) -> Box<dyn Work> {
    let line = encode_request(1, &request);
    only(move || assert!(black_box(decode_request(black_box(&line))).request.is_ok()))
}

fn encode() -> Box<dyn Work> {
    let request = routes();
    only(move || _ = black_box(encode_request(1, black_box(&request))))
}

fn answer() -> Box<dyn Work> {
    only(move || {
        _ = black_box(encode_answer(1.into(), Ok(black_box(serde_json::json!({ "generation": 7 })))))
    })
}

/// What a change of policies costs before anything is compiled.
fn check() -> Box<dyn Work> {
    let policies = rules::policies(1_000).unwrap_or_else(|error| panic!("{error}"));
    let apply = |model: Model, policy: &switch_api::NetworkPolicy| {
        model.apply(&Request::PolicyAdd(Box::new(policy.clone()))).unwrap_or_else(|error| panic!("{error}"))
    };
    let model = policies.iter().fold(Model::default(), apply);
    only(move || _ = black_box(Checked::new(black_box(model.clone()), 1).is_ok()))
}
