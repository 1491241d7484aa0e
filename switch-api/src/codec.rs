//! JSON-RPC 2.0 (jsonrpc.org/specification), one message per line. Decoding takes hostile bytes
//! and answers with a value or a refusal that names the field.

use crate::{ApiError, Code, Owner, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Longest line that the daemon accepts of everybody, in bytes; a client refuses to send a longer one. 1 MiB holds an answer that lists 4 000
/// MACs, and a client that sends more than this without a newline is not speaking our protocol.
pub const LINE_LEN_MAX: usize = 1 << 20;
/// Longest line that it accepts of an admin: 100 000 rules of access control lists of some 250 bytes each, a configuration of many lists, half a million
/// routes. Read, checked and compiled it takes several times as much memory for a moment, on a node that has 1 GiB.
pub const LONG_LINE_LEN_MAX: usize = 32 << 20;

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

/// The same of a long line: what is large in it is not read yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongEnvelope<'a> {
    jsonrpc: String,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    method: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(default)]
    override_owner: Option<Owner>,
}

/// Longest id that is read of a long line, in bytes.
const LONG_ID_BYTES: usize = 256;

/// Decodes one line. Never panics; a line that is no request still yields the id if it has one.
pub fn decode_request(line: &[u8]) -> Call {
    if line.len() > LINE_LEN_MAX {
        return decode_long(line);
    }
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

/// A line that is longer than most: its parameters become what they are to be at once, and never stand in memory as JSON values, which take
/// six times the room of their text.
fn decode_long(line: &[u8]) -> Call {
    let envelope: LongEnvelope = match serde_json::from_slice(line) {
        Ok(envelope) => envelope,
        Err(error) => {
            let code = if error.is_data() { Code::InvalidRequest } else { Code::Parse };
            let error = ApiError::new(code, format!("this line is no request: {error}")).hint(SEE_EXAMPLES);
            return Call { id: Value::Null, request: Err(error), override_owner: None, method: None };
        }
    };
    let id = envelope.id.filter(|id| id.get().len() <= LONG_ID_BYTES);
    let id = id.and_then(|id| serde_json::from_str(id.get()).ok()).unwrap_or_default();
    let (method, override_owner) = (envelope.method.clone(), envelope.override_owner);
    let request = long_request(envelope, &id);
    let is_known = request.as_ref().err().is_none_or(|error| error.code == Code::InvalidParams);
    let id = if matches!(id, Value::String(_) | Value::Number(_)) { id } else { Value::Null };
    let override_owner = override_owner.filter(|_| request.is_ok());
    Call { id, request, override_owner, method: is_known.then_some(method) }
}

fn long_request(envelope: LongEnvelope, id: &Value) -> Result<Request, ApiError> {
    let LongEnvelope { jsonrpc, method, params, .. } = envelope;
    let params = params.map_or("{}", RawValue::get);
    check_envelope(&jsonrpc, id, params.starts_with('{'))?;
    // The method first, so that it is known whose parameters these are.
    let tagged = format!("{{\"method\":{},\"params\":{params}}}", Value::String(method));
    typed_request(&mut serde_json::Deserializer::from_str(&tagged))
}

fn request_from(value: Value) -> Result<(Request, Option<Owner>), ApiError> {
    let envelope: Envelope = typed(value, Code::InvalidRequest)?;
    let params = envelope.params.unwrap_or_else(|| Value::Object(Default::default()));
    check_envelope(&envelope.jsonrpc, &envelope.id, params.is_object())?;
    let tagged = [("method".to_owned(), envelope.method.into()), ("params".to_owned(), params)];
    let request = typed_request(Value::Object(tagged.into_iter().collect()))?;
    Ok((request, envelope.override_owner))
}

fn check_envelope(jsonrpc: &str, id: &Value, has_fields: bool) -> Result<(), ApiError> {
    if jsonrpc != "2.0" {
        return Err(ApiError::new(Code::InvalidRequest, "\"jsonrpc\" must be \"2.0\"")
            .field("jsonrpc")
            .hint(SEE_EXAMPLES));
    }
    if !matches!(id, Value::Null | Value::String(_) | Value::Number(_)) {
        return Err(ApiError::new(Code::InvalidRequest, "an id is a string, a number or null")
            .field("id")
            .hint(SEE_EXAMPLES));
    }
    if !has_fields {
        return Err(ApiError::new(Code::InvalidParams, "params must be an object: fields by name")
            .field("params")
            .hint(SEE_EXAMPLES));
    }
    Ok(())
}

/// A request of its method and its parameters.
fn typed_request<'de, D: Deserializer<'de>>(tagged: D) -> Result<Request, ApiError>
where
    D::Error: std::fmt::Display,
{
    // Serde reads the tag first and so reports an unknown method before it looks at parameters.
    typed(tagged, Code::InvalidParams).map_err(|mut error| {
        if error.message.contains("unknown variant") && error.data.field.as_deref() == Some("method") {
            error.code = Code::UnknownMethod;
        } else if let Some(path) = &error.data.field {
            let inner = path.strip_prefix("params").unwrap_or(path).trim_start_matches('.');
            error.data.field = (!inner.is_empty()).then(|| inner.to_owned());
        }
        error
    })
}

fn typed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D, code: Code) -> Result<T, ApiError>
where
    D::Error: std::fmt::Display,
{
    serde_path_to_error::deserialize(from).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        // Where in a text of ours it stood tells nobody anything: the field does.
        let message = message.split(" at line 1 column ").next().unwrap_or_default().to_owned();
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

    /// A request padded to be a long one.
    fn padded(line: &str) -> Vec<u8> {
        let mut line = line.as_bytes().to_vec();
        line.resize(LINE_LEN_MAX + 1, b' ');
        line
    }

    /// A long line is decoded as it would be were it shorter, and refused for the same field.
    #[test]
    fn a_long_line_is_decoded_as_a_short_one() {
        let rule = r#"{"action":"deny","protocol":"udp","source":["172.16.0.0/24"]}"#;
        let acl = |name: &str, rule: &str| {
            format!(
                r#"{{"method":"acl.set","params":{{"name":"{name}","ingress":[{rule}]}},"id":"x","jsonrpc":"2.0"}}"#
            )
        };
        let lines = [
            acl("big", rule),
            acl("no name", rule),
            acl("big", r#"{"action":"deny","sauce":[]}"#),
            acl("big", r#"{"protocol":"udp"}"#),
            acl("big", r#"{"action":7}"#),
            r#"{"jsonrpc":"2.0","id":5,"method":"port.list"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":5,"method":"port.fly","params":{}}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":5,"method":"port.list","params":[]}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":[1],"method":"port.list"}"#.to_owned(),
            r#"{"jsonrpc":"1.0","id":1,"method":"port.list"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","method":"bridge.delete","params":{"name":"b"},"override_owner":"cni"}"#
                .to_owned(),
        ];
        for line in lines {
            let [long, short] = [decode_request(&padded(&line)), decode_request(line.as_bytes())];
            // What is wrong with a value is said in other words of what is read as text; where it is wrong is not.
            let said = |call: Call| {
                let request = call.request.map_err(|error| (error.code, error.data.field));
                (call.id, request, call.override_owner, call.method)
            };
            assert_eq!(said(long), said(short), "{line}");
        }
        for broken in ["{", "[]", r#"{"jsonrpc":"2.0","id":1}"#] {
            let call = decode_request(&padded(broken));
            assert!(matches!(call.request.unwrap_err().code, Code::Parse | Code::InvalidRequest), "{broken}");
        }
        let deep = format!(
            r#"{{"jsonrpc":"2.0","method":"acl.set","params":{{"name":{}"#,
            "[".repeat(2 * LINE_LEN_MAX)
        );
        assert_eq!(decode_request(deep.as_bytes()).request.unwrap_err().code, Code::Parse);
        let closed = format!("{deep}{}}}}}", "]".repeat(2 * LINE_LEN_MAX));
        assert_eq!(decode_request(closed.as_bytes()).request.unwrap_err().code, Code::InvalidParams);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode_request(&bytes);
        }
    }
}
