//! What becomes of characters before a text is split: BERT's normaliser, lazily, one character at a time.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory as C, GeneralCategoryGroup as G, UnicodeGeneralCategory};

/// The steps of BERT's normaliser, in the order in which they are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextRules {
    /// Control characters vanish.
    pub clean: bool,
    /// Each CJK ideograph is a word of its own.
    pub spaced_ideographs: bool,
    /// Decomposes characters and drops their marks.
    pub strip_accents: bool,
    /// Small letters for all.
    pub lowercase: bool,
}

impl TextRules {
    /// The characters of `text` under these rules.
    pub(super) fn apply<'a>(self, text: &'a str) -> Box<dyn Iterator<Item = char> + 'a> {
        let mut characters: Box<dyn Iterator<Item = char> + 'a> = Box::new(text.chars());
        if self.clean {
            characters = Box::new(characters.filter(|&c| !is_control(c)));
        }
        if self.spaced_ideographs {
            characters = Box::new(characters.flat_map(|c| {
                let space = is_ideograph(c).then_some(' ');
                space.into_iter().chain([c]).chain(space)
            }));
        }
        if self.strip_accents {
            let decomposed = characters.nfd().filter(|c| c.general_category() != C::NonspacingMark);
            characters = Box::new(decomposed);
        }
        if self.lowercase {
            characters = Box::new(characters.flat_map(char::to_lowercase));
        }
        characters
    }
}

/// Control, format and private characters, what stands for undecodable bytes; neither blanks nor code points that no
/// character has.
fn is_control(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\0' | '\u{fffd}' => true,
        ' '..='~' => false,
        _ => c.general_category_group() == G::Other && c.general_category() != C::Unassigned,
    }
}

/// The blocks of CJK ideographs that BERT names (the end of extension E as `tokenizers` has it).
fn is_ideograph(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x2_0000..=0x2_a6df
            | 0x2_a700..=0x2_b73f
            | 0x2_b740..=0x2_b81f
            | 0x2_b920..=0x2_ceaf
            | 0xf900..=0xfaff
            | 0x2_f800..=0x2_fa1f
    )
}

/// Words of their own: every ASCII character that is neither letter, digit nor blank, and Unicode's punctuation.
pub(super) fn is_punctuation(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_punctuation() } else { c.general_category_group() == G::Punctuation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_apply_one_by_one() {
        let none = TextRules::default();
        let apply = |rules: TextRules, text: &str| rules.apply(text).collect::<String>();
        let text = "A\u{c4}\u{0}\u{200d}\t\u{4e2d}\u{130}";
        assert_eq!(apply(none, text), text);
        assert_eq!(apply(TextRules { clean: true, ..none }, text), "A\u{c4}\t\u{4e2d}\u{130}");
        assert_eq!(apply(TextRules { clean: true, ..none }, "\u{e000}\u{378}\u{fffd}\r"), "\u{378}\r");
        assert_eq!(apply(TextRules { spaced_ideographs: true, ..none }, "a\u{4e2d}b"), "a \u{4e2d} b");
        assert_eq!(apply(TextRules { strip_accents: true, ..none }, "\u{c4}\u{130}\u{1e69}"), "AIs");
        assert_eq!(apply(TextRules { lowercase: true, ..none }, "\u{c4}\u{130}"), "\u{e4}i\u{307}");
    }

    #[test]
    fn punctuation_is_ascii_symbols_and_unicode_punctuation() {
        for c in ['!', '$', '^', '`', '~', '\u{2014}', '\u{3002}', '\u{bf}'] {
            assert!(is_punctuation(c), "{c}");
        }
        for c in ['a', '1', ' ', '\u{20ac}', '\u{b0}', '\u{1f600}'] {
            assert!(!is_punctuation(c), "{c}");
        }
    }
}
