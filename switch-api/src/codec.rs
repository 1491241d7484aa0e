//! JSON-RPC 2.0 (jsonrpc.org/specification), one message per line. Decoding takes hostile bytes
//! and answers with a value or a refusal that names the field.

use crate::{ApiError, Code, Owner, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest line that the daemon accepts, in bytes; a client refuses to send a longer one. 1 MiB holds an answer that lists 4 000 MACs, and a
/// client that sends more than this without a newline is not speaking our protocol.
pub const LINE_LEN_MAX: usize = 1 << 20;

/// What to do about an answer or a notice that makes no sense.
pub const UPDATE_BOTH: &str = "update switch-ctl or switchd so that both have the same version";
/// What to do about a line that is no request.
const SEE_EXAMPLES: &str = "docs/API.md says how a request is written, docs/API-EXAMPLES.md has one of each";

/// A decoded request with the id its answer must carry.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// A string, a number or null; null also stands for an absent one (§4.1, we answer all the same).
    pub id: Value,
    /// What is asked, or why it cannot be understood.
    pub request: Result<Request, ApiError>,
    /// Whose objects may be touched although they are not the asker's.
    pub override_owner: Option<Owner>,
    /// The method, if there is one of that name.
    pub method: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    jsonrpc: String,
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Option<Value>,
    #[serde(default)]
    override_owner: Option<Owner>,
}

/// An answer on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    jsonrpc: String,
    id: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// Decodes one line. Never panics; a line that is no request still yields the id if it has one.
pub fn decode_request(line: &[u8]) -> Call {
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => {
            let error = ApiError::new(Code::Parse, format!("this line is not JSON: {error}"))
                .hint("send one JSON-RPC 2.0 request per line");
            return Call { id: Value::Null, request: Err(error), override_owner: None, method: None };
        }
    };
    let id = match value.get("id") {
        Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
        _ => Value::Null,
    };
    let method = value.get("method").and_then(Value::as_str).map(str::to_owned);
    match request_from(value) {
        Ok((request, override_owner)) => Call { id, request: Ok(request), override_owner, method },
        Err(error) => {
            let is_known = error.code == Code::InvalidParams;
            Call { id, request: Err(error), override_owner: None, method: method.filter(|_| is_known) }
        }
    }
}

fn request_from(value: Value) -> Result<(Request, Option<Owner>), ApiError> {
    let envelope: Envelope = typed(value, Code::InvalidRequest)?;
    if envelope.jsonrpc != "2.0" {
        return Err(ApiError::new(Code::InvalidRequest, "\"jsonrpc\" must be \"2.0\"")
            .field("jsonrpc")
            .hint(SEE_EXAMPLES));
    }
    if !matches!(envelope.id, Value::Null | Value::String(_) | Value::Number(_)) {
        return Err(ApiError::new(Code::InvalidRequest, "an id is a string, a number or null")
            .field("id")
            .hint(SEE_EXAMPLES));
    }
    let params = envelope.params.unwrap_or_else(|| Value::Object(Default::default()));
    if !params.is_object() {
        return Err(ApiError::new(Code::InvalidParams, "params must be an object: fields by name")
            .field("params")
            .hint(SEE_EXAMPLES));
    }
    // Serde reads the tag first and so reports an unknown method before it looks at parameters.
    let tagged = serde_json::json!({ "method": envelope.method, "params": params });
    let request = typed(tagged, Code::InvalidParams).map_err(|mut error| {
        if error.message.contains("unknown variant") && error.data.field.as_deref() == Some("method") {
            error.code = Code::UnknownMethod;
        } else if let Some(path) = &error.data.field {
            let inner = path.strip_prefix("params").unwrap_or(path).trim_start_matches('.');
            error.data.field = (!inner.is_empty()).then(|| inner.to_owned());
        }
        error
    })?;
    Ok((request, envelope.override_owner))
}

fn typed<T: DeserializeOwned>(value: Value, code: Code) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        let path = match (named_in(&message), path.as_str()) {
            (Some(name), ".") => name.to_owned(),
            (Some(name), _) if path.rsplit('.').next() != Some(name) => format!("{path}.{name}"),
            _ => path,
        };
        let refusal =
            ApiError::new(code, message).hint("see `switch-ctl help` or docs/API.md for the fields");
        if path == "." { refusal } else { refusal.field(path) }
    })
}

/// Of a field that is missing, or unknown to a struct that is part of another, serde tells in words only.
pub(crate) fn named_in(message: &str) -> Option<&str> {
    let begins = ["missing field `", "unknown field `"];
    begins.iter().find_map(|begin| message.strip_prefix(begin))?.split('`').next()
}

/// Encodes a request, newline included.
pub fn encode_request(id: u64, request: &Request) -> Vec<u8> {
    encode_call(id, request, None)
}

/// Encodes a request that may touch another owner's objects, newline included.
pub fn encode_call(id: u64, request: &Request, override_owner: Option<Owner>) -> Vec<u8> {
    let mut value = serde_json::to_value(request).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("jsonrpc".into(), "2.0".into());
        object.insert("id".into(), id.into());
        if let Some(owner) = override_owner {
            object.insert("override_owner".into(), owner.as_str().into());
        }
    }
    line(&value)
}

/// Encodes an answer, newline included.
pub fn encode_answer(id: Value, outcome: Result<Value, ApiError>) -> Vec<u8> {
    let (result, error) = match outcome {
        Ok(result) => (Some(result), None),
        Err(error) => (None, Some(error)),
    };
    line(&Answer { jsonrpc: "2.0".into(), id, result, error })
}

/// Encodes a notice, newline included.
pub fn encode_notice(method: &str, params: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Notice<'a, T> {
        jsonrpc: &'static str,
        method: &'a str,
        params: &'a T,
    }
    line(&Notice { jsonrpc: "2.0", method, params })
}

/// Decodes a notice.
pub fn decode_notice(line: &[u8]) -> Result<crate::Notice, ApiError> {
    serde_json::from_slice(line).map_err(|error| {
        ApiError::new(Code::Parse, format!("the daemon's notice makes no sense: {error}")).hint(UPDATE_BOTH)
    })
}

/// Decodes an answer line into the reply the caller expects.
pub fn decode_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, ApiError> {
    let malformed = |error: serde_json::Error| {
        ApiError::new(Code::Parse, format!("the daemon's answer makes no sense: {error}")).hint(UPDATE_BOTH)
    };
    let answer: Answer = serde_json::from_slice(line).map_err(malformed)?;
    match answer.error {
        Some(error) => Err(error),
        None => crate::lenient::read(answer.result.unwrap_or_default()).map_err(malformed),
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Serialising our own types to memory cannot fail: no maps with odd keys, no I/O.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(line: &str) -> ApiError {
        decode_request(line.as_bytes()).request.unwrap_err()
    }

    #[test]
    fn a_request_survives_the_wire() {
        let request = Request::PortDelete(crate::request::ByName { name: "p1".parse().unwrap() });
        let call = decode_request(&encode_request(7, &request));
        assert_eq!(call.id, 7);
        assert_eq!(call.request.unwrap(), request);
        assert_eq!((call.override_owner, call.method.as_deref()), (None, Some("port.delete")));
        let call = decode_request(&encode_call(7, &request, Some(Owner::Cni)));
        assert_eq!((call.request.unwrap(), call.override_owner), (request, Some(Owner::Cni)));
    }

    #[test]
    fn parameters_may_be_absent() {
        let call = decode_request(br#"{"jsonrpc":"2.0","id":"x","method":"port.list"}"#);
        assert!(matches!(call.request, Ok(Request::PortList(_))));
        assert_eq!(call.id, "x");
    }

    #[test]
    fn refusals_name_the_field() {
        let port = r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"p","bridge":"b","kind":"xdp","device":"v"#;
        let error = refusal(&format!(r#"{port}","ring_sise":3}}}}"#));
        assert_eq!(error.data.field.as_deref(), Some("ring_sise"), "{error:?}");
        assert_eq!(error.code, Code::InvalidParams);
        let error = refusal(&format!(r#"{port}","settings":{{"vlan":{{"mode":"access","vid":5000}}}}}}}}"#));
        assert!(error.data.field.unwrap().starts_with("settings.vlan"));
        let error = refusal(r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":7}}"#);
        assert_eq!(error.data.field.as_deref(), Some("name"));
        let field_of = |line: &str| refusal(line).data.field;
        let no_kind = r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"p","bridge":"b","settings":{}}}"#;
        assert_eq!(field_of(no_kind).as_deref(), Some("kind"));
        assert_eq!(field_of(r#"{"jsonrpc":"2.0","id":1,"method":"bridge.add"}"#).as_deref(), Some("name"));
        assert_eq!(field_of(r#"{"jsonrpc":"2.0","id":1}"#).as_deref(), Some("method"));
    }

    #[test]
    fn what_is_no_request_is_refused_by_kind() {
        assert_eq!(refusal("{").code, Code::Parse);
        assert_eq!(refusal("[]").code, Code::InvalidRequest);
        assert_eq!(refusal(r#"{"jsonrpc":"1.0","id":1,"method":"port.list"}"#).code, Code::InvalidRequest);
        assert_eq!(refusal(r#"{"jsonrpc":"2.0","id":1,"method":"port.fly"}"#).code, Code::UnknownMethod);
        assert_eq!(
            refusal(r#"{"jsonrpc":"2.0","id":1,"method":"port.list","params":[]}"#).code,
            Code::InvalidParams
        );
        assert_eq!(refusal(r#"{"jsonrpc":"2.0","id":{},"method":"port.list"}"#).code, Code::InvalidRequest);
    }

    #[test]
    fn deep_nesting_is_refused_not_a_stack_overflow() {
        assert_eq!(refusal(&"[".repeat(100_000)).code, Code::Parse);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode_request(&bytes);
        }
    }
}
