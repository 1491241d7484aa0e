//! Files that people name: reading them, and what the system's refusals mean and ask for.

use std::io::{Error, ErrorKind, Read};
use std::path::Path;
use switch_api::{ApiError, Code};

/// The text of a file, or of the standard input if it is called `-`.
pub fn text(path: &Path) -> Result<String, ApiError> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path).map_err(|error| refused(path, &error));
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| refused(Path::new("standard input"), &error))?;
    Ok(text)
}

/// What the system says of a file, and what to do.
pub fn refused(path: &Path, error: &Error) -> ApiError {
    let mut code = Code::System;
    let hint = match error.kind() {
        ErrorKind::NotFound => {
            code = Code::NotFound;
            let here =
                std::env::current_dir().map_or_else(|_| "here".into(), |here| here.display().to_string());
            match path.is_absolute() {
                true => "see with `ls` what is there".to_owned(),
                false => format!("it was looked for in {here}: go to where it is, or give its whole path"),
            }
        }
        ErrorKind::PermissionDenied => {
            "ask as a user that may, root for example, or choose another path".into()
        }
        ErrorKind::IsADirectory => "it is a directory: name a file in it".into(),
        ErrorKind::NotADirectory => "something on the way to it is a file: mind the path".into(),
        ErrorKind::InvalidData => "it is no text in UTF-8: is it the right file?".into(),
        ErrorKind::StorageFull => "make room, or choose another file system".into(),
        ErrorKind::ReadOnlyFilesystem => "choose another file system: this one is not written to".into(),
        _ => "mind the path, and the file system that it is on".into(),
    };
    ApiError::new(code, format!("{}: {error}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_says_what_to_do() {
        let of = |path: &str| {
            let error = text(Path::new(path)).unwrap_err();
            (error.code, error.data.hint.unwrap())
        };
        let (code, hint) = of("no-such-file.toml");
        assert!(code == Code::NotFound && hint.contains("looked for in"), "{hint}");
        assert!(of("/no-such-file.toml").1.contains("`ls`"));
        assert!(of("/").1.contains("name a file in it"));
        assert!(of("/proc/self/exe").1.contains("UTF-8"));
    }
}
