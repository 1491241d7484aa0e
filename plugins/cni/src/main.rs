//! The plugin's program: environment and standard input in, a result or an error on standard output.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use switch_cni::conf::CONF_LEN_MAX;
use switch_cni::manual;
use switch_cni::run::run;

const HELP: &str = "switch-cni is a CNI plugin: container runtimes call it, not people.
Put it into the runtime's plugin directory (/opt/cni/bin, /usr/lib/cni) and name it in a network
configuration (deploy/cni has examples). It speaks CNI 0.3.1, 0.4.0, 1.0.0 and 1.1.0.
To try it by hand, say so in the environment: CNI_COMMAND=VERSION switch-cni < /dev/null
More: man switch-cni (`switch-cni --man` prints it), docs/CNI.md. Its version: switch-cni --version
";

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none()
        && (std::env::args().len() > 1 || std::io::stdin().is_terminal())
    {
        let text = match std::env::args().nth(1).as_deref() {
            Some("--man") => manual::page(),
            Some("--version" | "-V") => concat!("switch-cni ", env!("CARGO_PKG_VERSION"), "\n").into(),
            _ => HELP.into(),
        };
        _ = std::io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let mut bytes = Vec::new();
    // What cannot be read is no configuration, and is refused as such.
    _ = std::io::stdin().take(CONF_LEN_MAX).read_to_end(&mut bytes);
    let outcome = run(|name| std::env::var(name).ok(), &bytes);
    if let Some(print) = outcome.print {
        let text = serde_json::to_string_pretty(&print).unwrap_or_default();
        _ = writeln!(std::io::stdout(), "{text}");
    }
    if outcome.success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
