//! What becomes of what no list and no policy decides: `--default-ingress`, `--default-egress`.

use clap::ValueEnum;
use switch_api::{DefaultVerdicts, Verdict};

/// On the command line.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct Verdicts {
    /// What becomes of what the port is sent and no access control list or network policy decides.
    #[arg(long, value_enum, value_name = "VERDICT")]
    default_ingress: Option<Word>,
    /// The same for what it sends.
    #[arg(long, value_enum, value_name = "VERDICT")]
    default_egress: Option<Word>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    Allow,
    Deny,
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Allow => Self::Allow,
            Word::Deny => Self::Deny,
        }
    }
}

impl Verdicts {
    /// `before` with what was named.
    pub fn over(&self, before: DefaultVerdicts) -> DefaultVerdicts {
        let or = |word: Option<Word>, before| word.map_or(before, Verdict::from);
        DefaultVerdicts {
            ingress: or(self.default_ingress, before.ingress),
            egress: or(self.default_egress, before.egress),
        }
    }
}

/// As `port show` shows it; nothing if everything passes.
pub fn show(verdicts: &DefaultVerdicts) -> Option<(&'static str, String)> {
    let DefaultVerdicts { ingress, egress } = verdicts;
    (!verdicts.is_allow()).then(|| ("default verdict", format!("ingress {ingress}, egress {egress}")))
}
