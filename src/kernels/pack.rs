//! Weights rearranged once at load for the matrix product.
//!
//! The columns of B `[k, n]` are cut into nearly equal panels, none wider than the register tile. A panel stores its rows one
//! after the other, so the product reads it from front to back; the columns beyond `n` are zero.
//!
//! Weights are read where they are stored, in whatever order and at whatever address: a copy that only puts them in order
//! would be written to pages that are touched for the first time, which takes longer than the packing. All threads take part.

use super::aligned::AlignedFloats;
use super::error::{KernelError, expect_length, product};
use super::product::part;
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use crate::tensor::{
    Buffer,
    buffer::{ALIGNMENT, bytes_of},
    computed::Panels as StoredPanels,
};
use std::ops::Range;

/// Elements that a thread packs at a time.
const GRAIN: usize = 32 * 1024;

/// How the second matrix of a product lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BLayout {
    /// `[k, n]`, rows contiguous.
    RowMajorKxN,
    /// `[n, k]`, rows contiguous: B is used transposed.
    RowMajorNxK,
}

/// The second matrix of a product, packed for one instruction set, with its bias.
#[derive(Clone, Debug)]
pub struct PackedB {
    panels: Memory,
    bias: Option<AlignedFloats>,
    k: usize,
    n: usize,
    width: PanelWidth,
}

/// Where panels are.
#[derive(Clone, Debug)]
enum Memory {
    Own(AlignedFloats),
    /// In a model's file.
    Stored(Buffer),
}

impl Memory {
    fn as_slice(&self) -> &[f32] {
        match self {
            Memory::Own(floats) => floats.as_slice(),
            Memory::Stored(buffer) => buffer.as_slice().unwrap_or_default(),
        }
    }
}

impl PackedB {
    /// Packs `b` (f32, `k * n` elements in `layout`) and a bias of `n` elements that is added to every row of the product.
    pub fn pack(
        kernels: &Kernels,
        k: usize,
        n: usize,
        b: &[f32],
        layout: BLayout,
        bias: Option<&[f32]>,
    ) -> Result<PackedB, KernelError> {
        PackedB::pack_stored(kernels, k, n, bytes_of(b), layout, bias, &Threads::single())
    }

    /// [`PackedB::pack`] for floats at any address, on these threads.
    pub fn pack_stored(
        kernels: &Kernels,
        k: usize,
        n: usize,
        b: &[u8],
        layout: BLayout,
        bias: Option<&[f32]>,
        threads: &Threads,
    ) -> Result<PackedB, KernelError> {
        let elements = product("pack", "b", &[k, n])?;
        expect_length("pack", "b", elements.saturating_mul(size_of::<f32>()), b.len())?;
        PackedB::pack_columns(kernels, b, Columns::of(k, n, layout), bias, threads)
    }

    /// Packs the floats of `b` that `columns` describes.
    ///
    /// # Panics
    /// Where they do not lie within `b`.
    pub(super) fn pack_columns(
        kernels: &Kernels,
        b: &[u8],
        columns: Columns,
        bias: Option<&[f32]>,
        threads: &Threads,
    ) -> Result<PackedB, KernelError> {
        let Columns { k, n, .. } = columns;
        let bias = padded_bias(kernels, n, bias)?;
        let width = PanelWidth::of(kernels);
        let mut panels = AlignedFloats::zeroed(packed_len(kernels, k, n)?);
        pack_panels(kernels, columns, b, panels.as_mut_slice(), threads);
        Ok(PackedB { panels: Memory::Own(panels), bias, k, n, width })
    }

    /// Panels that are stored already, with a bias as in [`PackedB::pack`]; `None` where these kernels need others.
    pub fn of_panels(
        kernels: &Kernels,
        stored: &StoredPanels,
        bias: Option<&[f32]>,
    ) -> Result<Option<PackedB>, KernelError> {
        let StoredPanels { k, n, .. } = *stored;
        let width = PanelWidth::of(kernels);
        let floats = stored.stored.as_slice::<f32>();
        if width != PanelWidth::of_stored(stored)
            || !stored.stored.is_aligned_to(ALIGNMENT)
            || floats.map(<[f32]>::len) != Some(packed_len(kernels, k, n)?)
        {
            return Ok(None);
        }
        let bias = padded_bias(kernels, n, bias)?;
        Ok(Some(PackedB { panels: Memory::Stored(stored.stored.clone()), bias, k, n, width }))
    }

    /// A borrowed view, which is what the product takes.
    pub fn view(&self) -> PackedView<'_> {
        PackedView {
            panels: self.panels.as_slice(),
            bias: self.bias.as_ref().map(AlignedFloats::as_slice),
            k: self.k,
            n: self.n,
            width: self.width,
        }
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        (self.panels.as_slice().len() + self.bias.as_ref().map_or(0, AlignedFloats::len)) * size_of::<f32>()
    }
}

/// The bias with zeros up to a whole vector.
pub(super) fn padded_bias(
    kernels: &Kernels,
    n: usize,
    bias: Option<&[f32]>,
) -> Result<Option<AlignedFloats>, KernelError> {
    let Some(bias) = bias else { return Ok(None) };
    expect_length("pack", "bias", n, bias.len())?;
    let mut padded = AlignedFloats::zeroed(n.next_multiple_of(kernels.lanes));
    padded.as_mut_slice()[..n].copy_from_slice(bias);
    Ok(Some(padded))
}

/// Packed weights in borrowed memory: of a [`PackedB`], or of a matrix that is computed at run time.
#[derive(Clone, Copy, Debug)]
pub struct PackedView<'a> {
    pub(super) panels: &'a [f32],
    /// Padded with zeros to whole vectors.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) width: PanelWidth,
}

impl<'a> PackedView<'a> {
    /// A view of what [`pack_into`] wrote for the same `kernels`, `k` and `n`. There is no bias.
    pub fn new(
        kernels: &Kernels,
        k: usize,
        n: usize,
        packed: &'a [f32],
    ) -> Result<PackedView<'a>, KernelError> {
        expect_length("pack", "packed", packed_len(kernels, k, n)?, packed.len())?;
        Ok(PackedView { panels: packed, bias: None, k, n, width: PanelWidth::of(kernels) })
    }
}

/// The elements that a packed `[k, n]` takes.
pub fn packed_len(kernels: &Kernels, k: usize, n: usize) -> Result<usize, KernelError> {
    // The product of the rounded size must fit as well.
    product("pack", "b", &[k, n])?;
    let padded = n.checked_next_multiple_of(kernels.lanes).ok_or(KernelError::Descriptor {
        kernel: "pack",
        argument: "n",
        problem: "describes more than can be addressed",
    })?;
    product("pack", "b", &[k, padded])
}

/// Packs `b` into `packed`, which must have [`packed_len`] elements; 64-byte alignment makes the product faster.
pub fn pack_into(
    kernels: &Kernels,
    k: usize,
    n: usize,
    b: &[f32],
    layout: BLayout,
    packed: &mut [f32],
) -> Result<(), KernelError> {
    expect_length("pack", "b", product("pack", "b", &[k, n])?, b.len())?;
    expect_length("pack", "packed", packed_len(kernels, k, n)?, packed.len())?;
    pack_panels(kernels, Columns::of(k, n, layout), bytes_of(b), packed, &Threads::single());
    Ok(())
}

/// The shape of a panel: weights packed for one shape are wrong for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelWidth {
    /// Floats of a vector.
    pub lanes: usize,
    /// Vectors of a row of the widest panel.
    pub vectors: usize,
}

impl PanelWidth {
    /// The panels that these kernels read.
    pub fn of(kernels: &Kernels) -> PanelWidth {
        PanelWidth { lanes: kernels.lanes, vectors: kernels.tile_vectors }
    }

    /// Those that are stored.
    pub fn of_stored(stored: &StoredPanels) -> PanelWidth {
        PanelWidth { lanes: stored.lanes, vectors: stored.vectors }
    }

    /// How `n` columns are cut.
    pub(super) fn over(self, n: usize) -> Panels {
        let vectors = n.div_ceil(self.lanes);
        let count = vectors.div_ceil(self.vectors);
        let divisor = count.max(1);
        Panels { lanes: self.lanes, n, count, least: vectors / divisor, wider: vectors % divisor }
    }
}

/// The panels of a matrix. They are nearly equal, for a narrow one at the end would be slow: every panel loads all values of
/// the other matrix.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    lanes: usize,
    n: usize,
    pub(super) count: usize,
    /// Vectors of a panel.
    least: usize,
    /// As many panels at the front have one vector more.
    wider: usize,
}

impl Panels {
    /// The columns of some panels.
    pub(super) fn columns(&self, panels: &Range<usize>) -> Range<usize> {
        let start = |panel: usize| (self.least * panel + self.wider.min(panel)) * self.lanes;
        start(panels.start)..start(panels.end).min(self.n)
    }

    /// Where a column of panels of `k` rows begins, and how far it is from one of its rows to the next.
    pub(super) fn column(&self, k: usize, column: usize) -> (usize, usize) {
        let vector = column / self.lanes;
        let wide = self.wider * (self.least + 1);
        let (first, own) = if vector < wide {
            (vector - vector % (self.least + 1), self.least + 1)
        } else {
            (vector - (vector - wide) % self.least.max(1), self.least)
        };
        ((first * k + vector - first) * self.lanes + column % self.lanes, own * self.lanes)
    }

    /// Vectors of a row of a panel.
    pub(super) fn vectors(&self, panel: usize) -> usize {
        self.least + usize::from(panel < self.wider)
    }
}

/// Where the elements of B lie: that of row `tap * (k / taps) + channel` and column `n` at
/// `offset + tap + channel * row_stride + n * column_stride`. With several taps, those of a channel are neighbours.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) offset: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    pub(super) taps: usize,
}

impl Columns {
    /// A matrix whose rows have the same distance from each other.
    pub(super) fn plain(
        k: usize,
        n: usize,
        offset: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Columns {
        Columns { k, n, offset, row_stride, column_stride, taps: 1 }
    }

    fn of(k: usize, n: usize, layout: BLayout) -> Columns {
        match layout {
            BLayout::RowMajorKxN => Columns::plain(k, n, 0, n, 1),
            BLayout::RowMajorNxK => Columns::plain(k, n, 0, 1, k),
        }
    }

    /// Whether all elements are among so many floats.
    fn lie_within(&self, floats: usize) -> bool {
        let Columns { k, n, offset, row_stride, column_stride, taps } = *self;
        if k == 0 || n == 0 {
            return true;
        }
        let (rows, columns) = ((k / taps - 1).checked_mul(row_stride), (n - 1).checked_mul(column_stride));
        let last =
            [rows, columns, Some(taps - 1)].into_iter().try_fold(offset, |sum, more| sum.checked_add(more?));
        last.is_some_and(|last| last < floats)
    }
}

/// Packs the floats of `b` that `columns` describes into `packed`, which has room for them.
///
/// # Panics
/// Where something does not lie within its slice.
pub(super) fn pack_panels(
    kernels: &Kernels,
    columns: Columns,
    b: &[u8],
    packed: &mut [f32],
    threads: &Threads,
) {
    let Columns { k, n, taps, .. } = columns;
    let (panels, lanes) = (PanelWidth::of(kernels).over(n), kernels.lanes);
    if k == 0 || panels.count == 0 {
        return;
    }
    assert!(taps > 0 && k.is_multiple_of(taps), "every tap has the same channels");
    assert!(columns.lie_within(b.len() / size_of::<f32>()), "the columns lie within b");
    assert!(packed.len() >= n.next_multiple_of(lanes) * k, "there is room for the panels");
    let to = SendPtr(packed.as_mut_ptr());
    let pack = |panel: usize, channels: Range<usize>| {
        let own = panels.columns(&(panel..panel + 1));
        let width = panels.vectors(panel) * lanes;
        // SAFETY: panels lie one behind the other, each with `k` rows of its width; all of them fit, and no two calls have
        // the same panel and channels. What is read was checked above.
        unsafe {
            pack_panel(
                kernels,
                columns,
                b.as_ptr().cast(),
                own.clone(),
                channels,
                to.get().add(own.start * k),
                width,
            )
        };
    };
    let depth = k / taps;
    // Panels of some columns are cut along the rows, so that a lone one does not stay on one thread.
    let parts = packed.len().div_ceil(GRAIN).div_ceil(panels.count).min(depth);
    if threads.count() == 1 || packed.len() <= GRAIN {
        return (0..panels.count).for_each(|panel| pack(panel, 0..depth));
    }
    threads.for_each(panels.count * parts, |task| pack(task / parts, part(depth, parts, task % parts)));
}

/// Words that are turned in fast memory before they go to their rows.
pub(super) const TURNED: usize = 8192;

/// Calls `turn` for as many channels at a time as fit, with the first element of their columns, the number of rows and where
/// these are to go, then `place` for each of the rows, of `width` words.
#[inline(never)]
fn turn_taps(
    turn: impl Fn(usize, usize, *mut f32),
    taps: usize,
    channels: Range<usize>,
    width: usize,
    place: impl Fn(usize, usize, *const f32),
) {
    let mut turned = [0.0f32; TURNED];
    let together = (TURNED / (taps * width)).max(1);
    for start in channels.clone().step_by(together) {
        let own = start..channels.end.min(start + together);
        turn(start * taps, own.len() * taps, turned.as_mut_ptr());
        for tap in 0..taps {
            for channel in own.clone() {
                place(tap, channel, turned[((channel - start) * taps + tap) * width..].as_ptr());
            }
        }
    }
}

/// Packs `channels` of every tap into their rows of a panel, which begins at `packed`.
///
/// # Safety
/// The columns must lie within `b`, which may have any address; the panel must have `k` rows of `width` floats, and nobody
/// else may use those of these channels.
unsafe fn pack_panel(
    kernels: &Kernels,
    columns: Columns,
    b: *const f32,
    own: Range<usize>,
    channels: Range<usize>,
    packed: *mut f32,
    width: usize,
) {
    let Columns { k, offset, row_stride, column_stride, taps, .. } = columns;
    let (count, depth) = (own.len(), k / taps);
    // SAFETY: of rows and columns that the caller vouches for; every row is `width` floats long, of which `count` are copied or
    // turned and the others zeroed. Elements are read as bytes or as the kernels do, which ask for no alignment.
    unsafe {
        let first = b.cast::<[u8; 4]>().add(offset + own.start * column_stride);
        let row_of = |tap: usize, channel: usize| packed.add((tap * depth + channel) * width);
        if column_stride == 1 {
            for tap in 0..taps {
                for channel in channels.clone() {
                    let from = first.add(tap + channel * row_stride);
                    from.copy_to_nonoverlapping(row_of(tap, channel).cast(), count);
                }
            }
        } else if row_stride == 1 && taps == 1 {
            let (from, to) = (first.add(channels.start), row_of(0, channels.start));
            (kernels.turn)(from.cast(), column_stride, count, channels.len(), to, width);
        } else if row_stride == taps && taps * width <= TURNED {
            let turn = |from: usize, rows: usize, turned: *mut f32| {
                (kernels.turn)(first.add(from).cast(), column_stride, count, rows, turned, width);
            };
            turn_taps(turn, taps, channels.clone(), width, |tap, channel, turned: *const f32| {
                turned.copy_to_nonoverlapping(row_of(tap, channel), count);
            });
        } else {
            for tap in 0..taps {
                for channel in channels.clone() {
                    let (from, to) = (first.add(tap + channel * row_stride), row_of(tap, channel));
                    for column in 0..count {
                        to.add(column).cast::<[u8; 4]>().write(from.add(column * column_stride).read());
                    }
                }
            }
        }
        if count < width {
            for tap in 0..taps {
                for channel in channels.clone() {
                    row_of(tap, channel).add(count).write_bytes(0, width - count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::available;
    use super::super::testing::random;
    use super::*;

    /// By the definition, element by element.
    fn naive(kernels: &Kernels, columns: Columns, b: &[f32]) -> Vec<f32> {
        let Columns { k, n, offset, row_stride, column_stride, taps } = columns;
        let mut packed = vec![0.0; packed_len(kernels, k, n).unwrap()];
        let panels = PanelWidth::of(kernels).over(n);
        for panel in 0..panels.count {
            let own = panels.columns(&(panel..panel + 1));
            let width = panels.vectors(panel) * kernels.lanes;
            for row in 0..k {
                let (tap, channel) = (row / (k / taps), row % (k / taps));
                for column in own.clone() {
                    let from = offset + tap + channel * row_stride + column * column_stride;
                    packed[own.start * k + row * width + column - own.start] = b[from];
                }
            }
        }
        packed
    }

    #[test]
    fn every_order_at_every_address() {
        let mut cases = Vec::new();
        for (depth, taps, n) in
            [(1, 1, 1), (7, 1, 70), (5, 9, 33), (40, 9, 130), (3, 49, 20), (2, 600, 5), (300, 1, 200)]
        {
            let k = depth * taps;
            cases.push(Columns::plain(k, n, 3, n + 2, 1));
            cases.push(Columns::plain(k, n, 1, 1, k));
            cases.push(Columns::plain(k, n, 0, 2, 2 * k + 1));
            cases.push(Columns { k, n, offset: 2, row_stride: taps, column_stride: k + 1, taps });
        }
        for columns in cases {
            let Columns { k, n, offset, row_stride, column_stride, taps } = columns;
            let floats = offset + (k / taps - 1) * row_stride + (n - 1) * column_stride + taps;
            let b = random(floats, 1);
            let mut bytes = vec![0u8; 1];
            bytes.extend_from_slice(bytes_of(&b));
            for kernels in available() {
                let expected = naive(kernels, columns, &b);
                for threads in [Threads::single(), Threads::new(3)] {
                    let mut packed = vec![7.0; expected.len()];
                    pack_panels(kernels, columns, &bytes[1..], &mut packed, &threads);
                    assert!(packed == expected, "{kernels:?} {k} {n} {taps} {row_stride} {column_stride}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "within b")]
    fn columns_beyond_the_end_are_refused() {
        let kernels = available()[0];
        let columns = Columns { k: 4, n: 3, offset: 1, row_stride: 2, column_stride: 4, taps: 2 };
        pack_panels(kernels, columns, &[0; 48], &mut [0.0; 1024], &Threads::single());
    }
}
