//! The parts of the whole, each of which can be measured by itself.

use super::task::Task;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every device that does this, over cables.
    Task(Task),
    /// The pipelines by themselves.
    Alone,
    /// What is lost while devices are changed.
    Changes,
}

impl Part {
    /// All of them.
    pub fn all() -> Vec<Self> {
        Task::ALL.map(Self::Task).into_iter().chain([Self::Alone, Self::Changes]).collect()
    }

    /// As it is called.
    pub fn name(self) -> String {
        match self {
            Self::Task(task) => task.name(),
            Self::Alone => super::merge::ALONE.into(),
            Self::Changes => super::merge::CHANGES.into(),
        }
    }

    /// Those that are meant: the one of this name, or all that have it in theirs.
    pub fn named(text: &str) -> Result<Vec<Self>, String> {
        let (all, wanted) = (Self::all(), text.to_lowercase());
        if let Some(one) = all.iter().find(|part| part.name().to_lowercase() == wanted) {
            return Ok(vec![*one]);
        }
        let some: Vec<Self> =
            all.iter().filter(|part| part.name().to_lowercase().contains(&wanted)).copied().collect();
        let names: Vec<String> = all.iter().map(|part| format!("{:?}", part.name())).collect();
        match some.is_empty() {
            true => Err(format!("{text:?} is no part; there are {}", names.join(", "))),
            false => Ok(some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_and_a_piece_of_names_is_each() {
        let named = |text: &str| Part::named(text);
        assert_eq!(named("L3"), Ok(vec![Part::Task(Task::Route)]));
        assert_eq!(named("1000 rules"), Ok(vec![Part::Task(Task::Police(1_000))]));
        assert_eq!(named("policy").map(|parts| parts.len()), Ok(3));
        assert_eq!(named("alone"), Ok(vec![Part::Alone]));
        assert_eq!(named("Changes"), Ok(vec![Part::Changes]));
        assert!(named("L4").is_err());
    }
}
