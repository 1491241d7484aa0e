//! The fields of a JSON object, taken one by one. What is wrong with a field becomes a problem with its path,
//! and the next one is looked at; what nobody took in the end is a problem too.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What was found wrong.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// One more.
    pub fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    /// All of them in one text; none if there are none.
    pub fn all(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// An object and where it is.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    path: String,
}

impl Fields {
    /// Of the whole document.
    pub fn new(map: Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    /// The same, with the fields in `known` found whatever case their letters are in: containerd writes a Go structure's own names
    /// (`HostPort` for `hostPort`), and a Go plugin reads either.
    pub fn in_any_case(mut self, known: &[&str]) -> Self {
        let odd: Vec<(String, &str)> = (self.map.keys())
            .filter_map(|key| Some((key.clone(), *known.iter().find(|name| name.eq_ignore_ascii_case(key))?)))
            .filter(|(key, name)| key != name)
            .collect();
        for (key, name) in odd {
            if let Some(value) = self.map.remove(&key) {
                // Said twice, the one that is written right counts.
                self.map.entry(name).or_insert(value);
            }
        }
        self
    }

    /// A field's path.
    pub fn path(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// A field's value, if it is there and right. `null` is as good as absent.
    pub fn take<T: DeserializeOwned>(&mut self, field: &str, problems: &mut Problems) -> Option<T> {
        let value = self.map.remove(field).filter(|value| !value.is_null())?;
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                problems.add(format!("{}: {error}", self.path(field)));
                None
            }
        }
    }

    /// The same, but it has to be there.
    pub fn need<T: DeserializeOwned>(&mut self, field: &str, problems: &mut Problems) -> Option<T> {
        if self.map.get(field).is_none_or(Value::is_null) {
            problems.add(format!("{} is missing", self.path(field)));
        }
        self.take(field, problems)
    }

    /// A text that means something.
    pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        field: &str,
        problems: &mut Problems,
    ) -> Option<T> {
        let text: String = self.take(field, problems)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                problems.add(format!("{}: {error}", self.path(field)));
                None
            }
        }
    }

    /// An object within.
    pub fn object(&mut self, field: &str, problems: &mut Problems) -> Option<Fields> {
        let map = self.take(field, problems)?;
        Some(Self { map, path: format!("{}{field}.", self.path) })
    }

    /// What is left must be nobody's business: keys of others have a dot or a slash (reverse domain names).
    pub fn none_left(self, known: &[&str], problems: &mut Problems) {
        let of_others = |key: &&String| key.contains(['.', '/']);
        for key in self.map.keys().filter(|key| !of_others(key)) {
            problems.add(format!("{} is not known here; fields are {}", self.path(key), known.join(", ")));
        }
    }

    /// A field that was read elsewhere.
    pub fn ignore(&mut self, field: &str) {
        self.map.remove(field);
    }
}
