//! Attention: `softmax(scale Q K^T + mask) V` for every head, without the matrix of all scores.
//!
//! Keys and values are packed once per head. A task takes a block of query rows and a block of keys at a time: their
//! scores stay in the first-level cache, become weights there and are multiplied with the values. When the keys
//! need more than one block, what has been summed is rescaled to the new maximum ("online softmax"),
//! so memory does not grow with the square of the sequence. Rows have strides, so heads need no transposition.

use super::error::{KernelError, expect_length, product as size_of_product};
use super::gemm::Plain;
use super::isa::Isa;
use super::math;
use super::pack::{Columns, PackedView, PanelWidth, pack_panels};
use super::product::{Epilogue, Output, product};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use crate::tensor::buffer::bytes_of;
use std::mem::MaybeUninit;

const KERNEL: &str = "attention";

/// Where the rows of a matrix per batch and head lie: row `i` of head `h` of batch `b` begins at
/// `b * batch + h * head + i * row` and is contiguous. For a mask, 0 repeats along that axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct HeadStrides {
    pub batch: usize,
    pub head: usize,
    pub row: usize,
}

impl HeadStrides {
    /// A tensor `[batch, heads, rows, depth]`.
    pub fn heads_first(heads: usize, rows: usize, depth: usize) -> HeadStrides {
        let head = rows.saturating_mul(depth);
        HeadStrides { batch: heads.saturating_mul(head), head, row: depth }
    }

    /// A tensor `[batch, rows, heads, depth]`, which is also `[batch, rows, heads * depth]`.
    pub fn rows_first(heads: usize, rows: usize, depth: usize) -> HeadStrides {
        let row = heads.saturating_mul(depth);
        HeadStrides { batch: rows.saturating_mul(row), head: depth, row }
    }
}

/// The geometry of an attention: queries `[queries, depth]`, keys `[keys, depth]`, values `[keys, value_depth]` and
/// output `[queries, value_depth]` for each of `heads` heads and `batch` batches.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Attention {
    pub batch: usize,
    /// Heads of queries and output.
    pub heads: usize,
    /// Heads of keys and values: divides `heads`, and neighbouring heads of queries share one.
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub depth: usize,
    pub value_depth: usize,
    /// Factor of the scores, usually `1 / sqrt(depth)`.
    pub scale: f32,
    /// `Some(past)`: query `i` sees the keys up to and with `i + past`.
    pub causal: Option<usize>,
    pub q: HeadStrides,
    pub k: HeadStrides,
    pub v: HeadStrides,
    pub out: HeadStrides,
    /// Added to the scaled scores; a row has `keys` elements.
    pub mask: Option<HeadStrides>,
    /// Weights that are not a number count as 0: a row that sees no key is 0.
    pub zero_for_nan: bool,
}

/// Query rows of a task.
const BLOCK_ROWS: usize = 24;
/// Keys whose scores are held at a time; a multiple of every panel's width.
const BLOCK_KEYS: usize = 256;
/// Multiplications below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 64 * 1024;

impl Attention {
    /// All inputs and the output as `[batch, heads, rows, depth]`, no mask, `scale = 1 / sqrt(depth)`.
    pub fn heads_first(batch: usize, heads: usize, queries: usize, keys: usize, depth: usize) -> Attention {
        let rows = HeadStrides::heads_first(heads, queries, depth);
        let columns = HeadStrides::heads_first(heads, keys, depth);
        Attention {
            batch,
            heads,
            kv_heads: heads,
            queries,
            keys,
            depth,
            value_depth: depth,
            scale: (depth as f32).sqrt().recip(),
            causal: None,
            q: rows,
            k: columns,
            v: columns,
            out: rows,
            mask: None,
            zero_for_nan: false,
        }
    }

    /// As [`Attention::heads_first`], with tensors `[batch, rows, heads, depth]`.
    pub fn rows_first(batch: usize, heads: usize, queries: usize, keys: usize, depth: usize) -> Attention {
        let rows = HeadStrides::rows_first(heads, queries, depth);
        let columns = HeadStrides::rows_first(heads, keys, depth);
        Attention {
            q: rows,
            k: columns,
            v: columns,
            out: rows,
            ..Attention::heads_first(batch, heads, queries, keys, depth)
        }
    }

    /// Fails when the heads do not divide, when output rows overlap, or when sizes exceed what can be addressed.
    pub fn check(&self) -> Result<(), KernelError> {
        let error = |argument, problem| Err(KernelError::Descriptor { kernel: KERNEL, argument, problem });
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return error("kv_heads", "does not divide the heads");
        }
        size_of_product(KERNEL, "scores", &[self.batch, self.heads, self.queries, self.keys])?;
        // From the shortest stride to the longest, each must step over all that the shorter ones reach.
        let mut axes =
            [(self.out.batch, self.batch), (self.out.head, self.heads), (self.out.row, self.queries)];
        axes.sort_unstable();
        let mut reach = self.value_depth;
        for (stride, count) in axes.into_iter().filter(|&(_, count)| count > 1) {
            if stride < reach {
                return error("out", "has rows that overlap");
            }
            reach = match stride.checked_mul(count) {
                Some(reach) => reach,
                None => return error("out", "describes more than can be addressed"),
            };
        }
        Ok(())
    }

    /// Floats of scratch memory that [`Kernels::attention`] asks for: the packed keys and values.
    pub fn scratch(&self, kernels: &Kernels) -> Result<usize, KernelError> {
        size_of_product(KERNEL, "scratch", &[self.batch, self.kv_heads, self.head_scratch(kernels)?])
    }

    fn head_scratch(&self, kernels: &Kernels) -> Result<usize, KernelError> {
        let (keys, values) = self.packed_sizes(kernels)?;
        keys.checked_add(values).ok_or(KernelError::Descriptor {
            kernel: KERNEL,
            argument: "scratch",
            problem: "describes more than can be addressed",
        })
    }

    /// Floats of the packed keys and values of a head. Blocks of keys are packed one after the other, each on its own.
    fn packed_sizes(&self, kernels: &Kernels) -> Result<(usize, usize), KernelError> {
        let padded = |size: usize| size.checked_next_multiple_of(kernels.lanes).unwrap_or(usize::MAX);
        let keys = size_of_product(KERNEL, "k", &[self.depth, padded(self.keys)])?;
        let values = size_of_product(KERNEL, "v", &[self.keys, padded(self.value_depth)])?;
        Ok((keys.next_multiple_of(16), values.next_multiple_of(16)))
    }

    /// Elements that a tensor of these strides must have at least.
    fn reach(
        &self,
        argument: &'static str,
        strides: HeadStrides,
        heads: usize,
        rows: usize,
        width: usize,
    ) -> Result<usize, KernelError> {
        let sizes = [(self.batch, strides.batch), (heads, strides.head), (rows, strides.row)];
        if sizes.iter().any(|&(count, _)| count == 0) {
            return Ok(0);
        }
        let last = sizes.iter().try_fold(width, |sum, &(count, stride)| {
            (count - 1).checked_mul(stride).and_then(|offset| sum.checked_add(offset))
        });
        last.ok_or(KernelError::Descriptor {
            kernel: KERNEL,
            argument,
            problem: "describes more than can be addressed",
        })
    }
}

impl Kernels {
    /// `out = softmax(scale * q k^T + mask) v` along the keys. A row without any key, or whose keys are all masked by minus
    /// infinity, is NaN, as the definition has it, unless [`Attention::zero_for_nan`].
    ///
    /// The slices may be longer than the geometry needs (parts of one tensor of queries, keys and values, say).
    /// `mask` must be there exactly if the geometry has its strides. `scratch` must hold [`Attention::scratch`]
    /// floats; its content does not matter.
    #[allow(clippy::too_many_arguments, reason = "an attention has these")]
    pub fn attention(
        &self,
        attention: &Attention,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        mask: Option<&[f32]>,
        out: &mut [f32],
        scratch: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        attention.check()?;
        let Attention { batch, heads, kv_heads, queries, keys, depth, value_depth, .. } = *attention;
        let at_least = |argument, expected, actual| {
            if actual >= expected {
                Ok(())
            } else {
                Err(KernelError::Length { kernel: KERNEL, argument, expected, actual })
            }
        };
        at_least("q", attention.reach("q", attention.q, heads, queries, depth)?, q.len())?;
        at_least("k", attention.reach("k", attention.k, kv_heads, keys, depth)?, k.len())?;
        at_least("v", attention.reach("v", attention.v, kv_heads, keys, value_depth)?, v.len())?;
        at_least("out", attention.reach("out", attention.out, heads, queries, value_depth)?, out.len())?;
        match (attention.mask, mask) {
            (Some(strides), Some(mask)) => {
                at_least("mask", attention.reach("mask", strides, heads, queries, keys)?, mask.len())?;
            }
            (None, None) => {}
            _ => {
                return Err(KernelError::Descriptor {
                    kernel: KERNEL,
                    argument: "mask",
                    problem: "and its strides must be given together",
                });
            }
        }
        let per_head = attention.head_scratch(self)?;
        expect_length(KERNEL, "scratch", attention.scratch(self)?, scratch.len())?;
        if batch * heads * queries * value_depth == 0 {
            return Ok(());
        }
        let single = Threads::single();
        let work = batch * heads * queries * keys * (depth + value_depth);
        let threads = if work < PARALLEL_WORK { &single } else { threads };
        let (packed_keys, _) = attention.packed_sizes(self)?;
        let strided = |strides: HeadStrides, batch, head| batch * strides.batch + head * strides.head;
        if per_head > 0 {
            threads.for_each_slice(scratch, per_head, |index, packed| {
                let (batch, head) = (index / kv_heads, index % kv_heads);
                let (to_keys, to_values) = packed.split_at_mut(packed_keys);
                let from = strided(attention.k, batch, head);
                pack_keys(self, attention, &k[from.min(k.len())..], to_keys);
                let from = strided(attention.v, batch, head);
                pack_values(self, attention, &v[from.min(v.len())..], to_values);
            });
        }
        let scratch = &*scratch;
        let blocks = queries.div_ceil(BLOCK_ROWS);
        let to = SendPtr(out.as_mut_ptr());
        threads.for_each(batch * heads * blocks, |task| {
            let (index, block) = (task / blocks, task % blocks);
            let (batch, head) = (index / heads, index % heads);
            let first = block * BLOCK_ROWS;
            let kv_head = batch * kv_heads + head / (heads / kv_heads);
            let packed = &scratch[kv_head * per_head..(kv_head + 1) * per_head];
            let (packed_keys, packed_values) = packed.split_at(packed_keys);
            let at = strided(attention.q, batch, head) + first * attention.q.row;
            let out_at = strided(attention.out, batch, head) + first * attention.out.row;
            let mask = match (mask, attention.mask) {
                (Some(mask), Some(strides)) if keys > 0 => {
                    mask[strided(strides, batch, head) + first * strides.row..].as_ptr()
                }
                _ => std::ptr::null(),
            };
            let work = Block {
                kernels: self,
                attention,
                first,
                rows: BLOCK_ROWS.min(queries - first),
                q: q[at.min(q.len())..].as_ptr(),
                keys: packed_keys,
                values: packed_values,
                mask,
                // SAFETY: the offset lies within the output.
                out: unsafe { to.get().add(out_at) },
            };
            // SAFETY: all reaches were checked, and the rows of the output belong to this task alone.
            unsafe { work.run() };
        });
        Ok(())
    }
}

/// Block after block of keys, each a packed `[depth, keys of the block]`.
fn pack_keys(kernels: &Kernels, attention: &Attention, k: &[f32], packed: &mut [f32]) {
    let depth = attention.depth;
    let mut rest = packed;
    for first in (0..attention.keys).step_by(BLOCK_KEYS) {
        let count = BLOCK_KEYS.min(attention.keys - first);
        let (block, after) = rest.split_at_mut(depth * count.next_multiple_of(kernels.lanes));
        let offset = first * attention.k.row;
        let columns = Columns::plain(depth, count, offset, 1, attention.k.row);
        pack_panels(kernels, columns, bytes_of(k), block, &Threads::single());
        rest = after;
    }
}

/// Block after block of keys, each a packed `[keys of the block, value_depth]`.
fn pack_values(kernels: &Kernels, attention: &Attention, v: &[f32], packed: &mut [f32]) {
    let mut rest = packed;
    for first in (0..attention.keys).step_by(BLOCK_KEYS) {
        let count = BLOCK_KEYS.min(attention.keys - first);
        let (block, after) = rest.split_at_mut(count * attention.value_depth.next_multiple_of(kernels.lanes));
        let (n, offset) = (attention.value_depth, first * attention.v.row);
        let columns = Columns::plain(count, n, offset, attention.v.row, 1);
        pack_panels(kernels, columns, bytes_of(v), block, &Threads::single());
        rest = after;
    }
}

/// A block of query rows of one head.
struct Block<'a> {
    kernels: &'a Kernels,
    attention: &'a Attention,
    /// The first query, for causal masks.
    first: usize,
    rows: usize,
    q: *const f32,
    keys: &'a [f32],
    values: &'a [f32],
    /// Null for none.
    mask: *const f32,
    out: *mut f32,
}

/// Scores of a block of queries and keys.
#[repr(align(64))]
struct Scores([MaybeUninit<f32>; BLOCK_ROWS * BLOCK_KEYS]);

impl Block<'_> {
    /// # Safety
    /// The pointers must be good for the geometry, and nobody else may touch the rows of the output.
    unsafe fn run(&self) {
        let Attention { keys, depth, value_depth, causal, .. } = *self.attention;
        let (single, plain) = (Threads::single(), Epilogue::default());
        let (width, lanes) = (PanelWidth::of(self.kernels), self.kernels.lanes);
        let mut memory = Scores([MaybeUninit::uninit(); BLOCK_ROWS * BLOCK_KEYS]);
        let scores: *mut f32 = memory.0.as_mut_ptr().cast();
        let mut greatest = [f32::NEG_INFINITY; BLOCK_ROWS];
        let mut sums = [0.0f32; BLOCK_ROWS];
        let row_stride = self.attention.out.row;
        // The last query of the block sees the most.
        let seen = causal.map_or(keys, |past| keys.min((self.first + self.rows).saturating_add(past)));
        for begin in (0..seen).step_by(BLOCK_KEYS) {
            // Blocks are packed whole, whatever a causal mask leaves of them.
            let count = BLOCK_KEYS.min(keys - begin);
            let packed = depth * count.next_multiple_of(lanes);
            let panels = &self.keys[depth * begin..][..packed];
            let view = PackedView { panels, bias: None, k: depth, n: count, width };
            let rows = Plain { data: self.q, stride: self.attention.q.row, depth };
            let output =
                Output { data: scores, stride: BLOCK_KEYS, residual: std::ptr::null(), epilogue: &plain };
            // SAFETY: `rows` rows of q and of the scores, of `count <= BLOCK_KEYS` columns.
            unsafe { product(self.kernels, &rows, self.rows, view, output, &single) };
            for row in 0..self.rows {
                let allowed = causal.map_or(count, |past| {
                    count.min((self.first + row + 1).saturating_add(past).saturating_sub(begin))
                });
                let weights = Weights {
                    // SAFETY: the row lies within the block of scores.
                    scores: unsafe { scores.add(row * BLOCK_KEYS) },
                    mask: if self.mask.is_null() {
                        self.mask
                    } else {
                        let stride = self.attention.mask.map_or(0, |strides| strides.row);
                        self.mask.wrapping_add(row * stride + begin)
                    },
                    allowed,
                    count,
                    scale: self.attention.scale,
                    greatest: greatest[row],
                };
                // SAFETY: `count` scores and as many elements of the mask's row.
                let (new_greatest, sum) = unsafe { (self.kernels.attention_weights)(&weights) };
                if begin > 0 {
                    let fade = fade(greatest[row], new_greatest);
                    sums[row] *= fade;
                    // SAFETY: a row of the output.
                    unsafe { self.scale_row(row, fade) };
                }
                greatest[row] = new_greatest;
                sums[row] += sum;
            }
            let padded = value_depth.next_multiple_of(lanes);
            let panels = &self.values[padded * begin..][..padded * count];
            let view = PackedView { panels, bias: None, k: count, n: value_depth, width };
            let rows = Plain { data: scores, stride: BLOCK_KEYS, depth: count };
            let residual = if begin > 0 { self.out.cast_const() } else { std::ptr::null() };
            let output = Output { data: self.out, stride: row_stride, residual, epilogue: &plain };
            // SAFETY: the weights were written; the residual is the output itself, which the tile reads
            // where it is about to write.
            unsafe { product(self.kernels, &rows, self.rows, view, output, &single) };
        }
        for row in 0..self.rows {
            // The sum is 0 where all keys are masked, and NaN where a score is.
            let zero = self.attention.zero_for_nan && (sums[row] == 0.0 || sums[row].is_nan());
            // SAFETY: a row of the output.
            unsafe {
                if zero || seen == 0 {
                    std::slice::from_raw_parts_mut(self.out.add(row * row_stride), value_depth)
                        .fill(if zero { 0.0 } else { f32::NAN });
                } else {
                    self.scale_row(row, 1.0 / sums[row]);
                }
            }
        }
    }

    /// # Safety
    /// The row must be written and this task's.
    unsafe fn scale_row(&self, row: usize, factor: f32) {
        // SAFETY: as the caller vouches.
        let row = unsafe {
            let at = self.out.add(row * self.attention.out.row);
            std::slice::from_raw_parts_mut(at, self.attention.value_depth)
        };
        row.iter_mut().for_each(|value| *value *= factor);
    }
}

/// What sums for the maximum `old` are multiplied by when it becomes `new`.
fn fade(old: f32, new: f32) -> f32 {
    // Nothing was seen before: the sums are zero, and the difference of infinities would be NaN.
    if old == f32::NEG_INFINITY { 0.0 } else { (old - new).exp() }
}

/// A row of scores that become weights.
pub(super) struct Weights {
    /// Read and written.
    scores: *mut f32,
    /// Null for none.
    mask: *const f32,
    /// Scores that count; the others get the weight 0.
    allowed: usize,
    count: usize,
    scale: f32,
    /// The greatest score of the blocks before.
    greatest: f32,
}

/// `scores = e^(scale * scores + mask - greatest)`; returns the greatest of them and of the row so far, and the sum.
///
/// # Safety
/// `scores` must be writable for `count` floats, and the mask readable.
#[inline(always)]
pub(super) unsafe fn attention_weights<I: Isa>(isa: I, work: &Weights) -> (f32, f32) {
    let scale = isa.splat(work.scale);
    // SAFETY: at most `allowed - index` elements are touched at `index`; `allowed <= count`.
    unsafe {
        let mut largest = isa.splat(work.greatest);
        let mut index = 0;
        while index < work.allowed {
            let left = (work.allowed - index).min(I::LANES);
            let at = work.scores.add(index);
            let full = left == I::LANES;
            let mut score = if full { isa.load(at) } else { isa.load_partial(at, left) };
            score = if work.mask.is_null() {
                isa.mul(score, scale)
            } else {
                let from = work.mask.add(index);
                let mask = if full { isa.load(from) } else { isa.load_partial(from, left) };
                isa.mul_add(score, scale, mask)
            };
            if full {
                isa.store(at, score);
                largest = isa.max(largest, score);
            } else {
                isa.store_partial(at, score, left);
                for &lane in &isa.lanes(score)[..left] {
                    largest = isa.max(largest, isa.splat(lane));
                }
            }
            index += I::LANES;
        }
        let greatest = isa.reduce_max(largest);
        // All are minus infinity: any finite shift makes them weigh nothing.
        let shift = isa.splat(if greatest == f32::NEG_INFINITY { 0.0 } else { greatest });
        let mut sums = isa.splat(0.0);
        index = 0;
        while index + I::LANES <= work.allowed {
            let at = work.scores.add(index);
            let weight = math::exp_nonpositive(isa, isa.sub(isa.load(at), shift));
            isa.store(at, weight);
            sums = isa.add(sums, weight);
            index += I::LANES;
        }
        let mut sum = isa.reduce_add(sums);
        if index < work.allowed {
            let (at, left) = (work.scores.add(index), work.allowed - index);
            let weight = math::exp_nonpositive(isa, isa.sub(isa.load_partial(at, left), shift));
            isa.store_partial(at, weight, left);
            for &lane in &isa.lanes(weight)[..left] {
                sum += lane;
            }
        }
        for index in work.allowed..work.count {
            work.scores.add(index).write(0.0);
        }
        (greatest, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    /// By the definition, in f64.
    fn naive(attention: &Attention, q: &[f32], k: &[f32], v: &[f32], mask: Option<&[f32]>) -> Vec<f64> {
        let a = attention;
        let at = |s: HeadStrides, b: usize, h: usize, i: usize| b * s.batch + h * s.head + i * s.row;
        let mut out = vec![0.0; a.batch * a.heads * a.queries * a.value_depth];
        for b in 0..a.batch {
            for h in 0..a.heads {
                let kv = h / (a.heads / a.kv_heads);
                for i in 0..a.queries {
                    let score = |j: usize| {
                        if a.causal.is_some_and(|past| j > i + past) {
                            return f64::NEG_INFINITY;
                        }
                        let products = (0..a.depth).map(|d| {
                            f64::from(q[at(a.q, b, h, i) + d]) * f64::from(k[at(a.k, b, kv, j) + d])
                        });
                        let mask = mask.map_or(0.0, |mask| f64::from(mask[at(a.mask.unwrap(), b, h, i) + j]));
                        products.sum::<f64>() * f64::from(a.scale) + mask
                    };
                    let scores: Vec<f64> = (0..a.keys).map(score).collect();
                    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for d in 0..a.value_depth {
                        let weigh = |j: usize| weights[j] / sum * f64::from(v[at(a.v, b, kv, j) + d]);
                        out[at(a.out, b, h, i) + d] = (0..a.keys).map(weigh).sum::<f64>();
                    }
                }
            }
        }
        out
    }

    fn run(
        kernels: &Kernels,
        attention: &Attention,
        inputs: [&[f32]; 3],
        mask: Option<&[f32]>,
        threads: &Threads,
    ) -> Vec<f32> {
        let mut scratch = vec![f32::NAN; attention.scratch(kernels).unwrap()];
        let mut out =
            vec![7.0; attention.batch * attention.heads * attention.queries * attention.value_depth];
        let [q, k, v] = inputs;
        kernels.attention(attention, q, k, v, mask, &mut out, &mut scratch, threads).unwrap();
        out
    }

    #[test]
    fn agrees_with_the_definition_in_both_layouts() {
        for kernels in available() {
            for threads in [Threads::single(), Threads::new(3)] {
                for (batch, heads, queries, keys, depth) in [
                    (1, 1, 1, 1, 1),
                    (2, 3, 5, 7, 4),
                    (1, 2, 25, 33, 9),
                    (1, 4, 49, 300, 16),
                    (1, 1, 3, 700, 32),
                ] {
                    let q = random(batch * heads * queries * depth, 1);
                    let k = random(batch * heads * keys * depth, 2);
                    let v = random(batch * heads * keys * depth, 3);
                    let make = [Attention::heads_first, Attention::rows_first];
                    for attention in make.map(|make| make(batch, heads, queries, keys, depth)) {
                        // Sharp enough that the maximum moves between blocks.
                        let attention = Attention { scale: 3.0, ..attention };
                        let expected = naive(&attention, &q, &k, &v, None);
                        let out = run(kernels, &attention, [&q, &k, &v], None, &threads);
                        assert_close(&out, &expected, 1e-5);
                        assert_eq!(out, run(kernels, &attention, [&q, &k, &v], None, &threads));
                    }
                }
            }
        }
    }

    #[test]
    fn masks_shared_heads_and_other_depths_of_values() {
        let (batch, heads, queries, keys, depth, value_depth) = (2, 4, 30, 290, 8, 5);
        for kernels in available() {
            let q = random(batch * heads * queries * depth, 4);
            let k = random(batch * 2 * keys * depth, 5);
            let v = random(batch * 2 * keys * value_depth, 6);
            // Rows of a batch share the mask; the first block of keys of the second batch is masked altogether.
            let mut mask = random(batch * keys, 7);
            mask[keys..keys + 270].fill(f32::NEG_INFINITY);
            for causal in [None, Some(3), Some(265)] {
                let attention = Attention {
                    kv_heads: 2,
                    value_depth,
                    causal,
                    k: HeadStrides::heads_first(2, keys, depth),
                    v: HeadStrides::heads_first(2, keys, value_depth),
                    out: HeadStrides::rows_first(heads, queries, value_depth),
                    mask: Some(HeadStrides { batch: keys, head: 0, row: 0 }),
                    ..Attention::heads_first(batch, heads, queries, keys, depth)
                };
                let expected = naive(&attention, &q, &k, &v, Some(&mask));
                let out = run(kernels, &attention, [&q, &k, &v], Some(&mask), &Threads::new(2));
                assert_close(&out, &expected, 1e-5);
            }
        }
    }

    #[test]
    fn without_keys_there_is_no_answer() {
        for kernels in available() {
            let attention = Attention::heads_first(1, 1, 2, 0, 3);
            let out = run(kernels, &attention, [&[0.0; 6], &[], &[]], None, &Threads::single());
            assert!(out.iter().all(|value| value.is_nan()));
            let attention = Attention { zero_for_nan: true, ..attention };
            let out = run(kernels, &attention, [&[0.0; 6], &[], &[]], None, &Threads::single());
            assert_eq!(out, [0.0; 6]);
        }
    }

    /// Of four queries, one sees no key, and one meets a score that is not a number.
    #[test]
    fn weights_that_are_not_a_number_may_count_as_nothing() {
        let (queries, keys, depth) = (4, 300, 5);
        for kernels in available() {
            let (mut q, k) = (random(queries * depth, 1), random(keys * depth, 2));
            let mut mask = random(queries * keys, 3);
            mask[keys..2 * keys].fill(f32::NEG_INFINITY);
            q[2 * depth] = f32::NAN;
            let row = HeadStrides { batch: 0, head: 0, row: keys };
            let attention =
                Attention { mask: Some(row), ..Attention::heads_first(1, 1, queries, keys, depth) };
            let expected = naive(&attention, &q, &k, &k, Some(&mask));
            assert!(expected[depth..3 * depth].iter().all(|value| value.is_nan()));
            let expected: Vec<f64> =
                expected.iter().map(|&value| if value.is_nan() { 0.0 } else { value }).collect();
            let attention = Attention { zero_for_nan: true, ..attention };
            let out = run(kernels, &attention, [&q, &k, &k], Some(&mask), &Threads::single());
            assert_close(&out, &expected, 1e-5);
        }
    }

    #[test]
    fn lying_descriptors_are_refused() {
        let kernels = available()[0];
        let single = Threads::single();
        let good = Attention::heads_first(1, 2, 3, 4, 5);
        let (q, kv) = ([0.0; 30], [0.0; 40]);
        let try_out = |attention: &Attention, q: &[f32], mask: Option<&[f32]>, length: usize| {
            let mut scratch = vec![0.0; good.scratch(kernels).unwrap()];
            let mut out = vec![0.0; length];
            kernels.attention(attention, q, &kv, &kv, mask, &mut out, &mut scratch, &single)
        };
        assert!(try_out(&good, &q, None, 30).is_ok());
        assert!(try_out(&good, &q[..29], None, 30).is_err());
        assert!(try_out(&good, &q, None, 29).is_err());
        assert!(try_out(&good, &q, Some(&[0.0; 4]), 30).is_err());
        assert!(try_out(&Attention { kv_heads: 0, ..good }, &q, None, 30).is_err());
        assert!(try_out(&Attention { queries: usize::MAX, ..good }, &q, None, 30).is_err());
        let strides = HeadStrides { row: 4, ..good.out };
        assert!(try_out(&Attention { out: strides, ..good }, &q, None, 30).is_err());
        let strides = HeadStrides { head: usize::MAX, ..good.q };
        assert!(try_out(&Attention { q: strides, ..good }, &q, None, 30).is_err());
        let strides = Some(HeadStrides { batch: 0, head: 4, row: 0 });
        assert!(try_out(&Attention { mask: strides, ..good }, &q, Some(&[0.0; 7]), 30).is_err());
        assert!(try_out(&Attention { mask: strides, ..good }, &q, Some(&[0.0; 8]), 30).is_ok());
    }
}
