//! Numbers that were read while the text was checked.
//!
//! Most requests are one large array of numbers whose type is known beforehand. Those go into
//! tensor memory in the first pass; the second finds them there.

use super::{
    number::{Conversion, FromNumber},
    plain::Plain,
    scan::{Collect, SyntaxError},
    short::Short,
};
use crate::tensor::{AlignedVec, Element};
use std::ops::Range;

/// Collects the numbers of arrays as elements of type `T`.
pub struct Collector<T: Element> {
    conversion: Conversion,
    elements: AlignedVec<T>,
    /// Which elements lie in the arrays near the top; those that are still open end at the end.
    extents: Vec<(u32, Range<usize>)>,
    /// Cleared by the first number that is no `T`.
    complete: bool,
}

impl<T: Element + FromNumber> Collector<T> {
    /// Nothing yet.
    pub fn new(conversion: Conversion) -> Self {
        Self { conversion, elements: AlignedVec::new(), extents: Vec::new(), complete: true }
    }

    /// The elements within the container of that number, if all numbers could be taken.
    pub(super) fn within(&self, container: u32) -> Option<Range<usize>> {
        let extent = self.extents.iter().find(|(number, _)| *number == container);
        extent.map(|(_, range)| range.clone()).filter(|_| self.complete)
    }

    /// Hands over all elements; nothing is collected any more.
    pub fn take_elements(&mut self) -> AlignedVec<T> {
        self.complete = false;
        std::mem::take(&mut self.elements)
    }

    /// All elements.
    pub fn elements(&self) -> &[T] {
        self.elements.as_slice()
    }
}

/// How many elements a text of `length` bytes will have, if the rest of it is like the first `at` bytes, which had `len`.
fn expected(len: usize, at: usize, length: usize) -> usize {
    // The first few say little, and no element takes fewer than two bytes.
    if len < 16 { 0 } else { (len.saturating_mul(length) / at.max(1) + 16).min(length / 2 + 1) }
}

impl<T: Element + FromNumber> Collect for Collector<T> {
    #[inline(always)]
    fn number(&mut self, text: &[u8], at: usize) -> Result<usize, SyntaxError> {
        let (element, end) = T::check_number(text, at, self.conversion)?;
        match element {
            Some(element) if self.complete => {
                let len = self.elements.len();
                let expected = || expected(len, at, text.len());
                self.complete = self.elements.push_expecting(element, expected).is_ok();
            }
            _ => self.complete = false,
        }
        Ok(end)
    }

    const TAKES_SHORT: bool = true;

    fn short_numbers(&mut self, text: &[u8], at: usize, short: &Short<'_>) -> usize {
        if !self.complete {
            return 0;
        }
        let conversion = self.conversion;
        let take = |slots: &mut [T]| {
            let mut taken = 0;
            for (slot, (look, length)) in slots.iter_mut().zip(short.looks()) {
                let plain = Plain::read_short(look, length);
                let Some(value) = plain.and_then(|plain| T::from_plain(plain, conversion)) else { break };
                *slot = value;
                taken += 1;
            }
            taken
        };
        let len = self.elements.len();
        let appended = self.elements.append_with(short.len(), || expected(len, at, text.len()), take);
        self.complete = appended.is_ok();
        self.elements.len() - len
    }

    fn open(&mut self, container: u32) {
        let start = self.elements.len();
        self.extents.push((container, start..usize::MAX));
    }

    fn close(&mut self, container: u32) {
        if let Some((_, range)) = self.extents.iter_mut().rev().find(|(number, _)| *number == container) {
            range.end = self.elements.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::{Document, Value};
    use proptest::{collection::vec, prelude::*, sample};
    use std::{fmt::Debug, str::FromStr};

    /// Whether all numbers of a text are collected as they are read one by one, by other code, and what is refused is
    /// refused with the same words at the same place.
    fn collects<T: Element + FromNumber + PartialEq + Debug>(text: &str, oracle: impl Fn(&str) -> Option<T>) {
        let mut collector = Collector::<T>::new(Conversion::Exact);
        let collected = Document::parse_collecting(text.as_bytes(), &mut collector);
        let checked = Document::parse(text.as_bytes());
        let (collected, checked) = match (collected, checked) {
            (Ok(collected), Ok(checked)) => (collected, checked),
            (collected, checked) => {
                assert_eq!(collected.err(), checked.err(), "{text}");
                return;
            }
        };
        let extents = |document: &Document<'_>| -> Vec<_> {
            document.containers.iter().map(|own| (own.end, own.count, own.next)).collect()
        };
        assert_eq!(extents(&collected), extents(&checked), "{text}");
        let mut expected = Some(Vec::new());
        leaves(checked.root(), &mut |leaf| match (oracle(leaf), &mut expected) {
            (Some(value), Some(values)) => values.push(value),
            _ => expected = None,
        });
        assert_eq!(collector.complete, expected.is_some(), "{text}");
        if let Some(expected) = expected {
            assert_eq!(format!("{:?}", collector.elements()), format!("{expected:?}"), "{text}");
        }
    }

    fn leaves(value: Value<'_>, take: &mut impl FnMut(&str)) {
        let mut own = 0;
        for item in value.items() {
            own += 1;
            leaves(item, take);
        }
        if own == 0 && value.kind() == crate::api::json::Kind::Number {
            take(value.source());
        }
    }

    fn integer<T: TryFrom<i128>>(text: &str) -> Option<T> {
        i128::from_str(text).ok()?.try_into().ok()
    }

    fn all_types(text: &str) {
        collects::<f32>(text, |leaf| leaf.parse::<f64>().ok().map(|value| value as f32));
        collects::<f64>(text, |leaf| leaf.parse().ok());
        collects::<i32>(text, integer);
        collects::<i64>(text, integer);
        collects::<u8>(text, integer);
    }

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            20 => "-?[1-9][0-9]{0,2}",
            5 => "0|-0|-?[1-9][0-9]{3,9}",
            15 => "-?[0-9]\\.[0-9]{1,6}",
            5 => "-?[1-9][0-9]{1,3}\\.[0-9]{1,4}",
            3 => "-?[0-9]\\.[0-9]{7,22}",
            1 => "-?[1-9][0-9]{0,4}(\\.[0-9]{1,4})?[eE][-+]?[0-9]{1,2}",
        ]
    }

    fn separator() -> impl Strategy<Value = &'static str> {
        sample::select(vec![", ", ", ", ", ", ",", ",", "], [", "], [", "],[", " , ", ",\n", "] , [", ",  "])
    }

    proptest! {
        #[test]
        fn rows_of_numbers(parts in vec((number(), separator()), 1..80), alike in 0usize..4) {
            let mut text = String::from("[[");
            for (number, separator) in &parts {
                // Most texts separate all their numbers alike.
                text += number;
                text += if alike > 0 { parts[0].1 } else { separator };
            }
            text += "7]]";
            all_types(&text);
        }

        #[test]
        fn damaged_rows(
            parts in vec((number(), sample::select(vec![", ", ",", "], ["])), 30..60),
            damage in vec((any::<sample::Index>(), sample::select(b"0123456789-+.eE,[] /:N\0\x80".to_vec())), 1..4),
        ) {
            let mut bytes: Vec<u8> = b"[[".to_vec();
            for (number, separator) in &parts {
                bytes.extend_from_slice(number.as_bytes());
                bytes.extend_from_slice(separator.as_bytes());
            }
            bytes.extend_from_slice(b"7]]");
            for (place, byte) in damage {
                let place = 2 + place.index(bytes.len() - 2);
                bytes[place] = byte;
            }
            if let Ok(text) = String::from_utf8(bytes) {
                all_types(&text);
            }
        }
    }

    /// Each kind of damage at each place of a text that is read in blocks.
    #[test]
    fn damage_at_each_place() {
        for row in ["12, 7, 255", "0.5,-1.25,3.125", "1.5, 2, -0"] {
            let text = format!("[[{}]]", [row; 16].join("], ["));
            for place in 2..text.len() {
                for damage in ["0", ".", "-", "e", ",", "]", "[", " ", "/", "\0", "00", ""] {
                    let damaged = format!("{}{damage}{}", &text[..place], &text[place + 1..]);
                    collects::<f32>(&damaged, |leaf| leaf.parse::<f64>().ok().map(|value| value as f32));
                    collects::<u8>(&damaged, integer);
                }
            }
        }
    }
}
