//! What pictures are drawn with: text, boxes, lines and marks at places in pixels, and the panel of bars that most of a picture is.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The switch.
pub const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
/// Whatever else.
pub const THEIRS: RGBColor = RGBColor(0xb4, 0xb9, 0xc1);
/// What does not count.
pub const INVALID: RGBColor = RGBColor(0xf0, 0xdc, 0xdc);
/// Text and marks.
pub const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
/// What explains.
pub const MUTED: RGBColor = RGBColor(0x66, 0x6e, 0x79);
/// What separates.
pub const FAINT: RGBColor = RGBColor(0xe6, 0xe8, 0xec);
/// A promise that is kept.
pub const KEPT: RGBColor = RGBColor(0x1a, 0x7f, 0x37);
/// One that is not.
pub const BROKEN: RGBColor = RGBColor(0xb4, 0x23, 0x18);
/// What is promised, and what others reach.
pub const GOAL: RGBColor = RGBColor(0xd0, 0x70, 0x0b);

/// plotters takes the height of a line where an SVG has that of its letters.
const LINE_A_LETTER: f64 = 1.24;

/// A picture that is being drawn.
pub struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

impl std::fmt::Debug for Canvas<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Canvas")
    }
}

/// Which of a text's ends is where it is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its first letter.
    Left,
    /// Its middle.
    Middle,
    /// Its last letter.
    Right,
}

/// How text looks.
#[derive(Clone, Copy, Debug)]
pub struct Pen {
    /// Height of its letters, pixels.
    pub px: f64,
    /// Its color.
    pub color: RGBColor,
    /// Whether it is bold.
    pub is_bold: bool,
    /// Where it stands.
    pub anchor: Anchor,
}

impl Pen {
    /// From the left, not bold.
    pub const fn new(px: f64, color: RGBColor) -> Self {
        Self { px, color, is_bold: false, anchor: Anchor::Left }
    }

    /// The same, bold.
    pub const fn bold(self) -> Self {
        Self { is_bold: true, ..self }
    }

    /// The same, its end given.
    pub const fn right(self) -> Self {
        Self { anchor: Anchor::Right, ..self }
    }

    /// The same, its middle given.
    pub const fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }
}

/// An SVG of this size.
pub fn picture(
    size: (i32, i32),
    draw: impl FnOnce(&Canvas<'_>) -> Result<(), String>,
) -> Result<String, String> {
    let mut text = String::new();
    {
        let canvas = Canvas(
            SVGBackend::with_string(&mut text, (size.0.max(1) as u32, size.1.max(1) as u32))
                .into_drawing_area(),
        );
        canvas.0.fill(&WHITE).map_err(said)?;
        draw(&canvas)?;
        canvas.0.present().map_err(said)?;
    }
    Ok(text)
}

fn said<E: std::fmt::Debug>(error: E) -> String {
    format!("the picture: {error:?}")
}

impl Canvas<'_> {
    /// Text whose middle is at this height.
    pub fn text(&self, text: &str, at: (i32, i32), pen: Pen) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let style = if pen.is_bold { FontStyle::Bold } else { FontStyle::Normal };
        let anchor = match pen.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let font = ("sans-serif", pen.px * LINE_A_LETTER).into_font().style(style);
        let style = font.color(&pen.color).pos(Pos::new(anchor, VPos::Center));
        self.0.draw(&Text::new(text.to_owned(), at, style)).map_err(said)
    }

    /// A box from its upper left to its lower right.
    pub fn fill(&self, corners: [(i32, i32); 2], color: RGBColor) -> Result<(), String> {
        self.0.draw(&Rectangle::new(corners, color.filled())).map_err(said)
    }

    /// A line of this width.
    pub fn line(&self, ends: [(i32, i32); 2], color: RGBColor, width: u32) -> Result<(), String> {
        self.0.draw(&PathElement::new(ends.to_vec(), color.stroke_width(width))).map_err(said)
    }

    /// A disc.
    pub fn dot(&self, at: (i32, i32), radius: i32, color: RGBColor) -> Result<(), String> {
        self.0.draw(&Circle::new(at, radius, color.filled())).map_err(said)
    }

    /// A square on its corner, empty.
    pub fn diamond(&self, (x, y): (i32, i32), radius: i32, color: RGBColor) -> Result<(), String> {
        let corners = |r: i32| vec![(x - r, y), (x, y - r), (x + r, y), (x, y + r)];
        self.0.draw(&Polygon::new(corners(radius), color.filled())).map_err(said)?;
        self.0.draw(&Polygon::new(corners(radius - 2), WHITE.filled())).map_err(said)
    }
}

/// Bars below each other, with what is to be said of each in columns beside it.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// The question.
    pub title: String,
    /// Whether what was promised holds: in words, and whether it is so; none if it is not known.
    pub verdict: Option<(String, Option<bool>)>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// Of the columns.
    pub heads: Vec<String>,
    /// The answers.
    pub bars: Vec<Bar>,
    /// What labels have of the width.
    pub labels_px: i32,
    /// A value that all are held against, if there is one.
    pub line: Option<f64>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Whose.
    pub label: String,
    /// How long it is; nothing is drawn of what is not known.
    pub value: Option<f64>,
    /// Its color.
    pub color: RGBColor,
    /// How far the rounds were from each other, or another value further on.
    pub range: Option<(f64, f64)>,
    /// What is promised.
    pub limit: Option<f64>,
    /// What somebody else reaches.
    pub goal: Option<f64>,
    /// A thin bar below it.
    pub below: Option<f64>,
    /// In the columns.
    pub cells: Vec<String>,
}

impl Bar {
    /// Nothing but a bar.
    pub fn new(label: String, value: Option<f64>, color: RGBColor) -> Self {
        let (range, limit, goal, below) = (None, None, None, None);
        Self {
            label,
            value: value.filter(|value| value.is_finite()),
            color,
            range,
            limit,
            goal,
            below,
            cells: Vec::new(),
        }
    }

    fn most(&self) -> f64 {
        let all = [self.value, self.range.map(|range| range.1), self.limit, self.goal, self.below];
        all.into_iter().flatten().filter(|value| value.is_finite()).fold(0.0, f64::max)
    }
}

const TITLE: i32 = 26;
const NOTE: i32 = 17;
const HEADS: i32 = 18;
const ROW: i32 = 24;
const BELOW: i32 = 22;
/// Of each column.
const COLUMN: i32 = 74;
/// Between bars and columns.
const GAP: i32 = 8;
/// Of values that are all nothing: so that none is divided by it.
const TINY: f64 = 1e-9;

impl Panel {
    /// Pixels.
    pub fn height(&self) -> i32 {
        let heads = if self.heads.is_empty() || self.bars.is_empty() { 0 } else { HEADS };
        TITLE + NOTE * self.notes.len() as i32 + heads + ROW * self.bars.len() as i32 + BELOW
    }

    /// Draws it, its upper left corner here.
    pub fn draw(&self, canvas: &Canvas<'_>, (left, top): (i32, i32), width: i32) -> Result<(), String> {
        let right = left + width;
        canvas.text(&self.title, (left, top + 10), Pen::new(15.0, INK).bold())?;
        if let Some((words, holds)) = &self.verdict {
            let color = holds.map_or(MUTED, |holds| if holds { KEPT } else { BROKEN });
            canvas.text(words, (right, top + 10), Pen::new(12.0, color).bold().right())?;
        }
        let mut y = top + TITLE;
        for note in &self.notes {
            canvas.text(note, (left, y + 5), Pen::new(11.0, MUTED))?;
            y += NOTE;
        }
        let column = |n: usize| right - COLUMN * (self.heads.len() - 1 - n) as i32;
        if !self.heads.is_empty() && !self.bars.is_empty() {
            for (n, head) in self.heads.iter().enumerate() {
                canvas.text(head, (column(n), y + 7), Pen::new(11.0, MUTED).right())?;
            }
            y += HEADS;
        }
        let from = left + self.labels_px;
        let room = right - COLUMN * self.heads.len() as i32 - GAP - from;
        let most = self.bars.iter().map(Bar::most).fold(self.line.unwrap_or(0.0), f64::max).max(TINY);
        let x = |value: f64| from + (value / most * f64::from(room)).round() as i32;
        if let Some(line) = self.line {
            let end = y + ROW * self.bars.len() as i32;
            canvas.line([(x(line), y - 2), (x(line), end - 4)], GOAL, 1)?;
        }
        for bar in &self.bars {
            canvas.line([(left, y + ROW - 3), (right, y + ROW - 3)], FAINT, 1)?;
            draw_bar(canvas, bar, (left, y), x)?;
            for (n, cell) in bar.cells.iter().take(self.heads.len()).enumerate() {
                let pen = Pen::new(12.0, INK).right();
                let pen = if n == 0 { pen.bold() } else { pen };
                canvas.text(cell, (column(n), y + 10), pen)?;
            }
            y += ROW;
        }
        Ok(())
    }
}

/// A bar's row, its upper left corner here; `x` says where values are.
fn draw_bar(
    canvas: &Canvas<'_>,
    bar: &Bar,
    (left, top): (i32, i32),
    x: impl Fn(f64) -> i32,
) -> Result<(), String> {
    let middle = top + 10;
    let pen = Pen::new(12.0, INK);
    canvas.text(&bar.label, (left, middle), if bar.color == OURS { pen.bold() } else { pen })?;
    let (upper, lower) = if bar.below.is_some() { (top + 1, top + 13) } else { (top + 3, top + 17) };
    if let Some(value) = bar.value {
        // Of what is nothing there is a line to be seen.
        canvas.fill([(x(0.0), upper), (x(value).max(x(0.0) + 2), lower)], bar.color)?;
    }
    if let Some(below) = bar.below {
        canvas.fill([(x(0.0), lower + 1), (x(below), lower + 6)], THEIRS)?;
    }
    if let Some((least, most)) = bar.range {
        canvas.line([(x(least), middle), (x(most), middle)], INK, 1)?;
        for end in [least, most] {
            canvas.line([(x(end), middle - 3), (x(end), middle + 3)], INK, 1)?;
        }
    }
    if let Some(limit) = bar.limit {
        canvas.line([(x(limit), top - 1), (x(limit), top + 19)], INK, 2)?;
    }
    bar.goal.map_or(Ok(()), |goal| canvas.diamond((x(goal), middle), 6, GOAL))
}

/// Numbers of more than four digits as people write them, with a thin space.
pub fn grouped(text: &str) -> String {
    let (mut out, mut digits) = (String::new(), String::new());
    let put = |out: &mut String, digits: &mut String| {
        let first = if digits.len() < 4 { digits.len() } else { (digits.len() + 2) % 3 + 1 };
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && n >= first && (n - first).is_multiple_of(3) {
                out.push('\u{202f}');
            }
            out.push(digit);
        }
        digits.clear();
    };
    for c in text.chars() {
        match c.is_ascii_digit() {
            true => digits.push(c),
            false => {
                put(&mut out, &mut digits);
                out.push(c);
            }
        }
    }
    put(&mut out, &mut digits);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    #[test]
    fn numbers_are_grouped_and_words_are_left_alone() {
        assert_eq!(grouped("1000000 routes, 64 B"), "1\u{202f}000\u{202f}000 routes, 64 B");
        assert_eq!(grouped("10000 rules of 999"), "10\u{202f}000 rules of 999");
        assert_eq!(grouped("100000"), "100\u{202f}000");
        assert_eq!(grouped("1000"), "1\u{202f}000");
        assert_eq!(grouped("L3"), "L3");
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_what_is_unknown_has_none() {
        let bar = |value| Bar::new("bar".into(), value, OURS);
        let bars = vec![bar(Some(1.0)), bar(Some(2.0)), bar(None), bar(Some(f64::NAN))];
        let panel = Panel { title: "which".into(), bars, labels_px: 100, ..Panel::default() };
        let text = picture((508, panel.height()), |canvas| panel.draw(canvas, (0, 0), 508)).unwrap();
        let mut widths: Vec<u32> = Vec::new();
        for line in text.lines().filter(|line| line.contains("#1F6FB4")) {
            let width = line.split("width=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            widths.push(width.parse().unwrap());
        }
        assert_eq!(widths, [200, 400], "{text}");
    }
}
