//! Weights rearranged once at load for the matrix product.
//!
//! The columns of B `[k, n]` are cut into nearly equal panels, none wider than the register tile. A panel stores its rows one
//! after the other, so the product reads it from front to back; the columns beyond `n` are zero.

use super::aligned::AlignedFloats;
use super::error::{KernelError, expect_length, product};
use super::table::Kernels;
use std::ops::Range;

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
    panels: AlignedFloats,
    bias: Option<AlignedFloats>,
    k: usize,
    n: usize,
    width: PanelWidth,
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
        let columns = Columns::of(k, n, layout);
        expect_length("pack", "b", product("pack", "b", &[k, n])?, b.len())?;
        PackedB::pack_columns(kernels, b, columns, bias)
    }

    /// Packs the part of `b` that `columns` describes; the caller has checked that it lies within.
    pub(super) fn pack_columns(
        kernels: &Kernels,
        b: &[f32],
        columns: Columns,
        bias: Option<&[f32]>,
    ) -> Result<PackedB, KernelError> {
        let Columns { k, n, .. } = columns;
        if let Some(bias) = bias {
            expect_length("pack", "bias", n, bias.len())?;
        }
        let width = PanelWidth::of(kernels);
        let mut panels = AlignedFloats::zeroed(packed_len(kernels, k, n)?);
        pack_panels(kernels, columns, b, panels.as_mut_slice());
        let bias = bias.map(|bias| {
            let mut padded = AlignedFloats::zeroed(n.next_multiple_of(width.lanes));
            padded.as_mut_slice()[..n].copy_from_slice(bias);
            padded
        });
        Ok(PackedB { panels, bias, k, n, width })
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
        (self.panels.len() + self.bias.as_ref().map_or(0, AlignedFloats::len)) * size_of::<f32>()
    }
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
    pack_panels(kernels, Columns::of(k, n, layout), b, packed);
    Ok(())
}

/// The shape of a panel: weights packed for one shape are wrong for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PanelWidth {
    pub(super) lanes: usize,
    pub(super) vectors: usize,
}

impl PanelWidth {
    pub(super) fn of(kernels: &Kernels) -> PanelWidth {
        PanelWidth { lanes: kernels.lanes, vectors: kernels.tile_vectors }
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

    /// Vectors of a row of a panel.
    pub(super) fn vectors(&self, panel: usize) -> usize {
        self.least + usize::from(panel < self.wider)
    }
}

/// Where the element at row `k`, column `n` of B lies: `offset + k * row_stride + n * column_stride`.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) offset: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl Columns {
    fn of(k: usize, n: usize, layout: BLayout) -> Columns {
        let (row_stride, column_stride) = match layout {
            BLayout::RowMajorKxN => (n, 1),
            BLayout::RowMajorNxK => (1, k),
        };
        Columns { k, n, offset: 0, row_stride, column_stride }
    }
}

/// Packs the part of `b` that `columns` describes into `packed`, which has room for it.
pub(super) fn pack_panels(kernels: &Kernels, columns: Columns, b: &[f32], packed: &mut [f32]) {
    for panel in panels_of(kernels, columns) {
        pack_panel(&panel, columns, kernels, b, &mut packed[panel.packed.clone()]);
    }
}

/// A panel: its columns, and where it stands.
struct Panel {
    columns: Range<usize>,
    packed: Range<usize>,
}

/// The panels of a matrix; none where it has no rows.
fn panels_of(kernels: &Kernels, Columns { k, n, .. }: Columns) -> impl Iterator<Item = Panel> {
    let (panels, lanes) = (PanelWidth::of(kernels).over(n), kernels.lanes);
    let count = if k == 0 { 0 } else { panels.count };
    (0..count).map(move |panel| {
        let columns = panels.columns(&(panel..panel + 1));
        let packed = columns.start * k..(columns.start + panels.vectors(panel) * lanes) * k;
        Panel { columns, packed }
    })
}

fn pack_panel(panel: &Panel, columns: Columns, kernels: &Kernels, b: &[f32], packed: &mut [f32]) {
    let Columns { k, offset, row_stride, column_stride, .. } = columns;
    let (first, count) = (panel.columns.start, panel.columns.len());
    let padded = packed.len() / k.max(1);
    if column_stride == 1 {
        for (row, to) in packed.chunks_exact_mut(padded).enumerate() {
            let from = offset + row * row_stride + first;
            to[..count].copy_from_slice(&b[from..from + count]);
            to[count..].fill(0.0);
        }
        return;
    }
    let b = &b[offset + first * column_stride..];
    if row_stride == 1 {
        assert!(b.len() >= (count - 1) * column_stride + k, "columns lie within b");
        // SAFETY: `count` columns of `k` floats were checked, and the panel has `k` rows of `padded`.
        unsafe { (kernels.turn)(b.as_ptr(), column_stride, count, k, packed.as_mut_ptr(), padded) };
    }
    for (row, to) in packed.chunks_exact_mut(padded).enumerate() {
        let (there, beyond) = to.split_at_mut(count);
        if row_stride != 1 {
            let from = b[row * row_stride..].iter().step_by(column_stride);
            there.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
        }
        beyond.fill(0.0);
    }
}
