//! Permutation of axes, for elements of any kind.
//!
//! Axes that stay neighbours are merged first. If the innermost axis stays innermost, rows are copied; else the
//! two axes that are innermost before and after are walked in square blocks, so that both sides use whole cache lines.

use super::error::{KernelError, expect_length, product};
use super::isa::Isa;
use super::threads::Threads;

/// How a shape is permuted: output axis `i` is input axis `permutation[i]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransposePlan {
    out_shape: Vec<usize>,
    length: usize,
    /// Merged output axes, outermost first; never empty.
    dims: Vec<Dim>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    size: usize,
    /// Elements between neighbours in the input.
    stride: usize,
}

/// Side of the square blocks.
const BLOCK: usize = 32;
/// Rows of input that are not cut into blocks.
const NARROW: usize = 4;
/// Elements per task.
const GRAIN: usize = 32 * 1024;

impl TransposePlan {
    /// Fails unless `permutation` names every axis of `shape` once.
    pub fn new(shape: &[usize], permutation: &[usize]) -> Result<TransposePlan, KernelError> {
        let mut seen = vec![false; shape.len()];
        let valid = permutation.len() == shape.len()
            && permutation.iter().all(|&axis| axis < seen.len() && !std::mem::replace(&mut seen[axis], true));
        if !valid {
            return Err(KernelError::Descriptor {
                kernel: "transpose",
                argument: "permutation",
                problem: "does not name every axis once",
            });
        }
        let length = product("transpose", "shape", shape)?;
        let mut strides = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        let mut dims: Vec<Dim> = Vec::new();
        for &axis in permutation {
            let next = Dim { size: shape[axis], stride: strides[axis] };
            if next.size == 1 {
                continue;
            }
            match dims.last_mut() {
                Some(last) if last.stride == next.stride.saturating_mul(next.size) => {
                    *last = Dim { size: last.size.saturating_mul(next.size), stride: next.stride };
                }
                _ => dims.push(next),
            }
        }
        if dims.is_empty() {
            dims.push(Dim { size: 1, stride: 1 });
        }
        let out_shape = permutation.iter().map(|&axis| shape[axis]).collect();
        Ok(TransposePlan { out_shape, length, dims })
    }

    /// The permuted shape.
    pub fn out_shape(&self) -> &[usize] {
        &self.out_shape
    }

    /// Whether the elements keep their order.
    pub fn is_copy(&self) -> bool {
        self.dims.len() == 1
    }
}

/// `out = permuted x`
pub fn transpose<T: Clone + Send + Sync>(
    plan: &TransposePlan,
    x: &[T],
    out: &mut [T],
    threads: &Threads,
) -> Result<(), KernelError> {
    permute(plan, x, out, threads, turn_each)
}

/// Turns a block: `out[i * out_stride + j] = x[i + j * stride]`, `i` below the first size and `j` below the second.
type Turn<T> = fn(&[T], usize, &mut [T], usize, [usize; 2]);

/// [`Turn`] for elements of any kind.
fn turn_each<T: Clone>(
    x: &[T],
    stride: usize,
    out: &mut [T],
    out_stride: usize,
    [height, width]: [usize; 2],
) {
    for i in 0..height {
        let to = &mut out[i * out_stride..][..width];
        for (to, from) in to.iter_mut().zip(x[i..].iter().step_by(stride)) {
            to.clone_from(from);
        }
    }
}

/// [`Turn`] for elements of four bytes, in registers.
fn turn_words(
    x: &[[u8; 4]],
    stride: usize,
    out: &mut [[u8; 4]],
    out_stride: usize,
    [height, width]: [usize; 2],
) {
    if height == 0 || width == 0 {
        return;
    }
    assert!(x.len() >= (width - 1) * stride + height, "the block lies within x");
    assert!(out.len() >= (height - 1) * out_stride + width, "the block lies within out");
    if [width, out_stride] == [3, 3] {
        let plane = |index: usize| &x[index * stride..][..height];
        return turn_pixels(plane(0), plane(1), plane(2), &mut out[..3 * height]);
    }
    // SAFETY: `width` rows of `height` elements, and the other way around, were just checked; unaligned addresses are fine.
    unsafe {
        let turn = super::table::best().turn;
        turn(x.as_ptr().cast(), stride, width, height, out.as_mut_ptr().cast(), out_stride);
    }
}

/// [`Turn`] for bytes.
fn turn_bytes(x: &[u8], stride: usize, out: &mut [u8], out_stride: usize, size: [usize; 2]) {
    let [height, width] = size;
    if [width, out_stride] != [3, 3] {
        return turn_each(x, stride, out, out_stride, size);
    }
    // The pixels of an image: four at a time are three words.
    let (a, a_rest) = x[..height].as_chunks::<4>();
    let (b, b_rest) = x[stride..][..height].as_chunks::<4>();
    let (c, c_rest) = x[2 * stride..][..height].as_chunks::<4>();
    let (fours, rest) = out[..3 * height].as_chunks_mut::<12>();
    for (to, ((a, b), c)) in fours.iter_mut().zip(a.iter().zip(b).zip(c)) {
        let [a, b, c] = [a, b, c].map(|bytes| u32::from_le_bytes(*bytes));
        let first = a & 0xff | b << 8 & 0xff00 | c << 16 & 0xff_0000 | a << 16 & 0xff00_0000;
        let second = b >> 8 & 0xff | c & 0xff00 | a & 0xff_0000 | b << 8 & 0xff00_0000;
        let third = c >> 16 & 0xff | a >> 16 & 0xff00 | b >> 8 & 0xff_0000 | c & 0xff00_0000;
        to[..4].copy_from_slice(&first.to_le_bytes());
        to[4..8].copy_from_slice(&second.to_le_bytes());
        to[8..].copy_from_slice(&third.to_le_bytes());
    }
    turn_pixels(a_rest, b_rest, c_rest, rest);
}

/// Three planes to pixels of three.
fn turn_pixels<T: Copy>(a: &[T], b: &[T], c: &[T], out: &mut [T]) {
    for (to, ((a, b), c)) in out.as_chunks_mut::<3>().0.iter_mut().zip(a.iter().zip(b).zip(c)) {
        *to = [*a, *b, *c];
    }
}

fn permute<T: Clone + Send + Sync>(
    plan: &TransposePlan,
    x: &[T],
    out: &mut [T],
    threads: &Threads,
    turn: Turn<T>,
) -> Result<(), KernelError> {
    expect_length("transpose", "x", plan.length, x.len())?;
    expect_length("transpose", "out", plan.length, out.len())?;
    let Some((last, outer)) = plan.dims.split_last() else { return Ok(()) };
    if out.is_empty() {
        return Ok(());
    }
    if last.stride == 1 {
        let rows = GRAIN.div_ceil(last.size);
        threads.for_each_slice(out, rows * last.size, |task, out| {
            let mut walk = Odometer::new(outer, task * rows);
            for row in out.chunks_exact_mut(last.size) {
                row.clone_from_slice(&x[walk.offset..][..last.size]);
                walk.advance();
            }
        });
        return Ok(());
    }
    // Some output axis has input stride 1: together with the last it makes planes to turn.
    let Some(unit) = outer.iter().position(|dim| dim.stride == 1) else { return Ok(()) };
    let between: usize = outer[unit + 1..].iter().map(|dim| dim.size).product();
    let height = outer[unit].size;
    // One output slab holds all of the axes from `unit` on.
    let slab = height * between * last.size;
    let slabs = out.len() / slab;
    if slabs >= threads.count() || threads.count() == 1 {
        threads.for_each_slice(out, GRAIN.div_ceil(slab) * slab, |task, out| {
            let mut walk = Odometer::new(&outer[..unit], task * GRAIN.div_ceil(slab));
            for out in out.chunks_exact_mut(slab) {
                turn_slab(&x[walk.offset..], out, 0..height, &outer[unit + 1..], *last, turn);
                walk.advance();
            }
        });
    } else {
        // Few slabs: each is cut along its first axis, and rows of the input are shared.
        let mut walk = Odometer::new(&outer[..unit], 0);
        let row = between * last.size;
        let rows = GRAIN.div_ceil(row).next_multiple_of(BLOCK);
        for out in out.chunks_exact_mut(slab) {
            threads.for_each_slice(out, rows * row, |task, out| {
                let first = task * rows;
                let range = first..first + out.len() / row;
                turn_slab(&x[walk.offset..], out, range, &outer[unit + 1..], *last, turn);
            });
            walk.advance();
        }
    }
    Ok(())
}

/// [`transpose`] on bytes, for elements of 1, 2, 4, 8 or 16.
pub fn transpose_bytes(
    plan: &TransposePlan,
    element_size: usize,
    x: &[u8],
    out: &mut [u8],
    threads: &Threads,
) -> Result<(), KernelError> {
    macro_rules! sized {
        ($($size:literal)+) => {
            match element_size {
                $($size => {
                    let ((x, rest), (out, out_rest)) = (x.as_chunks::<$size>(), out.as_chunks_mut::<$size>());
                    expect_length("transpose", "x", 0, rest.len())?;
                    expect_length("transpose", "out", 0, out_rest.len())?;
                    transpose(plan, x, out, threads)
                })+
                _ => Err(KernelError::Descriptor {
                    kernel: "transpose",
                    argument: "element_size",
                    problem: "is not 1, 2, 4, 8 or 16",
                }),
            }
        };
    }
    if element_size == 4 {
        let ((x, rest), (out, out_rest)) = (x.as_chunks::<4>(), out.as_chunks_mut::<4>());
        expect_length("transpose", "x", 0, rest.len())?;
        expect_length("transpose", "out", 0, out_rest.len())?;
        return permute(plan, x, out, threads, turn_words);
    }
    if element_size == 1 {
        return permute(plan, x, out, threads, turn_bytes);
    }
    sized!(2 8 16)
}

/// `out[i][m][j] = x[(rows.start + i) + middle offset m + j * last.stride]`, with `i` over `rows` and `m` over the axes of
/// `middle`.
fn turn_slab<T: Clone>(
    x: &[T],
    out: &mut [T],
    rows: std::ops::Range<usize>,
    middle: &[Dim],
    last: Dim,
    turn: Turn<T>,
) {
    let count: usize = middle.iter().map(|dim| dim.size).product();
    let row = count * last.size;
    let height = rows.len();
    // Few rows of input are streams.
    let side = if last.size <= NARROW { height.max(1) } else { BLOCK };
    let mut walk = Odometer::new(middle, 0);
    for m in 0..count {
        let x = &x[walk.offset + rows.start..];
        let mut top = 0;
        while top < height {
            let bottom = (top + side).min(height);
            let mut left = 0;
            while left < last.size {
                let right = (left + BLOCK).min(last.size);
                let from = &x[top + left * last.stride..];
                let to = &mut out[top * row + m * last.size + left..];
                turn(from, last.stride, to, row, [bottom - top, right - left]);
                left = right;
            }
            top = bottom;
        }
        walk.advance();
    }
}

/// `out[j * out_stride + i] = x[i * stride + j]` for `rows` by `columns` floats.
///
/// # Safety
/// `rows` rows of `columns` floats must be readable, `columns` rows of `rows` floats writable, without overlap.
#[inline(always)]
pub(super) unsafe fn turn<I: Isa>(
    isa: I,
    x: *const f32,
    stride: usize,
    rows: usize,
    columns: usize,
    out: *mut f32,
    out_stride: usize,
) {
    let (whole_rows, whole_columns) = (rows / I::LANES * I::LANES, columns / I::LANES * I::LANES);
    // SAFETY: squares and single elements within what the caller vouches for.
    unsafe {
        let mut row = 0;
        while row < whole_rows {
            let mut column = 0;
            while column < whole_columns {
                let from = x.add(row * stride + column);
                isa.turn_square(from, stride, out.add(column * out_stride + row), out_stride);
                column += I::LANES;
            }
            row += I::LANES;
        }
        for row in 0..rows {
            let first = if row < whole_rows { whole_columns } else { 0 };
            for column in first..columns {
                let value = x.add(row * stride + column).read_unaligned();
                out.add(column * out_stride + row).write_unaligned(value);
            }
        }
    }
}

/// Walks axes in order and keeps the input offset, without allocation per step.
struct Odometer<'a> {
    dims: &'a [Dim],
    index: usize,
    offset: usize,
}

impl<'a> Odometer<'a> {
    fn new(dims: &'a [Dim], index: usize) -> Odometer<'a> {
        let mut walk = Odometer { dims, index, offset: 0 };
        walk.locate();
        walk
    }

    fn locate(&mut self) {
        let mut rest = self.index;
        self.offset = 0;
        for dim in self.dims.iter().rev() {
            self.offset += rest % dim.size * dim.stride;
            rest /= dim.size;
        }
    }

    fn advance(&mut self) {
        self.index += 1;
        match self.dims.last() {
            Some(dim) if !self.index.is_multiple_of(dim.size) => self.offset += dim.stride,
            _ => self.locate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(shape: &[usize], permutation: &[usize]) -> Vec<u32> {
        let out_shape: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
        let length: usize = shape.iter().product();
        (0..length)
            .map(|index| {
                let mut position = vec![0; shape.len()];
                let mut rest = index;
                for (at, &size) in out_shape.iter().enumerate().rev() {
                    position[permutation[at]] = rest % size;
                    rest /= size;
                }
                shape.iter().zip(&position).fold(0, |offset, (&size, &p)| offset * size + p) as u32
            })
            .collect()
    }

    #[test]
    fn every_permutation() {
        let shapes: [&[usize]; 9] = [
            &[],
            &[7],
            &[5, 9],
            &[100, 33],
            &[2, 17, 19],
            &[3, 1, 40],
            &[2, 3, 4, 5],
            &[1, 20, 3, 17],
            &[2, 3, 1, 4, 3],
        ];
        for shape in shapes {
            let mut permutations = vec![vec![]];
            for axis in 0..shape.len() {
                permutations = permutations
                    .iter()
                    .flat_map(|p: &Vec<usize>| {
                        (0..=p.len()).map(move |at| {
                            let mut p = p.clone();
                            p.insert(at, axis);
                            p
                        })
                    })
                    .collect();
            }
            let x: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
            for permutation in permutations {
                let plan = TransposePlan::new(shape, &permutation).unwrap();
                let expected = naive(shape, &permutation);
                let mut out = vec![u32::MAX; x.len()];
                transpose(&plan, &x, &mut out, &Threads::single()).unwrap();
                assert_eq!(out, expected, "{shape:?} {permutation:?}");
                let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
                let mut turned = vec![0; bytes.len()];
                transpose_bytes(&plan, 4, &bytes, &mut turned, &Threads::single()).unwrap();
                assert!(
                    turned.as_chunks::<4>().0.iter().zip(&out).all(|(a, b)| u32::from_le_bytes(*a) == *b)
                );
                let (x, out): (Vec<u8>, Vec<u8>) =
                    x.iter().zip(&out).map(|(x, y)| (*x as u8, *y as u8)).unzip();
                let mut turned = vec![0; x.len()];
                transpose_bytes(&plan, 1, &x, &mut turned, &Threads::single()).unwrap();
                assert_eq!(turned, out);
            }
        }
    }

    #[test]
    fn large_planes_on_threads() {
        for (shape, permutation) in [
            (vec![300, 500], vec![1, 0]),
            (vec![5, 70, 900], vec![0, 2, 1]),
            (vec![2, 3, 30_001], vec![0, 2, 1]),
            (vec![64, 70, 90], vec![2, 0, 1]),
        ] {
            let plan = TransposePlan::new(&shape, &permutation).unwrap();
            let x: Vec<u32> = (0..plan.length as u32).collect();
            let mut out = vec![0; x.len()];
            transpose(&plan, &x, &mut out, &Threads::new(3)).unwrap();
            assert_eq!(out, naive(&shape, &permutation));
            let narrow: Vec<u8> = x.iter().map(|&x| x as u8).collect();
            let mut turned = vec![0; x.len()];
            transpose_bytes(&plan, 1, &narrow, &mut turned, &Threads::new(3)).unwrap();
            assert!(turned.iter().zip(&out).all(|(a, b)| *a == *b as u8));
        }
    }

    #[test]
    fn lying_descriptors_are_refused() {
        assert!(TransposePlan::new(&[2, 3], &[0]).is_err());
        assert!(TransposePlan::new(&[2, 3], &[0, 0]).is_err());
        assert!(TransposePlan::new(&[2, 3], &[0, 2]).is_err());
        assert!(TransposePlan::new(&[1 << 40, 1 << 40], &[0, 1]).is_err());
        let plan = TransposePlan::new(&[2, 3], &[1, 0]).unwrap();
        let single = Threads::single();
        assert!(transpose(&plan, &[0; 5], &mut [0; 6], &single).is_err());
        assert!(transpose(&plan, &[0; 6], &mut [0; 5], &single).is_err());
        assert!(transpose_bytes(&plan, 4, &[0; 24], &mut [0; 25], &single).is_err());
        assert!(transpose_bytes(&plan, 3, &[0; 18], &mut [0; 18], &single).is_err());
        let empty = TransposePlan::new(&[0, 3], &[1, 0]).unwrap();
        assert!(transpose::<u8>(&empty, &[], &mut [], &single).is_ok());
    }
}
