//! Filters of convolutions where they are stored: packing reads them in either order and at any address.

use super::conv::Conv2d;
use super::error::{KernelError, expect_length, product as size_of_product};
use super::pack::{Columns, PanelWidth};
use crate::tensor::buffer::{Plain, bytes_of};
use crate::tensor::computed::Panels;

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

/// A filter as it is stored.
#[derive(Clone, Copy)]
pub enum StoredFilter<'a> {
    /// Element after element.
    Plain(Filter<'a>),
    /// As the panels of a direct convolution, of these kernels or of others.
    Panels(&'a Panels),
}

/// The elements of a filter.
pub(super) struct Elements<'a> {
    pub(super) floats: &'a [[u8; 4]],
    /// For an input and an output channel, where the first tap stands and how far it is to the next one.
    pub(super) taps_of: Box<dyn Fn(usize, usize) -> (usize, usize) + Sync + 'a>,
    /// Taps are neighbours, and so are the input channels of an output channel.
    pub(super) by_output: bool,
}

impl<'a> StoredFilter<'a> {
    /// Fails when there are more or fewer elements than those of the filter of `conv`.
    pub(super) fn elements(self, kernel: &'static str, conv: &Conv2d) -> Result<Elements<'a>, KernelError> {
        let conv = *conv;
        match self {
            StoredFilter::Plain(filter) => {
                filter.check(kernel, &conv, size_of::<f32>())?;
                Ok(Elements {
                    floats: filter.bytes.as_chunks().0,
                    taps_of: Box::new(move |channel, column| filter.taps_of(&conv, channel, column)),
                    by_output: filter.order == FilterOrder::OutFirst,
                })
            }
            StoredFilter::Panels(stored) => {
                let (k, n, width) = (stored.k, stored.n, PanelWidth::of_stored(stored));
                let floats = width.floats(k, n).filter(|_| width.is_possible());
                let rows = size_of_product(kernel, "weights", &[conv.taps(), conv.in_channels])?;
                if (k, n, stored.transposed) != (rows, conv.out_channels, false) {
                    let problem = "are panels of another matrix";
                    return Err(KernelError::Descriptor { kernel, argument: "weights", problem });
                }
                let bytes = stored.stored.stored_bytes();
                let expected = floats.map_or(usize::MAX, |floats| floats * size_of::<f32>());
                expect_length(kernel, "weights", expected, bytes.len())?;
                let panels = width.over(n);
                let taps_of = move |channel, column| {
                    let (start, row) = panels.column(k, column);
                    (start + channel * row, conv.in_channels * row)
                };
                Ok(Elements { floats: bytes.as_chunks().0, taps_of: Box::new(taps_of), by_output: false })
            }
        }
    }
}
