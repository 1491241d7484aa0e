//! A file with tables of one kind, for commands that declare these and nothing else.

use crate::config::{read, refuse};
use crate::output::Output;
use std::path::Path;
use switch_api::file::File;
use switch_api::{ApiError, Code, Config, ObjectRef, Problem};

/// See the module.
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

    /// The daemon's refusal of an object of this file, with its line, if a field of it is to blame.
    pub fn place(&self, object: ObjectRef, error: ApiError, output: &Output) -> ApiError {
        let Some(field) = error.data.field.clone() else { return error };
        let (message, hint) = (error.message, error.data.hint);
        let problem = Problem { object: Some(object), field: Some(field), message, hint };
        // It was read before; its text says where what stands.
        let complaints =
            File::read(&self.text).map_or_else(|complaints| complaints, |file| file.complaints(&[problem]));
        ApiError { code: error.code, ..refuse(&self.name, &self.text, &complaints, output) }
    }
}
