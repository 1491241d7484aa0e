//! A tree of tests becomes classic BPF. Every test jumps away or falls through to what comes next, by an unconditional
//! jump if it is to go far: so no distance is too long, whatever the tree.

use super::Instruction;

/// What a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A word of the packet.
    Word(u32),
    /// Two bytes.
    Half(u32),
    /// One.
    Byte(u32),
    /// Two bytes behind the IPv4 header that begins at the second number, so many bytes from its end.
    Behind(u32, u32),
    /// The packet's length.
    Len,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Equal.
    Equal(u32),
    /// Not less.
    AtLeast(u32),
    /// Greater.
    Above(u32),
    /// Some of these bits are set.
    Some(u32),
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// What is loaded, which of its bits count, what they are.
    Test(Load, u32, Is),
    /// All of them.
    All(Vec<Tree>),
    /// One of them at least.
    Any(Vec<Tree>),
    /// Not.
    Not(Box<Tree>),
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_LEN: u16 = 0x80;
const LOAD_HEADER_LEN: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_SOME: u16 = 0x45;
const RETURN: u16 = 0x06;
/// What tcpdump returns: the whole packet.
const ACCEPT: u32 = 262_144;

/// A place to jump to.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Default)]
struct Code {
    lines: Vec<Instruction>,
    /// Where each label is.
    places: Vec<usize>,
    /// Jumps, and to which label.
    jumps: Vec<(usize, Label)>,
}

/// Instructions that accept what the tree does.
pub fn generate(tree: &Tree) -> Vec<Instruction> {
    let mut code = Code::default();
    let refuse = code.label();
    code.jump_if(tree, false, refuse);
    code.lines.push((RETURN, 0, 0, ACCEPT));
    code.place(refuse);
    code.lines.push((RETURN, 0, 0, 0));
    for (at, label) in code.jumps {
        code.lines[at].3 = (code.places[label.0] - at - 1) as u32;
    }
    code.lines
}

impl Code {
    fn label(&mut self) -> Label {
        self.places.push(0);
        Label(self.places.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.places[label.0] = self.lines.len();
    }

    /// Goes to `label` if the tree is `sense`, and on if not.
    fn jump_if(&mut self, tree: &Tree, sense: bool, label: Label) {
        match (tree, sense) {
            (Tree::Not(tree), _) => self.jump_if(tree, !sense, label),
            (Tree::All(trees), false) | (Tree::Any(trees), true) => {
                trees.iter().for_each(|tree| self.jump_if(tree, sense, label));
            }
            (Tree::All(trees) | Tree::Any(trees), _) => {
                let Some((last, first)) = trees.split_last() else { return };
                let on = self.label();
                first.iter().for_each(|tree| self.jump_if(tree, !sense, on));
                self.jump_if(last, sense, label);
                self.place(on);
            }
            (Tree::Test(load, mask, is), _) => {
                self.load(*load, *mask);
                self.compare(*is, sense);
                self.jumps.push((self.lines.len(), label));
                self.lines.push((JUMP, 0, 0, 0));
            }
        }
    }

    fn load(&mut self, load: Load, mask: u32) {
        match load {
            Load::Word(at) => self.lines.push((LOAD_WORD, 0, 0, at)),
            Load::Half(at) => self.lines.push((LOAD_HALF, 0, 0, at)),
            Load::Byte(at) => self.lines.push((LOAD_BYTE, 0, 0, at)),
            Load::Len => self.lines.push((LOAD_LEN, 0, 0, 0)),
            Load::Behind(at, header) => {
                self.lines.push((LOAD_HEADER_LEN, 0, 0, header));
                self.lines.push((LOAD_HALF_AT_X, 0, 0, header + at));
            }
        }
        if mask != u32::MAX {
            self.lines.push((AND, 0, 0, mask));
        }
    }

    /// The next instruction is carried out if it is `sense`, else skipped.
    fn compare(&mut self, is: Is, sense: bool) {
        let (code, k) = match is {
            Is::Equal(k) => (JUMP_EQUAL, k),
            Is::AtLeast(k) => (JUMP_AT_LEAST, k),
            Is::Above(k) => (JUMP_ABOVE, k),
            Is::Some(k) => (JUMP_SOME, k),
        };
        self.lines.push((code, u8::from(!sense), u8::from(sense), k));
    }
}
