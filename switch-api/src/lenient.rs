//! Answers of a daemon that is newer than we are: what it says beyond what we know is read over. Requests are not read so: there a
//! field nobody knows is a mistake, and is refused.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

/// Fields that are read over, each wherever it stands in a list. A newer daemon has a few more; one with so many speaks another
/// language.
const FIELDS_MAX: usize = 64;

/// Reads `value`, without the fields that are not known.
pub fn read<T: DeserializeOwned>(mut value: Value) -> Result<T, serde_json::Error> {
    for _ in 0..FIELDS_MAX {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let mut path: Vec<&Segment> = error.path().iter().collect();
        // Some paths end with the field itself.
        if matches!(path.last(), Some(Segment::Map { key }) if Some(key.as_str()) == unknown) {
            path.pop();
        }
        if !unknown.is_some_and(|field| remove(&mut value, &path, field)) {
            return Err(error.into_inner());
        }
    }
    T::deserialize(value)
}

/// Takes `field` out of the objects at `path`, whatever the place in lists; where there is none, out of the objects below: of parts
/// that are read as a whole the path is that of the whole. Whether there was any.
fn remove(value: &mut Value, path: &[&Segment], field: &str) -> bool {
    let each = |found, below: &mut Value, path: &[&Segment]| remove(below, path, field) || found;
    match (value, path.split_first()) {
        (Value::Array(list), Some((Segment::Seq { .. }, rest))) => {
            list.iter_mut().fold(false, |found, item| each(found, item, rest))
        }
        (Value::Object(object), Some((Segment::Map { key }, rest))) => {
            object.get_mut(key).is_some_and(|below| remove(below, rest, field))
        }
        (Value::Array(list), _) => list.iter_mut().fold(false, |found, item| each(found, item, &[])),
        (Value::Object(object), _) => {
            object.remove(field).is_some()
                || object.values_mut().fold(false, |found, below| each(found, below, &[]))
        }
        _ => false,
    }
}
