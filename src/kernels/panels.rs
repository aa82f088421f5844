//! Matrices whose panels are stored in a model's file, for kernels that are not those of this machine too.
//!
//! A product on this machine reads panels of its own shape where they are mapped ([`super::PackedB::of_panels`]). For others the
//! elements are put in order again and packed as any weights are.

use super::pack::PanelWidth;
use crate::tensor::{AlignedVec, Buffer, computed::Panels};
use std::ops::Range;

/// The shapes of panels by the names of [`super::Kernels`] that read them, without those of the same shape.
pub const PANEL_WIDTHS: [(&str, PanelWidth); 4] = [
    ("portable", PanelWidth { lanes: 4, vectors: 2 }),
    ("neon", PanelWidth { lanes: 4, vectors: 2 }),
    ("avx2", PanelWidth { lanes: 8, vectors: 2 }),
    ("avx512", PanelWidth { lanes: 16, vectors: 4 }),
];

/// More is no shape of any kernel's panels.
const MOST_LANES: usize = 64;
const MOST_VECTORS: usize = 8;

impl PanelWidth {
    /// True for panels as kernels could have them: both numbers are small, and not 0.
    pub fn is_possible(self) -> bool {
        (1..=MOST_LANES).contains(&self.lanes) && (1..=MOST_VECTORS).contains(&self.vectors)
    }

    /// The floats that the panels of a matrix `[k, n]` have; `None` where these are more than memory can hold.
    pub fn floats(self, k: usize, n: usize) -> Option<usize> {
        n.checked_next_multiple_of(self.lanes)?
            .checked_mul(k)
            .filter(|floats| floats.checked_mul(size_of::<f32>()).is_some())
    }

    /// Calls `visit` with each row of each panel: its number, its columns, and where it begins in the panels.
    fn rows(
        self,
        k: usize,
        n: usize,
        mut visit: impl FnMut(usize, Range<usize>, usize) -> Option<()>,
    ) -> Option<()> {
        let panels = self.over(n);
        for panel in 0..panels.count {
            let columns = panels.columns(&(panel..panel + 1));
            let length = panels.vectors(panel) * self.lanes;
            for row in 0..k {
                visit(row, columns.clone(), columns.start * k + row * length)?;
            }
        }
        Some(())
    }

    /// The panels of a matrix `[k, n]`, of which these are the elements, or with `transposed` those of its transpose; `None` for
    /// another number of elements, or where there is no memory.
    pub fn panels_of(self, k: usize, n: usize, elements: &[f32], transposed: bool) -> Option<Buffer> {
        let whole = self.is_possible() && Some(elements.len()) == k.checked_mul(n);
        let mut packed = AlignedVec::<f32>::zeroed(self.floats(k, n).filter(|_| whole)?).ok()?;
        let to = packed.as_mut_slice();
        self.rows(k, n, |row, columns, start| {
            let to = to.get_mut(start..start + columns.len())?;
            if transposed {
                let from = elements.get(columns.start * k + row..)?.iter().step_by(k);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            } else {
                to.copy_from_slice(elements.get(row * n..)?.get(columns)?);
            }
            Some(())
        })?;
        Some(packed.freeze())
    }
}

/// The elements of a matrix in their order; `None` where the panels are not what they say, or there is no memory.
pub fn out_of_panels(panels: &Panels) -> Option<Buffer> {
    let (width, k, n) = (PanelWidth::of_stored(panels), panels.k, panels.n);
    let (floats, []) = panels.stored.stored_bytes().as_chunks::<4>() else { return None };
    let whole = width.is_possible() && Some(floats.len()) == width.floats(k, n);
    let mut elements = AlignedVec::<f32>::for_overwrite(k.checked_mul(n).filter(|_| whole)?).ok()?;
    let to = elements.as_mut_slice();
    width.rows(k, n, |row, columns, start| {
        let from = floats.get(start..start + columns.len())?.iter().map(|&bytes| f32::from_le_bytes(bytes));
        if panels.transposed {
            let to = to.get_mut(columns.start * k + row..)?.iter_mut().step_by(k);
            to.zip(from).for_each(|(to, from)| *to = from);
        } else {
            to.get_mut(row * n..)?.get_mut(columns)?.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        }
        Some(())
    })?;
    Some(elements.freeze())
}

#[cfg(test)]
mod tests {
    use super::super::{PackedB, pack_into, packed_len, table::available, testing::random};
    use super::*;
    use crate::kernels::BLayout;

    fn stored(width: PanelWidth, k: usize, n: usize, elements: &[f32], transposed: bool) -> Panels {
        let stored = width.panels_of(k, n, elements, transposed).unwrap();
        Panels { stored, k, n, lanes: width.lanes, vectors: width.vectors, transposed }
    }

    #[test]
    fn the_names_are_those_of_the_kernels() {
        for kernels in available() {
            let own = PanelWidth::of(kernels);
            let first = PANEL_WIDTHS.iter().filter(|(name, _)| kernels.name.starts_with(name));
            assert!(first.map(|&(_, width)| width).eq([own]), "{}", kernels.name);
        }
    }

    /// By the definition of a transpose; the packing itself is tested against its own definition.
    #[test]
    fn panels_are_what_kernels_pack_and_come_back() {
        for kernels in available() {
            let width = PanelWidth::of(kernels);
            for (k, n) in [(1, 1), (7, 70), (33, 64), (5, 129), (64, 16), (3, 200)] {
                let elements = random(k * n, 1);
                let turned: Vec<f32> = (0..k * n).map(|index| elements[index % k * n + index / k]).collect();
                let mut packed = vec![0.0; packed_len(kernels, k, n).unwrap()];
                pack_into(kernels, k, n, &elements, BLayout::RowMajorKxN, &mut packed).unwrap();
                for (elements, transposed) in [(&elements, false), (&turned, true)] {
                    let panels = stored(width, k, n, elements, transposed);
                    assert_eq!(panels.stored.as_slice::<f32>().unwrap(), packed, "{kernels:?} {k} {n}");
                    assert_eq!(out_of_panels(&panels).unwrap().as_slice::<f32>().unwrap(), elements);
                    let used = PackedB::of_panels(kernels, &panels, None).unwrap().unwrap();
                    assert_eq!((used.k(), used.n()), (k, n));
                }
            }
        }
    }

    #[test]
    fn panels_of_others_and_panels_that_lie_are_not_used() {
        let kernels = available()[0];
        let own = PanelWidth::of(kernels);
        let elements = random(8 * 40, 2);
        let other = PanelWidth { lanes: own.lanes * 2, ..own };
        let panels = stored(other, 8, 40, &elements, false);
        assert!(PackedB::of_panels(kernels, &panels, None).unwrap().is_none());
        assert_eq!(out_of_panels(&panels).unwrap().as_slice::<f32>().unwrap(), elements);
        let short = Panels { k: 9, ..stored(own, 8, 40, &elements, false) };
        assert!(PackedB::of_panels(kernels, &short, None).unwrap().is_none());
        for lie in [
            (9, 40, 4, 2),
            (8, 41, 4, 2),
            (usize::MAX, 40, 4, 2),
            (8, 40, 0, 2),
            (8, 40, 4, 0),
            (8, 40, 1 << 40, 2),
        ] {
            let (k, n, lanes, vectors) = lie;
            let panels = Panels { k, n, lanes, vectors, ..stored(own, 8, 40, &elements, false) };
            assert!(out_of_panels(&panels).is_none(), "{lie:?}");
        }
        assert!(
            PackedB::of_panels(kernels, &stored(own, 8, 40, &elements, false), Some(&[0.0; 39])).is_err()
        );
    }
}
