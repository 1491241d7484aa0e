//! What the commands about one kind of object have in common: a file with tables of that kind, and nothing else; and one of those there
//! are, by its name.

use crate::config::{read, refuse};
use crate::output::Output;
use serde::de::DeserializeOwned;
use std::path::Path;
use switch_api::file::File;
use switch_api::{ApiError, Client, Code, Config, Name, Object, ObjectRef, Problem, Request};

/// A file with tables of one kind.
pub struct OneKind {
    name: String,
    text: String,
    /// What it declares.
    pub only: Config,
}

impl OneKind {
    /// Reads a file of `[[kind]]` tables, `-` from standard input; `of` takes what is of this kind out of all. A mistake is shown with
    /// its line.
    pub fn read(
        path: &Path,
        kind: &str,
        of: impl Fn(&Config) -> Config,
        output: &Output,
    ) -> Result<Self, ApiError> {
        let (name, text) = read(path)?;
        let file = File::read(&text).map_err(|complaints| refuse(&name, &text, &complaints, output))?;
        let only = of(&file.config);
        let refused = |text: String, hint: String| Err(ApiError::new(Code::InvalidParams, text).hint(hint));
        if file.config == Config::default() {
            // A set of ports is no port: its command has another name than its table.
            let noun = if kind == "port_set" { "port-group".into() } else { kind.replace('_', "-") };
            let hint = format!("`switch-ctl {noun} set --help` shows one");
            return refused(format!("{name}: there is no [[{kind}]] table in it"), hint);
        }
        if only != file.config {
            let text = format!("{name}: `{kind} set` reads [[{kind}]] tables and nothing else");
            return refused(text, "use `apply` for a file that has more".into());
        }
        Ok(Self { name, text, only })
    }

    /// Declares each of its objects, and hands on what the daemon answers.
    pub fn declare<T: Object, R: DeserializeOwned>(
        &self,
        objects: &[T],
        client: &mut Client,
        output: &Output,
        request: impl Fn(&T) -> Request,
        told: impl Fn(&T, R),
    ) -> Result<(), ApiError> {
        for object in objects {
            let done = client.call(&request(object));
            told(object, done.map_err(|error| self.place(ObjectRef::of(object), error, output))?);
        }
        Ok(())
    }

    /// The daemon's refusal of an object of this file, with its line, if a field of it is to blame.
    fn place(&self, object: ObjectRef, error: ApiError, output: &Output) -> ApiError {
        let Some(field) = error.data.field.clone() else { return error };
        let (message, hint) = (error.message, error.data.hint);
        let problem = Problem { object: Some(object), field: Some(field), message, hint };
        // It was read before; its text says where what stands.
        let complaints =
            File::read(&self.text).map_or_else(|complaints| complaints, |file| file.complaints(&[problem]));
        ApiError { code: error.code, ..refuse(&self.name, &self.text, &complaints, output) }
    }
}

/// The one of this name among those that the daemon lists; `kind` is what they are, and `command` what lists them.
pub fn named<T>(
    all: Vec<T>,
    name: &Name,
    name_of: impl Fn(&T) -> &Name,
    (kind, command): (&str, &str),
) -> Result<T, ApiError> {
    all.into_iter().find(|one| name_of(one) == name).ok_or_else(|| {
        ApiError::new(Code::NotFound, format!("there is no {kind} named {name}"))
            .hint(format!("`switch-ctl {command}` shows those there are"))
    })
}
