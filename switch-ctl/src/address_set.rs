//! `switch-ctl address-set`.

use crate::config::read;
use crate::one_kind::OneKind;
use crate::output::{Output, thousands};
use clap::Subcommand;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use switch_api::{
    ADDRESS_SET_MEMBERS_MAX, ADDRESS_SET_PAGE_MAX, AddressSet, AddressSetDone, AddressSetMembers,
    AddressSetStatus, AddressSetUpdate, ApiError, ByName, Client, Code, Config, Name, Nothing, Owner, Prefix,
    Request, parse_member,
};

/// Members in one request: of the longest text they fit into a line.
const MEMBERS_A_REQUEST: usize = 16_384;

/// What can be done with address sets.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes a set without members, that come and go by `add`, `remove` and `load` and are no part of files.
    #[command(after_help = "Example:\n  switch-ctl address-set create blocked")]
    Create {
        /// Its name.
        name: Name,
    },
    /// Declares the sets of a file, each in place of the one of its name if there is one; `-` reads them from standard input.
    ///
    /// The file is one as `apply` reads it, with nothing but `[[address_set]]` tables; other sets stay as they are.
    #[command(after_help = "\
Example:
  echo '
  [[address_set]]
  name = \"blocked\"
  members = [\"192.0.2.7\", \"198.51.100.0/24\", \"2001:db8::/32\"]
  ' | switch-ctl address-set set -")]
    Set {
        /// The file.
        file: PathBuf,
    },
    /// Adds members; rules that name the set are about them at once.
    #[command(after_help = "\
Example:
  switch-ctl address-set create blocked
  switch-ctl address-set add blocked 192.0.2.7 2001:db8::/32")]
    Add {
        /// The set.
        name: Name,
        /// Addresses or networks.
        #[arg(required = true, value_name = "MEMBER", value_parser = parse_member)]
        members: Vec<Prefix>,
    },
    /// Removes members; flows that are no longer allowed stop.
    #[command(after_help = "\
Example:
  switch-ctl address-set create blocked
  switch-ctl address-set add blocked 192.0.2.7
  switch-ctl address-set remove blocked 192.0.2.7")]
    Remove {
        /// The set.
        name: Name,
        /// Addresses or networks, as they were added.
        #[arg(required = true, value_name = "MEMBER", value_parser = parse_member)]
        members: Vec<Prefix>,
    },
    /// Makes the members of a set be those of a list: one a line, `#` or `;` begins a comment; `-` reads standard input.
    ///
    /// Only what differs is changed, in several steps if it is much: first comes what is new, then goes what is not there any more.
    #[command(
        after_help = "Example:\n  printf '192.0.2.7\\n2001:db8::/32\\n' | switch-ctl address-set load blocked -"
    )]
    Load {
        /// The set; it is made if it is not there.
        name: Name,
        /// The list.
        file: PathBuf,
    },
    /// Lists sets: how many members each has, and which lists name it.
    #[command(after_help = "Example:\n  switch-ctl address-set list")]
    List,
    /// Lists the members of a set, as `load` reads them.
    #[command(after_help = "\
Example:
  switch-ctl address-set create blocked
  switch-ctl address-set show blocked")]
    Show {
        /// The set.
        name: Name,
    },
    /// Removes a set that no rule names.
    #[command(after_help = "\
Example:
  switch-ctl address-set create blocked
  switch-ctl address-set delete blocked")]
    Delete {
        /// Its name.
        name: Name,
    },
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Create { name } => {
            let done = create(name, client)?;
            output.answer(&done, |_| format!("address set {name} is there"));
        }
        Verb::Set { file } => set(file, client, output)?,
        Verb::Add { name, members } => update(name, members.clone(), Vec::new(), client, output)?,
        Verb::Remove { name, members } => update(name, Vec::new(), members.clone(), client, output)?,
        Verb::Load { name, file } => load(name, file, client, output)?,
        Verb::List => {
            let sets: Vec<AddressSetStatus> = client.call(&Request::AddressSetList(Nothing {}))?;
            output.answer(&sets, |sets| list(sets, output));
        }
        Verb::Show { name } => {
            let set = Shown { name, members: members(name, client)? };
            let lines = |set: &Shown| set.members.iter().map(|it| format!("{it}\n")).collect::<String>();
            output.answer(&set, |set| lines(set).trim_end().to_owned());
        }
        Verb::Delete { name } => {
            let done: AddressSetDone =
                client.call(&Request::AddressSetDelete(ByName { name: name.clone() }))?;
            output.answer(&done, |_| format!("address set {name} is gone"));
        }
    }
    Ok(())
}

/// A set with all its members.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a Name,
    members: Vec<Prefix>,
}

fn create(name: &Name, client: &mut Client) -> Result<AddressSetDone, ApiError> {
    let set = AddressSet { name: name.clone(), members: None, owner: Owner::Operator };
    client.call(&Request::AddressSetSet(set))
}

/// Declares every set of a file. All of it is read before the first is declared.
fn set(path: &Path, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let only = |config: &Config| Config { address_set: config.address_set.clone(), ..Config::default() };
    let sets = OneKind::read(path, "address_set", only, output)?;
    let request = |set: &AddressSet| Request::AddressSetSet(set.clone());
    sets.declare(&sets.only.address_set, client, output, request, |set, done: AddressSetDone| {
        output.answer(&done, |done| told(&set.name, done));
    })
}

fn told(name: &Name, done: &AddressSetDone) -> String {
    let AddressSetDone { added, removed, members, .. } = done;
    format!("address set {name}: {added} members came, {removed} went; it has {}", thousands(*members as u64))
}

fn update(
    name: &Name,
    add: Vec<Prefix>,
    remove: Vec<Prefix>,
    client: &mut Client,
    output: &Output,
) -> Result<(), ApiError> {
    let update = AddressSetUpdate { name: name.clone(), add, remove };
    let done: AddressSetDone = client.call(&Request::AddressSetUpdate(update))?;
    output.answer(&done, |done| told(name, done));
    Ok(())
}

/// All members of a set.
fn members(name: &Name, client: &mut Client) -> Result<Vec<Prefix>, ApiError> {
    let mut all: Vec<Prefix> = Vec::new();
    loop {
        let asked = AddressSetMembers { name: name.clone(), after: all.last().copied(), limit: 0 };
        let page: Vec<Prefix> = client.call(&Request::AddressSetMembers(asked))?;
        let is_last = page.len() < ADDRESS_SET_PAGE_MAX as usize;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

fn load(name: &Name, path: &Path, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let (file, text) = read(path)?;
    let wanted = lines(&file, &text)?;
    let had = match members(name, client) {
        Err(error) if error.code == Code::NotFound => {
            create(name, client)?;
            Vec::new()
        }
        had => had?,
    };
    let had: BTreeSet<Prefix> = had.into_iter().collect();
    let add: Vec<Prefix> = wanted.difference(&had).copied().collect();
    let remove: Vec<Prefix> = had.difference(&wanted).copied().collect();
    let adds = add.chunks(MEMBERS_A_REQUEST).map(|add| (add.to_vec(), Vec::new()));
    let removes = remove.chunks(MEMBERS_A_REQUEST).map(|remove| (Vec::new(), remove.to_vec()));
    let mut all = AddressSetDone { generation: 0, added: 0, removed: 0, members: had.len() };
    // A set that is nearly full has room for what is new only when what is old is gone.
    let room = had.len() + add.len() <= ADDRESS_SET_MEMBERS_MAX;
    let steps: Vec<_> = if room { adds.chain(removes).collect() } else { removes.chain(adds).collect() };
    for (add, remove) in steps {
        let update = AddressSetUpdate { name: name.clone(), add, remove };
        let done: AddressSetDone = client.call(&Request::AddressSetUpdate(update))?;
        let (added, removed) = (all.added + done.added, all.removed + done.removed);
        all = AddressSetDone { added, removed, ..done };
    }
    output.answer(&all, |done| told(name, done));
    Ok(())
}

/// Members of a list, one a line.
fn lines(file: &str, text: &str) -> Result<BTreeSet<Prefix>, ApiError> {
    let mut members = BTreeSet::new();
    for (line, n) in text.lines().zip(1..) {
        let word = line.split(['#', ';']).next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let member = parse_member(word).map_err(|error| {
            ApiError::new(Code::InvalidParams, format!("{file}, line {n}: {error}")).hint(
                "nothing was changed; a list has an address or a network a line, and comments behind # or ;",
            )
        })?;
        if member.network() != member {
            let text = format!("{file}, line {n}: {member} is no network: bits behind its prefix are set");
            return Err(ApiError::new(Code::InvalidParams, text)
                .hint(format!("nothing was changed; write {}", member.network())));
        }
        members.insert(member);
    }
    Ok(members)
}

fn list(sets: &[AddressSetStatus], output: &Output) -> String {
    if sets.is_empty() {
        return "no address sets".into();
    }
    let mut table = output.table(&["SET", "OWNER", "IPV4", "IPV6", "IN FILES", "NAMED BY"]);
    for set in sets {
        let users: Vec<&str> = set.used_by.iter().map(Name::as_str).collect();
        table.add_row(vec![
            set.name.to_string(),
            set.owner.to_string(),
            thousands(set.ipv4 as u64),
            thousands(set.ipv6 as u64),
            if set.declared { "yes" } else { "no" }.into(),
            if users.is_empty() { "no list".into() } else { users.join(", ") },
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_they_are_published_are_read() {
        let text = "; Spamhaus DROP List\n1.10.16.0/20 ; SBL256894\n\n# ours\n192.0.2.7\n2001:db8::/32 # doc\n192.0.2.7\n";
        let read: Vec<String> = lines("drop.txt", text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(read, ["1.10.16.0/20", "192.0.2.7/32", "2001:db8::/32"]);
        for (bad, word) in [("10.0.0.0/33", "line 1"), ("\n10.0.0.1/8", "line 2"), ("all", "line 1")] {
            let error = lines("drop.txt", bad).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }
}
