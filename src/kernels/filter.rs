//! Filters of convolutions where they are stored: packing reads them in either order and at any address.

use super::conv::Conv2d;
use super::error::{KernelError, expect_length};
use super::pack::Columns;
use crate::tensor::buffer::{Plain, bytes_of};

/// In which order the elements of a filter are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterOrder {
    /// `[height, width, depth, out]`
    TapsFirst,
    /// `[out, depth, height, width]`
    OutFirst,
}

/// The elements of a filter, in memory that somebody else may share.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// The elements, little endian.
    pub bytes: &'a [u8],
    /// How they are sorted.
    pub order: FilterOrder,
}

impl<'a> Filter<'a> {
    /// `[height, width, depth, out]`, see [`Conv2d`].
    pub fn taps_first<T: Plain>(weights: &'a [T]) -> Filter<'a> {
        Filter { bytes: bytes_of(weights), order: FilterOrder::TapsFirst }
    }

    /// Fails when these are not the bytes of a filter of `conv` whose elements have `size` bytes.
    pub(super) fn check(&self, kernel: &'static str, conv: &Conv2d, size: usize) -> Result<(), KernelError> {
        expect_length(kernel, "weights", conv.weight_elements()?.saturating_mul(size), self.bytes.len())
    }

    /// The matrix of weights of a group: a row for every tap and channel, a column for every output channel. The geometry
    /// was checked.
    pub(super) fn columns(&self, conv: &Conv2d, group: usize) -> Columns {
        let (taps, n) = (conv.taps(), conv.out_channels / conv.groups);
        let (k, first) = (taps * conv.depth(), group * n);
        match self.order {
            FilterOrder::TapsFirst => Columns::plain(k, n, first, conv.out_channels, 1),
            FilterOrder::OutFirst => {
                Columns { k, n, offset: first * k, row_stride: taps, column_stride: k, taps }
            }
        }
    }

    /// Where the first tap of an input and an output channel stands, and how far it is to the next one, without groups.
    pub(super) fn taps_of(&self, conv: &Conv2d, channel: usize, column: usize) -> (usize, usize) {
        let (depth, width) = (conv.in_channels, conv.out_channels);
        match self.order {
            FilterOrder::TapsFirst => (channel * width + column, depth * width),
            FilterOrder::OutFirst => ((column * depth + channel) * conv.taps(), 1),
        }
    }

    /// The elements of `SIZE` bytes in the order [`FilterOrder::TapsFirst`]. The geometry was checked.
    pub(super) fn sorted<const SIZE: usize>(&self, conv: &Conv2d) -> Vec<[u8; SIZE]> {
        let elements = self.bytes.as_chunks::<SIZE>().0;
        if self.order == FilterOrder::TapsFirst {
            return elements.to_vec();
        }
        let (taps, depth) = (conv.taps(), conv.depth());
        let mut sorted = Vec::with_capacity(elements.len());
        for tap in 0..taps {
            for channel in 0..depth {
                let from = elements.get(channel * taps + tap..).unwrap_or_default();
                sorted.extend(from.iter().step_by(taps * depth));
            }
        }
        sorted
    }
}
