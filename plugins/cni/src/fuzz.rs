//! What the fuzz target does with its bytes. It stands here, so that plain `cargo test` replays on it whatever
//! was found before (`tests/regressions`).

use crate::answer::Answer;
use crate::conf::Conf;
use crate::invocation::{Invocation, is_identifier};
use crate::refusal::Refusal;
use crate::version::Version;
use crate::{add, run, switch};

/// The environment's variables in the order in which the bytes have them, each up to a zero; the rest is the
/// configuration, with its result of ADD.
const VARIABLES: [&str; 5] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"];

/// What a runtime might say, or somebody who plays one: understood or refused with a sentence, and what was
/// understood keeps its promises.
pub fn input(data: &[u8]) {
    let mut parts = data.splitn(VARIABLES.len() + 1, |byte| *byte == 0);
    let values: Vec<String> =
        parts.by_ref().take(VARIABLES.len()).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let bytes = parts.next().unwrap_or_default();
    let get = |name: &str| {
        let at = VARIABLES.iter().position(|known| *known == name)?;
        values.get(at).cloned()
    };
    let invocation = Invocation::new(get).inspect_err(is_said).ok();
    let lenient = Conf::read(bytes, true).inspect_err(is_said);
    let strict = Conf::read(bytes, false).inspect_err(is_said);
    assert!(strict.is_err() || lenient.is_ok(), "what is right is refused when less is asked");
    let Ok(conf) = strict else { return };
    assert!(is_identifier(&conf.network));
    let previous = conf.previous.clone().unwrap_or_default();
    for version in Version::ALL {
        let again = Answer::read(previous.to_json(version), "our own").inspect_err(is_said);
        assert!(again.is_ok_and(|again| again.ips == previous.ips), "a result is not read as it was written");
    }
    _ = conf.refuse_unsupported().inspect_err(is_said);
    let Some(invocation) = invocation else { return };
    let holder = conf.holder(&invocation.container, &invocation.interface);
    let port = add::port(&invocation, &conf, switch::name(&holder, 0), &previous).inspect_err(is_said);
    if let Ok(port) = port {
        assert_eq!(switch::holder_of(&port).as_ref(), Some(&holder));
        assert_eq!(port.name.as_str().len(), 15);
    }
    // Verbs that stay away from the system: the answer is JSON, and an error says its version.
    if matches!(values[0].as_str(), "VERSION" | "") {
        let outcome = run::run(get, bytes);
        assert!(outcome.print.is_some_and(|print| print["cniVersion"].is_string()));
    }
}

fn is_said(refusal: &Refusal) {
    assert!(refusal.code > 0 && !refusal.message.is_empty());
    let print = refusal.to_json("1.0.0").to_string();
    assert!(!print.contains('\n'), "an error is one line of JSON");
}
