//! A mistyped command: which was meant. clap's own measure (Jaro) does not see that two letters changed places: of `tpa` it made
//! `pcap`. Here it is the fewest letters left out, put in, changed, or changed places with their neighbour. And a word that was given
//! dashes: of `route add … --via` it made `--vid`. Where no name is near, it was perhaps said later, or forgotten: `port add web tap`, `port add web`.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

/// Letters that may be wrong, of so many one.
const LETTERS_A_MISTAKE: usize = 3;
/// So many commands a person reads in one line; of more `--help` says what each is for.
const COMMANDS_IN_A_LINE: usize = 8;

/// The complaint about a command or an option that is not there, with what was meant instead of what clap thinks; any other as it is.
pub fn explain(mut error: Error, root: &Command, words: impl Iterator<Item = String>) -> Error {
    match (error.kind(), error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(typed)), _) => {
            let words: Vec<String> = words.collect();
            let group = group(root, typed, words.iter().cloned());
            let near = nearest(typed, group);
            if near.is_empty() {
                let behind = words.iter().skip_while(|word| *word != typed).skip(1);
                let tips = forgotten(typed, group, behind).into_iter().map(Into::into).collect();
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
            } else {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
            }
        }
        (ErrorKind::UnknownArgument, _, Some(ContextValue::String(typed))) => {
            if let Some(word) = without_dashes(typed, group(root, typed, words)) {
                let tip = format!("'{word}' is written without dashes");
                error.remove(ContextKind::SuggestedArg);
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
        }
        _ => {}
    }
    error
}

/// The group of commands that the mistyped word was to name one of, or the command that it was to be said to.
fn group<'a>(root: &'a Command, typed: &str, words: impl Iterator<Item = String>) -> &'a Command {
    let named = words.take_while(|word| word != typed);
    named.fold(root, |group, word| group.find_subcommand(&word).unwrap_or(group))
}

/// What was to be said before the word that is no command, if nobody knows better.
fn forgotten<'a>(
    typed: &str,
    group: &Command,
    mut behind: impl Iterator<Item = &'a String>,
) -> Option<String> {
    if let Some(later) = behind.find(|word| group.find_subcommand(word).is_some()) {
        return Some(format!("'{later}' is said before '{typed}'"));
    }
    let shown = group.get_subcommands().filter(|command| !command.is_hide_set());
    let names: Vec<&str> = shown.map(Command::get_name).collect();
    (names.len() <= COMMANDS_IN_A_LINE).then(|| format!("one of these is said first: {}", names.join(", ")))
}

/// The names that take the fewest mistakes, if those are few.
fn nearest(typed: &str, group: &Command) -> Vec<String> {
    let shown = group.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.map(|command| command.get_name().to_owned());
    let mistakes: Vec<_> = names.map(|name| (strsim::damerau_levenshtein(typed, &name), name)).collect();
    let may_be = typed.chars().count().div_ceil(LETTERS_A_MISTAKE);
    let fewest = mistakes.iter().map(|(count, _)| *count).min().filter(|count| *count <= may_be);
    mistakes.into_iter().filter(|(count, _)| Some(*count) == fewest).map(|(_, name)| name).collect()
}

/// The word, if the command knows it as one: a command of its own, or what may stand where it takes a word.
fn without_dashes(typed: &str, command: &Command) -> Option<String> {
    let word = typed.trim_start_matches('-');
    let mut may_stand = command.get_positionals().flat_map(|arg| arg.get_possible_values());
    let is_known =
        command.find_subcommand(word).is_some() || may_stand.any(|value| value.matches(word, false));
    is_known.then(|| word.to_owned())
}
