//! Who finds a place at the socket. A client that says nothing may stay as long as it likes, as who waits for events does; so places are
//! shared out: one user cannot keep out the others, who only looks not the CNI plugin, and neither of them the admin.

use switch_api::{ApiError, Code, Role};

/// Clients at one time. `switch-ctl` and the CNI plugin connect for one request.
pub(crate) const CLIENTS_MAX: usize = 64;
/// Of these, clients that are no admins: a quarter of all places is left to admins.
pub(crate) const CLIENTS_OTHERS_MAX: usize = 48;
/// Of these, clients that only look: as many are left to the CNI plugin, of which a runtime starts several at a time.
pub(crate) const CLIENTS_READERS_MAX: usize = 32;
/// Clients of one user who is no admin: some dashboards and terminals, or as many CNI plugins as a kubelet starts at a time.
pub(crate) const CLIENTS_A_USER_MAX: usize = 16;

/// Why there is no place for one more client, a user's in a role, beside those that are `there`; none: there is one.
pub(super) fn refusal(
    role: Role,
    uid: u32,
    there: impl Iterator<Item = (Role, u32)> + Clone,
) -> Option<ApiError> {
    let full = |text: String, hint: &str| Some(ApiError::new(Code::Limit, text).hint(hint));
    let others = there.clone().filter(|(role, _)| *role != Role::Admin);
    let readers = others.clone().filter(|(role, _)| *role == Role::Reader);
    if role != Role::Admin && others.clone().filter(|(_, other)| *other == uid).count() >= CLIENTS_A_USER_MAX
    {
        let text = format!(
            "{CLIENTS_A_USER_MAX} clients of user {uid} are connected already, the most for one user"
        );
        return full(text, "close one, or try again in a moment; admins have no such limit");
    }
    if role == Role::Reader && readers.count() >= CLIENTS_READERS_MAX {
        let text = format!("{CLIENTS_READERS_MAX} clients are connected already that only look");
        return full(
            text,
            "close one, or try again in a moment; other places are for the CNI plugin and admins",
        );
    }
    if role != Role::Admin && others.count() >= CLIENTS_OTHERS_MAX {
        let text = format!("{CLIENTS_OTHERS_MAX} clients are connected already that are no admins");
        return full(text, "close one, or try again in a moment; the other places are for admins");
    }
    if there.count() >= CLIENTS_MAX {
        let text = format!("{CLIENTS_MAX} clients are connected already");
        return full(text, "close one, or try again in a moment");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever of these comes finds a place until there is none; how many did.
    fn come(there: &mut Vec<(Role, u32)>, who: impl IntoIterator<Item = (Role, u32)>) -> usize {
        let before = there.len();
        for (role, uid) in who {
            if refusal(role, uid, there.iter().copied()).is_none() {
                there.push((role, uid));
            }
        }
        there.len() - before
    }

    #[test]
    fn nobody_keeps_out_whoever_may_more() {
        let mut there = Vec::new();
        let one = |role, uid| std::iter::repeat_n((role, uid), 100);
        assert_eq!(come(&mut there, one(Role::Reader, 1000)), CLIENTS_A_USER_MAX);
        assert_eq!(come(&mut there, (0..100).map(|n| (Role::Reader, 2000 + n))), 16, "all readers together");
        assert_eq!(come(&mut there, one(Role::Cni, 3000)), CLIENTS_A_USER_MAX);
        assert_eq!(come(&mut there, one(Role::Cni, 3001)), 0, "the rest is for admins");
        assert_eq!(come(&mut there, one(Role::Admin, 0)), CLIENTS_MAX - CLIENTS_OTHERS_MAX);
    }

    #[test]
    fn admins_may_have_all_places() {
        assert_eq!(come(&mut Vec::new(), std::iter::repeat_n((Role::Admin, 1000), 100)), CLIENTS_MAX);
    }

    #[test]
    fn a_refusal_says_whose_places_are_taken() {
        let said = |role, there: Vec<(Role, u32)>| refusal(role, 7, there.into_iter()).unwrap().message;
        assert!(said(Role::Reader, vec![(Role::Reader, 7); 16]).contains("of user 7"));
        assert!(said(Role::Cni, vec![(Role::Cni, 8); 48]).contains("no admins"));
        assert!(said(Role::Reader, vec![(Role::Reader, 8); 32]).contains("only look"));
        assert!(said(Role::Admin, vec![(Role::Admin, 0); 64]).contains("64 clients"));
    }
}
