//! NumPy broadcasting as a plan: which elements of the operands meet at each element of the output.
//!
//! Dimensions that all operands walk alike are merged, so that what is left to run is a few long rows in
//! which each operand either advances or stands still.

use super::error::{KernelError, expect_length, product};
use super::map::chunk_of;
use super::threads::Threads;
use std::sync::{Mutex, PoisonError};

/// Broadcasting of two operands.
pub type BroadcastPlan = Broadcast<2>;
/// Broadcasting of condition and two operands.
pub type SelectPlan = Broadcast<3>;

/// Broadcasting of `N` operands to one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast<const N: usize> {
    shape: Vec<usize>,
    operand_lengths: [usize; N],
    length: usize,
    /// Merged dimensions, outermost first; never empty.
    dims: Vec<Dim<N>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim<const N: usize> {
    size: usize,
    /// Elements from one index to the next, 0 where the operand stands still.
    strides: [usize; N],
}

impl BroadcastPlan {
    /// The plan for two shapes, or [`KernelError::Broadcast`].
    pub fn new(a: &[usize], b: &[usize]) -> Result<BroadcastPlan, KernelError> {
        Broadcast::of([a, b])
    }
}

impl BroadcastPlan {
    /// [`Broadcast::run`] for operands `a` and `b`. Where one of them is a short row that meets every row of the other, several
    /// rows go at once.
    pub(super) fn run_pairs<T: Copy + Send + Sync>(
        &self,
        [a, b]: [&[T]; 2],
        out: &mut [T],
        threads: &Threads,
        row: impl Fn(&[T], &[T], &mut [T]) -> Result<(), KernelError> + Sync,
    ) -> Result<(), KernelError> {
        let Some(short) = self.short_row() else {
            return self.run(out, threads, |[i, j], piece| row(&a[i], &b[j], piece));
        };
        let (few, many) = if short == 0 { (a, b) } else { (b, a) };
        let mut rows = [few[0]; SHORT];
        let length = SHORT / few.len() * few.len();
        rows.chunks_exact_mut(few.len()).for_each(|row| row.copy_from_slice(few));
        let chunk = chunk_of(out.len(), threads).next_multiple_of(length);
        in_pieces(out, chunk, threads, |start, piece| {
            let pairs = piece.chunks_mut(length).zip(many[start..].chunks(length));
            pairs.into_iter().try_for_each(|(piece, many)| {
                let few = &rows[..piece.len()];
                if short == 0 { row(few, many, piece) } else { row(many, few, piece) }
            })
        })
    }

    /// The operand that is one short row and meets every row of the other one.
    fn short_row(&self) -> Option<usize> {
        let [outer, inner] = self.dims.as_slice() else { return None };
        let short = outer.strides.iter().position(|&stride| stride == 0)?;
        let whole = outer.strides[1 - short] == inner.size && inner.strides == [1, 1];
        (whole && (2..=SHORT / 2).contains(&inner.size)).then_some(short)
    }
}

/// Elements of rows that go at once.
const SHORT: usize = 512;

impl SelectPlan {
    /// The plan for a condition and two operands, or [`KernelError::Broadcast`].
    pub fn new(condition: &[usize], a: &[usize], b: &[usize]) -> Result<SelectPlan, KernelError> {
        Broadcast::of([condition, a, b])
    }
}

impl<const N: usize> Broadcast<N> {
    /// The plan for `N` shapes. Sizes are aligned at the end; they agree, or one of them is 1.
    pub fn of(shapes: [&[usize]; N]) -> Result<Broadcast<N>, KernelError> {
        let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
        let mut shape = vec![1; rank];
        let first = shapes[0];
        for operand in shapes {
            for (size, &other) in shape[rank - operand.len()..].iter_mut().zip(operand) {
                if *size == 1 {
                    *size = other;
                } else if other != 1 && other != *size {
                    return Err(KernelError::Broadcast { left: first.to_vec(), right: operand.to_vec() });
                }
            }
        }
        let length = product("broadcast", "shape", &shape)?;
        let mut operand_lengths = [0; N];
        for (length, operand) in operand_lengths.iter_mut().zip(shapes) {
            *length = product("broadcast", "shape", operand)?;
        }
        let mut dims = merged(&shape, shapes);
        if dims.is_empty() {
            dims.push(Dim { size: 1, strides: [0; N] });
        }
        Ok(Broadcast { shape, operand_lengths, length, dims })
    }

    /// The broadcast shape.
    pub fn out_shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements of the output.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Elements of operand `index`.
    pub(super) fn check(
        &self,
        kernel: &'static str,
        lengths: [usize; N],
        out: usize,
    ) -> Result<(), KernelError> {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        for (index, actual) in lengths.into_iter().enumerate() {
            let name = NAMES.get(index).copied().unwrap_or("operand");
            expect_length(kernel, name, self.operand_lengths[index], actual)?;
        }
        expect_length(kernel, "out", self.length, out)
    }

    /// Calls `row(parts, piece)` for rows that cover `out`, on the pool's threads: `parts[i]` is the range of operand
    /// `i` that meets the piece, of equal length or of length 1. `out` and the operands were checked.
    pub(super) fn run<T: Send>(
        &self,
        out: &mut [T],
        threads: &Threads,
        row: impl Fn([std::ops::Range<usize>; N], &mut [T]) -> Result<(), KernelError> + Sync,
    ) -> Result<(), KernelError> {
        let chunk = chunk_of(out.len(), threads);
        in_pieces(out, chunk, threads, |start, piece| self.run_from(start, piece, &row))
    }

    /// The rows of the output from element `start` on.
    fn run_from<T>(
        &self,
        start: usize,
        mut out: &mut [T],
        row: impl Fn([std::ops::Range<usize>; N], &mut [T]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let Some((inner, outer)) = self.dims.split_last() else { return Ok(()) };
        let mut at = start;
        while !out.is_empty() {
            let (line, column) = (at / inner.size, at % inner.size);
            let mut offsets = [0; N];
            let mut rest = line;
            for dim in outer.iter().rev() {
                for (offset, stride) in offsets.iter_mut().zip(dim.strides) {
                    *offset += rest % dim.size * stride;
                }
                rest /= dim.size;
            }
            // The innermost of the outer dimensions is walked without dividing again.
            let next = outer.last().copied().unwrap_or(Dim { size: 1, strides: [0; N] });
            let mut column = column;
            for _ in line % next.size..next.size {
                let count = (inner.size - column).min(out.len());
                let (piece, after) = std::mem::take(&mut out).split_at_mut(count);
                out = after;
                let parts = std::array::from_fn(|operand| {
                    let stride = inner.strides[operand];
                    let from = offsets[operand] + column * stride;
                    from..from + if stride == 0 { 1 } else { count }
                });
                row(parts, piece)?;
                for (offset, stride) in offsets.iter_mut().zip(next.strides) {
                    *offset += stride;
                }
                at += count;
                column = 0;
                if out.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Cuts `out` into pieces of `chunk` elements and calls `work(start, piece)` for each, on the pool's threads; one of the errors,
/// if there are any.
fn in_pieces<T: Send>(
    out: &mut [T],
    chunk: usize,
    threads: &Threads,
    work: impl Fn(usize, &mut [T]) -> Result<(), KernelError> + Sync,
) -> Result<(), KernelError> {
    let failure = Mutex::new(None);
    threads.for_each_slice(out, chunk, |index, piece| {
        if let Err(error) = work(index * chunk, piece) {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The dimensions of `shape` that are not 1, neighbours joined where every operand walks through both or
/// stands still in both.
fn merged<const N: usize>(shape: &[usize], shapes: [&[usize]; N]) -> Vec<Dim<N>> {
    let mut dims: Vec<Dim<N>> = Vec::new();
    // From the innermost, for strides grow that way; turned around at the end.
    let mut spans = [1usize; N];
    for (back, &size) in shape.iter().rev().enumerate() {
        let mut strides = [0; N];
        for (operand, stride) in strides.iter_mut().enumerate() {
            let own = shapes[operand].iter().rev().nth(back).copied().unwrap_or(1);
            if own != 1 {
                *stride = spans[operand];
                // A zero ends the walk before any stride is used.
                spans[operand] = spans[operand].saturating_mul(own);
            }
        }
        if size == 1 {
            continue;
        }
        match dims.last_mut() {
            Some(last) if (0..N).all(|i| strides[i] == last.strides[i].saturating_mul(last.size)) => {
                last.size *= size;
            }
            _ => dims.push(Dim { size, strides }),
        }
    }
    dims.reverse();
    dims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_numpy() {
        let plan = BroadcastPlan::new(&[2, 1, 3], &[4, 1]).unwrap();
        assert_eq!(plan.out_shape(), [2, 4, 3]);
        assert_eq!(BroadcastPlan::new(&[], &[]).unwrap().out_shape(), [0usize; 0]);
        assert_eq!(BroadcastPlan::new(&[0], &[1]).unwrap().out_shape(), [0]);
        assert_eq!(SelectPlan::new(&[3], &[2, 1], &[]).unwrap().out_shape(), [2, 3]);
        assert!(BroadcastPlan::new(&[2, 3], &[2]).is_err());
        assert!(BroadcastPlan::new(&[0], &[2]).is_err());
        assert!(BroadcastPlan::new(&[1 << 40, 1], &[1, 1 << 40]).is_err());
    }

    #[test]
    fn like_dimensions_are_merged() {
        assert_eq!(BroadcastPlan::new(&[2, 3, 4], &[2, 3, 4]).unwrap().dims.len(), 1);
        assert_eq!(BroadcastPlan::new(&[2, 3, 4], &[]).unwrap().dims.len(), 1);
        assert_eq!(BroadcastPlan::new(&[2, 3, 4, 5], &[5]).unwrap().dims.len(), 2);
        assert_eq!(BroadcastPlan::new(&[2, 3, 4, 5], &[2, 1, 1, 5]).unwrap().dims.len(), 3);
    }

    #[test]
    fn every_element_meets_its_own() {
        let cases: [(&[usize], &[usize]); 9] = [
            (&[2, 3, 4], &[2, 3, 4]),
            (&[5, 7], &[7]),
            (&[5, 7], &[5, 1]),
            (&[7, 1], &[1, 9]),
            (&[], &[3, 2]),
            (&[2, 1, 3, 1], &[1, 4, 3, 5]),
            (&[3, 1, 1, 2], &[3, 4, 5, 2]),
            (&[2, 0, 3], &[1, 3]),
            (&[300, 1, 70], &[2, 70]),
        ];
        for (a, b) in cases {
            let plan = BroadcastPlan::new(a, b).unwrap();
            let mut out = vec![[usize::MAX; 2]; plan.length()];
            plan.run(&mut out, &Threads::new(2), |parts, piece| {
                for (i, to) in piece.iter_mut().enumerate() {
                    *to = [0, 1].map(|o| parts[o].start + if parts[o].len() == 1 { 0 } else { i });
                    assert!(parts.iter().all(|part| part.len() == 1 || part.len() == piece_len(&parts)));
                }
                Ok(())
            })
            .unwrap();
            for (index, &found) in out.iter().enumerate() {
                assert_eq!(found, [a, b].map(|shape| naive(plan.out_shape(), shape, index)));
            }
        }
    }

    /// Short rows that meet many, among them such that do not fill the last piece.
    #[test]
    fn short_rows_go_several_at_once() {
        let cases: [(&[usize], &[usize]); 8] = [
            (&[50, 50, 3], &[3]),
            (&[3], &[700, 3]),
            (&[7001, 2], &[1, 2]),
            (&[300, 256], &[256]),
            (&[300, 257], &[257]),
            (&[1, 5], &[5]),
            (&[40, 30, 4], &[40, 1, 4]),
            (&[2, 2], &[2, 1]),
        ];
        for (a_shape, b_shape) in cases {
            let plan = BroadcastPlan::new(a_shape, b_shape).unwrap();
            let numbers = |shape: &[usize]| (0..shape.iter().product()).collect::<Vec<usize>>();
            let (a, b) = (numbers(a_shape), numbers(b_shape));
            let mut out = vec![usize::MAX; plan.length()];
            plan.run_pairs([&a, &b], &mut out, &Threads::new(2), |a, b, piece| {
                for (index, to) in piece.iter_mut().enumerate() {
                    let at = |row: &[usize]| if row.len() == 1 { row[0] } else { row[index] };
                    *to = at(a) * 1_000_000 + at(b);
                }
                Ok(())
            })
            .unwrap();
            for (index, &found) in out.iter().enumerate() {
                let [a, b] = [a_shape, b_shape].map(|shape| naive(plan.out_shape(), shape, index));
                assert_eq!(found, a * 1_000_000 + b, "{a_shape:?} {b_shape:?}");
            }
        }
    }

    fn piece_len(parts: &[std::ops::Range<usize>; 2]) -> usize {
        parts[0].len().max(parts[1].len())
    }

    /// The element of `shape` under element `index` of `out`.
    fn naive(out: &[usize], shape: &[usize], mut index: usize) -> usize {
        let (mut offset, mut span) = (0, 1);
        for (back, &size) in out.iter().rev().enumerate() {
            let own = shape.iter().rev().nth(back).copied().unwrap_or(1);
            if own != 1 {
                offset += index % size * span;
                span *= own;
            }
            index /= size;
        }
        offset
    }
}
