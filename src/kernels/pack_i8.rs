//! Weights of 8 bits rearranged once at load: a lane holds four channels of a column.
//!
//! As in [`super::pack`], filters are read where they are stored. One whose output channels come first holds four channels of a
//! column side by side, at least those of a single tap: they are turned as words.

use super::aligned::AlignedFloats;
use super::conv::Conv2d;
use super::conv_i8::tap_shape;
use super::filter::{Filter, FilterOrder};
use super::pack::TURNED;
use super::table::Kernels;
use super::threads::{SendPtr, Threads};

/// Elements below which a second thread costs more than it brings.
const PARALLEL: usize = 64 * 1024;

/// For every output channel the sum of its weights, and that of their magnitudes. As they lie in memory.
pub(super) fn column_sums(filter: Filter<'_>, out_channels: usize) -> (Vec<i32>, Vec<u32>) {
    let (mut sums, mut magnitudes) = (vec![0i32; out_channels], vec![0u32; out_channels]);
    let signed = |byte: u8| i32::from(byte as i8);
    match filter.order {
        FilterOrder::TapsFirst => {
            for row in filter.bytes.chunks_exact(out_channels.max(1)) {
                for ((sum, magnitude), &weight) in sums.iter_mut().zip(&mut magnitudes).zip(row) {
                    *sum += signed(weight);
                    *magnitude += signed(weight).unsigned_abs();
                }
            }
        }
        FilterOrder::OutFirst => {
            let length = filter.bytes.len().checked_div(out_channels).unwrap_or(0);
            let own = filter.bytes.chunks_exact(length.max(1));
            for ((sum, magnitude), own) in sums.iter_mut().zip(&mut magnitudes).zip(own) {
                // So few sum up in 16 bits, of which a vector holds more.
                for few in own.chunks(128) {
                    let narrow = || few.iter().map(|&weight| i16::from(weight as i8));
                    *sum += i32::from(narrow().sum::<i16>());
                    *magnitude += u32::from(narrow().map(i16::unsigned_abs).sum::<u16>());
                }
            }
        }
    }
    (sums, magnitudes)
}

/// The panels of every group, of a checked geometry and filter.
pub(super) fn pack_groups(
    kernels: &Kernels,
    conv: &Conv2d,
    filter: Filter<'_>,
    threads: &Threads,
) -> Vec<AlignedFloats> {
    let (taps, depth) = tap_shape(conv);
    let in_words = filter.order == FilterOrder::OutFirst && (taps, depth) == (conv.taps(), conv.depth());
    let sorted;
    let wide = kernels.lanes * kernels.tile_vectors;
    let source = if in_words && depth.is_multiple_of(4) && taps * wide <= TURNED {
        Source::Words(filter.bytes)
    } else if filter.order == FilterOrder::TapsFirst {
        Source::Rows(filter.bytes)
    } else {
        sorted = filter.sorted::<1>(conv).concat();
        Source::Rows(&sorted)
    };
    let pack = |group: usize| Group { kernels, conv, source, group, taps, depth }.pack(threads);
    (0..conv.groups).map(pack).collect()
}

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A row for every tap and channel, of all output channels.
    Rows(&'a [u8]),
    /// A row for every output channel, of all channels and taps; the channels are a multiple of four.
    Words(&'a [u8]),
}

struct Group<'a> {
    kernels: &'a Kernels,
    conv: &'a Conv2d,
    source: Source<'a>,
    group: usize,
    taps: usize,
    depth: usize,
}

/// Columns of a group.
#[derive(Clone, Copy)]
struct Panel {
    first: usize,
    count: usize,
}

impl Group<'_> {
    fn pack(&self, threads: &Threads) -> AlignedFloats {
        let kernels = self.kernels;
        let n = self.conv.out_channels / self.conv.groups;
        let (lanes, wide) = (kernels.lanes, kernels.lanes * kernels.tile_vectors);
        // Lanes of a column.
        let rows = self.taps * self.steps() * self.together();
        let mut packed = AlignedFloats::zeroed(rows * n.next_multiple_of(lanes));
        let to = SendPtr(packed.as_mut_slice().as_mut_ptr());
        let pack = |index: usize| {
            let first = index * wide;
            let count = (n - first).min(wide);
            let length = rows * count.next_multiple_of(lanes);
            // SAFETY: panels lie one behind the other, all but the last `wide` columns wide, and each is packed by one call.
            let to = unsafe { std::slice::from_raw_parts_mut(to.get().add(rows * first), length) };
            self.pack_panel(Panel { first, count }, to);
        };
        let panels = n.div_ceil(wide);
        match rows * n * 4 < PARALLEL {
            true => (0..panels).for_each(pack),
            false => threads.for_each(panels, pack),
        }
        packed
    }

    /// Groups of four channels that a column has side by side.
    fn together(&self) -> usize {
        self.kernels.order_i8.channels / 4
    }

    /// Of all channels.
    fn steps(&self) -> usize {
        self.depth.div_ceil(4 * self.together())
    }

    fn pack_panel(&self, panel: Panel, packed: &mut [f32]) {
        match self.source {
            Source::Rows(bytes) => self.pack_rows(bytes, panel, packed),
            Source::Words(bytes) => self.pack_words(bytes, panel, packed),
        }
    }

    /// Where four channels of a tap go: the lane of the first column.
    fn lane(&self, tap: usize, four: usize, panel: Panel) -> usize {
        let together = self.together();
        let row = together * panel.count.next_multiple_of(self.kernels.lanes);
        (tap * self.steps() + four / together) * row + four % together
    }

    fn pack_rows(&self, bytes: &[u8], panel: Panel, packed: &mut [f32]) {
        let Panel { first, count } = panel;
        let (depth, out) = (self.depth, self.conv.out_channels);
        let column = self.group * (out / self.conv.groups) + first;
        let nothing = vec![0u8; count];
        for tap in 0..self.taps {
            for four in 0..depth.div_ceil(4) {
                let channels: [&[u8]; 4] = std::array::from_fn(|place| match four * 4 + place {
                    channel if channel < depth => &bytes[(tap * depth + channel) * out + column..][..count],
                    _ => &nothing[..],
                });
                let to = &mut packed[self.lane(tap, four, panel)..];
                match self.together() {
                    1 => join_bytes(channels, to.iter_mut()),
                    together => join_bytes(channels, to.iter_mut().step_by(together)),
                }
            }
        }
    }

    fn pack_words(&self, bytes: &[u8], panel: Panel, packed: &mut [f32]) {
        let Panel { first, count } = panel;
        let (taps, fours) = (self.taps, self.depth / 4);
        let length = taps * self.depth;
        let column = self.group * (self.conv.out_channels / self.conv.groups) + first;
        let own = &bytes[column * length..][..count * length];
        let turn = |from: usize, rows: usize, to: &mut [f32], width: usize| {
            assert!(from + rows <= length / 4 && width >= count && to.len() >= rows * width);
            let words = own.as_ptr().cast::<f32>().wrapping_add(from);
            // SAFETY: `own` has `count` columns of `length` bytes, and the slice the rows; both were just checked. Words are
            // read at any address.
            unsafe { (self.kernels.turn)(words, length / 4, count, rows, to.as_mut_ptr(), width) };
        };
        if taps == 1 && self.together() == 1 {
            return turn(0, fours, packed, count.next_multiple_of(self.kernels.lanes));
        }
        let mut turned = [0.0f32; TURNED];
        let chunk = TURNED / (taps * count);
        for start in (0..fours).step_by(chunk) {
            let end = fours.min(start + chunk);
            turn(start * taps, (end - start) * taps, &mut turned, count);
            for four in start..end {
                // Four channels with all their taps, a word of a column for every tap.
                let words = &turned[(four - start) * taps * count..][..taps * count];
                for tap in 0..taps {
                    let channels: [(&[f32], usize); 4] = std::array::from_fn(|channel| {
                        let byte = channel * taps + tap;
                        (&words[byte / 4 * count..][..count], byte % 4 * 8)
                    });
                    let to = &mut packed[self.lane(tap, four, panel)..];
                    match self.together() {
                        1 => pick_bytes(channels, to.iter_mut()),
                        together => pick_bytes(channels, to.iter_mut().step_by(together)),
                    }
                }
            }
        }
    }
}

/// A byte of each word as one lane; with the words, the bits in front of it.
#[inline(always)]
fn pick_bytes<'a>(channels: [(&[f32], usize); 4], lanes: impl Iterator<Item = &'a mut f32>) {
    let [(a, bits_a), (b, bits_b), (c, bits_c), (d, bits_d)] = channels;
    for ((((to, a), b), c), d) in lanes.zip(a).zip(b).zip(c).zip(d) {
        let byte = |word: &f32, bits: usize| word.to_bits() >> bits & 255;
        let low = byte(a, bits_a) | byte(b, bits_b) << 8;
        *to = f32::from_bits(low | byte(c, bits_c) << 16 | byte(d, bits_d) << 24);
    }
}

/// Four channels of a column as one lane.
#[inline(always)]
fn join_bytes<'a>([a, b, c, d]: [&[u8]; 4], lanes: impl Iterator<Item = &'a mut f32>) {
    for ((((to, &a), &b), &c), &d) in lanes.zip(a).zip(b).zip(c).zip(d) {
        *to = f32::from_bits(u32::from_le_bytes([a, b, c, d]));
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::available;
    use super::*;

    /// `[out, depth, taps]` as it stands and sorted: both give the same lanes and sums.
    #[test]
    fn both_orders_are_packed_alike() {
        let cases = [
            ([1, 1], [64, 70], 1),
            ([3, 3], [8, 33], 1),
            ([3, 3], [24, 130], 2),
            ([5, 1], [6, 20], 1),
            ([3, 3], [3, 40], 1),
            ([11, 13], [4, 64], 1),
        ];
        for ([height, width], [from, to], groups) in cases {
            let conv = Conv2d {
                kernel_height: height,
                kernel_width: width,
                groups,
                ..Conv2d::pointwise(1, [20, 20], [from, to])
            };
            let elements = conv.weight_elements().unwrap();
            let bytes: Vec<u8> = (0..elements).map(|index| (index * index * 7 + index / 3) as u8).collect();
            let out_first = Filter { bytes: &bytes, order: FilterOrder::OutFirst };
            let (taps, depth) = (height * width, from / groups);
            let mut sorted = vec![0u8; elements];
            for (index, &byte) in bytes.iter().enumerate() {
                let (out, channel, tap) = (index / (depth * taps), index / taps % depth, index % taps);
                sorted[(tap * depth + channel) * to + out] = byte;
            }
            let taps_first = Filter { bytes: &sorted, order: FilterOrder::TapsFirst };
            assert_eq!(out_first.sorted::<1>(&conv).concat(), sorted);
            assert_eq!(column_sums(out_first, to), column_sums(taps_first, to));
            for kernels in available() {
                for threads in [Threads::single(), Threads::new(2)] {
                    let packed = |filter| {
                        let groups = pack_groups(kernels, &conv, filter, &threads);
                        let bits = |group: &AlignedFloats| {
                            group.as_slice().iter().map(|lane| lane.to_bits()).collect::<Vec<_>>()
                        };
                        groups.iter().map(bits).collect::<Vec<_>>()
                    };
                    assert!(packed(out_first) == packed(taps_first), "{kernels:?} {conv:?}");
                }
            }
        }
    }
}
