//! Numbers that were read while the text was checked.
//!
//! Most requests are one large array of numbers whose type is known beforehand. Those go into
//! tensor memory in the first pass; the second finds them there.

use super::{
    number::{Conversion, FromNumber},
    scan::{Collect, SyntaxError},
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
