//! Counted stacks as a picture: a box for each function, as wide as the time in it, above its
//! caller. Browsers show a box's share when the pointer rests on it.

use std::{collections::BTreeMap, fmt::Write as _};

use super::stacks::Stacks;

const WIDTH: f64 = 1600.0;
const ROW: f64 = 17.0;
const MARGIN: f64 = 10.0;
/// About the width of a letter at the size that is used.
const LETTER: f64 = 6.6;
/// Boxes that are narrower are left out.
const NARROWEST: f64 = 0.3;

/// A function in one place of the call tree.
#[derive(Default)]
struct Frame<'a> {
    samples: u64,
    callees: BTreeMap<&'a str, Frame<'a>>,
}

impl<'a> Frame<'a> {
    fn add(&mut self, stack: &'a [String], samples: u64) {
        self.samples += samples;
        if let Some((function, rest)) = stack.split_first() {
            self.callees.entry(function).or_default().add(rest, samples);
        }
    }

    fn depth(&self) -> usize {
        self.callees.values().map(|callee| 1 + callee.depth()).max().unwrap_or(0)
    }
}

/// The picture, as SVG.
pub(super) fn draw(stacks: &Stacks) -> String {
    let mut all = Frame::default();
    for (stack, samples) in stacks {
        all.add(stack, *samples);
    }
    let height = ROW * (all.depth() + 1) as f64 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"11\">\n"
    );
    let picture = Picture { total: all.samples, height };
    picture.frame(&mut svg, "all", &all, 0, MARGIN);
    svg.push_str("</svg>\n");
    svg
}

struct Picture {
    total: u64,
    height: f64,
}

impl Picture {
    fn frame(&self, svg: &mut String, name: &str, frame: &Frame<'_>, level: usize, left: f64) {
        let share = frame.samples as f64 / self.total as f64;
        let width = share * (WIDTH - 2.0 * MARGIN);
        if width < NARROWEST {
            return;
        }
        let top = self.height - MARGIN - ROW * (level + 1) as f64;
        let (title, percent) = (escaped(name), share * 100.0);
        let letters = (width / LETTER) as usize;
        let label = escaped(&name.chars().take(letters.saturating_sub(1)).collect::<String>());
        let (box_height, baseline) = (ROW - 1.0, top + ROW - 5.0);
        let (fill, text_left) = (color(name), left + 3.0);
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<g><title>{title}: {percent:.2} %</title>\
             <rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{box_height}\" \
             rx=\"2\" fill=\"{fill}\"/>\
             <text x=\"{text_left:.1}\" y=\"{baseline:.1}\">{label}</text></g>"
        );
        let mut left = left;
        for (name, callee) in &frame.callees {
            self.frame(svg, name, callee, level + 1, left);
            left += callee.samples as f64 / self.total as f64 * (WIDTH - 2.0 * MARGIN);
        }
    }
}

/// Warm colors, the same for a function wherever it is.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    format!("rgb({},{},{})", 205 + hash % 50, 90 + (hash >> 8) % 130, 40 + (hash >> 16) % 50)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_have_the_width_of_their_share() {
        let stack = |names: [&str; 2]| names.map(String::from).to_vec();
        let stacks = Stacks::from([(stack(["slot", "a<T>"]), 3), (stack(["slot", "b"]), 1)]);
        let svg = draw(&stacks);
        for title in ["all: 100.00 %", "slot: 100.00 %", "a&lt;T&gt;: 75.00 %", "b: 25.00 %"] {
            assert!(svg.contains(&format!("<title>{title}</title>")), "{title}\n{svg}");
        }
        assert!(svg.contains("width=\"1185.0\"") && svg.contains("width=\"395.0\""), "{svg}");
    }
}
