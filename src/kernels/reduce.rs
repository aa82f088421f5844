//! Reductions over any set of axes.
//!
//! A plan merges neighbouring axes of a kind, which leaves two inner loops: a contiguous row to one element, or rows added
//! up column by column. Sums are taken in two levels (many short sums, then their sum), so that their error grows with
//! the logarithm of the length and not with the length.

use super::element::{Number, Truth};
use super::error::{KernelError, expect_length, product};
use super::isa::Isa;
use super::math;
use super::product::{filled, part};
use super::table::Kernels;
use super::threads::Threads;
use serde::{Deserialize, Serialize};
use std::mem::MaybeUninit;

/// What becomes of the elements. Over nothing, sums are 0, products 1, Max the least value and Min the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say what the variants compute")]
pub enum Reduce {
    Sum,
    /// Integers truncate.
    Mean,
    /// NaN if one is.
    Max,
    /// NaN if one is.
    Min,
    Prod,
    SumSquare,
    /// The sum of magnitudes.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The logarithm of the sum.
    LogSum,
    /// The logarithm of the sum of exponentials, without overflow.
    LogSumExp,
    /// Whether all are true.
    All,
    /// Whether one is true.
    Any,
}

/// How a shape is reduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReducePlan {
    out_shape: Vec<usize>,
    in_length: usize,
    out_length: usize,
    /// Elements that become one.
    count: usize,
    /// Kept axes other than `columns`, outermost first.
    kept: Vec<Walk>,
    /// Reduced axes other than `rows`.
    reduced: Vec<Walk>,
    /// The innermost reduced axis.
    rows: Walk,
    /// The elements below it: 1 when the innermost axis of all is reduced.
    columns: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Walk {
    size: usize,
    stride: usize,
}

impl ReducePlan {
    /// The plan for reducing `axes` (in any order, repeats allowed) of `shape`. Fails for an axis that is not there.
    pub fn new(shape: &[usize], axes: &[usize]) -> Result<ReducePlan, KernelError> {
        if axes.iter().any(|&axis| axis >= shape.len()) {
            return Err(KernelError::Descriptor {
                kernel: "reduce",
                argument: "axes",
                problem: "name an axis that is not there",
            });
        }
        let in_length = product("reduce", "shape", shape)?;
        let kept_sizes = |reduced: bool| {
            let sizes = shape.iter().enumerate().filter(|(axis, _)| axes.contains(axis) == reduced);
            sizes.map(|(_, &size)| size).collect::<Vec<_>>()
        };
        let out_shape = kept_sizes(false);
        let out_length = product("reduce", "shape", &out_shape)?;
        let count = product("reduce", "shape", &kept_sizes(true))?;
        // Merged axes, innermost first: (reduced, size, stride).
        let mut merged: Vec<(bool, Walk)> = Vec::new();
        let mut stride = 1usize;
        for (axis, &size) in shape.iter().enumerate().rev() {
            let reduced = axes.contains(&axis);
            match merged.last_mut() {
                Some((last, walk)) if *last == reduced => walk.size = walk.size.saturating_mul(size),
                _ if size == 1 => {}
                _ => merged.push((reduced, Walk { size, stride })),
            }
            stride = stride.saturating_mul(size);
        }
        let columns = match merged.first() {
            Some((false, walk)) => walk.size,
            _ => 1,
        };
        let mut kept: Vec<Walk> = Vec::new();
        let mut reduced: Vec<Walk> = Vec::new();
        for (index, &(is_reduced, walk)) in merged.iter().enumerate() {
            if is_reduced {
                reduced.push(walk);
            } else if index > 0 {
                kept.push(walk);
            }
        }
        kept.reverse();
        reduced.reverse();
        let rows = reduced.pop().unwrap_or(Walk { size: 1, stride: columns });
        Ok(ReducePlan { out_shape, in_length, out_length, count, kept, reduced, rows, columns })
    }

    /// The shape without the reduced axes.
    pub fn out_shape(&self) -> &[usize] {
        &self.out_shape
    }

    /// Elements that become one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the group of output elements number `index` begins in the input; a group is `columns` elements.
    fn group_offset(&self, index: usize) -> usize {
        walk_offset(&self.kept, index)
    }

    /// Blocks of rows per group.
    fn blocks(&self) -> usize {
        self.reduced.iter().map(|walk| walk.size).product()
    }

    /// Parts of its rows that a lone group is folded in: who wrote some of the rows has them in its cache. 1 where there are
    /// more groups, or too few rows.
    fn parts(&self, threads: &Threads) -> usize {
        if self.out_length != self.columns || self.columns == 0 || !self.reduced.is_empty() {
            return 1;
        }
        let worth = self.count.saturating_mul(self.columns) / TASK;
        threads.count().min(worth).min(PARTIAL / self.columns).min(self.rows.size).max(1)
    }
}

/// Elements of a task, at least.
const TASK: usize = 16 * 1024;
/// Floats for the results of parts.
const PARTIAL: usize = 8 * 1024;

fn walk_offset(walks: &[Walk], mut index: usize) -> usize {
    let mut offset = 0;
    for walk in walks.iter().rev() {
        offset += index % walk.size * walk.stride;
        index /= walk.size;
    }
    offset
}

/// What the vector loops compute; the rest is done to their results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fold {
    Sum,
    SumMagnitude,
    SumSquare,
    /// Of `e^(x - shift)`.
    SumExp {
        shift: f32,
    },
    Prod,
    Max,
    Min,
}

impl Fold {
    /// Of nothing.
    fn start(self) -> f32 {
        match self {
            Fold::Max => f32::NEG_INFINITY,
            Fold::Min => f32::INFINITY,
            Fold::Prod => 1.0,
            _ => 0.0,
        }
    }
}

impl Kernels {
    /// `out = op(x)` over the plan's axes, f32.
    pub fn reduce(
        &self,
        op: Reduce,
        plan: &ReducePlan,
        x: &[f32],
        out: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        expect_length("reduce", "x", plan.in_length, x.len())?;
        expect_length("reduce", "out", plan.out_length, out.len())?;
        let fold = match op {
            Reduce::Sum | Reduce::Mean | Reduce::LogSum => Fold::Sum,
            Reduce::Max => Fold::Max,
            Reduce::Min => Fold::Min,
            Reduce::Prod => Fold::Prod,
            Reduce::SumSquare | Reduce::L2 => Fold::SumSquare,
            Reduce::L1 => Fold::SumMagnitude,
            Reduce::LogSumExp if plan.columns == 1 => Fold::Max,
            Reduce::LogSumExp => return self.reduce_any(op, plan, x, out, threads),
            Reduce::All | Reduce::Any => return Err(unsupported(op, "f32")),
        };
        let finish = |group: &mut [f32], offset: usize| {
            for value in group {
                *value = match op {
                    Reduce::Mean => *value / plan.count as f32,
                    Reduce::L2 => value.sqrt(),
                    Reduce::LogSum => value.ln(),
                    Reduce::LogSumExp if value.is_finite() => {
                        let mut sum = [0.0];
                        self.fold_group(Fold::SumExp { shift: *value }, plan, x, offset, &mut sum);
                        *value + sum[0].ln()
                    }
                    _ => *value,
                };
            }
        };
        let parts = plan.parts(threads);
        if parts > 1 {
            self.fold_parts(fold, plan, x, parts, out, threads);
            finish(out, 0);
            return Ok(());
        }
        let groups_per_task = TASK.div_ceil((plan.count * plan.columns).max(1));
        threads.for_each_slice(out, groups_per_task * plan.columns, |task, piece| {
            for (index, group) in piece.chunks_mut(plan.columns).enumerate() {
                let offset = plan.group_offset(task * groups_per_task + index);
                self.fold_group(fold, plan, x, offset, group);
                finish(group, offset);
            }
        });
        Ok(())
    }

    /// Folds the only group in parts of its rows, a thread each, and the results of the parts.
    fn fold_parts(
        &self,
        fold: Fold,
        plan: &ReducePlan,
        x: &[f32],
        parts: usize,
        out: &mut [f32],
        threads: &Threads,
    ) {
        let mut memory = [const { MaybeUninit::<f32>::uninit() }; PARTIAL];
        let partial = filled(&mut memory, parts * plan.columns, fold.start());
        threads.for_each_slice(partial, plan.columns, |index, results| {
            let rows = part(plan.rows.size, parts, index);
            self.fold_rows(fold, plan, x, rows.start * plan.rows.stride, rows.len(), results);
        });
        out.fill(fold.start());
        for results in partial.chunks_exact(plan.columns) {
            for (out, &result) in out.iter_mut().zip(results) {
                *out = combine(fold, *out, result);
            }
        }
    }

    /// Folds one group of `plan.columns` output elements.
    fn fold_group(&self, fold: Fold, plan: &ReducePlan, x: &[f32], offset: usize, out: &mut [f32]) {
        out.fill(fold.start());
        if plan.count == 0 {
            return;
        }
        for block in 0..plan.blocks() {
            let from = offset + walk_offset(&plan.reduced, block);
            self.fold_rows(fold, plan, x, from, plan.rows.size, out);
        }
    }

    /// Folds `rows` of a block of rows, at least one, that begin at `from`, into what `out` holds.
    fn fold_rows(&self, fold: Fold, plan: &ReducePlan, x: &[f32], from: usize, rows: usize, out: &mut [f32]) {
        if plan.columns == 1 && plan.rows.stride == 1 {
            let row = &x[from..from + rows];
            // SAFETY: the row has `rows` elements.
            let value = unsafe { (self.fold_row)(fold, row.as_ptr(), rows) };
            out[0] = combine(fold, out[0], value);
        } else {
            let stride = plan.rows.stride;
            let block = &x[from..from + (rows - 1) * stride + out.len()];
            // SAFETY: the block has `rows` rows of out.len() elements, `stride` apart.
            unsafe { (self.fold_columns)(fold, block.as_ptr(), rows, stride, out.as_mut_ptr(), out.len()) };
        }
    }

    /// `out = op(x)` over the plan's axes for any number type, one element at a time; sums are taken in
    /// [`Number::Sum`] (f32 in two levels for half precision). Floating functions of integers truncate.
    pub fn reduce_any<T: Number>(
        &self,
        op: Reduce,
        plan: &ReducePlan,
        x: &[T],
        out: &mut [T],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        expect_length("reduce", "x", plan.in_length, x.len())?;
        expect_length("reduce", "out", plan.out_length, out.len())?;
        if matches!(op, Reduce::All | Reduce::Any) {
            return Err(unsupported(op, T::NAME));
        }
        let per_task = (16 * 1024usize).div_ceil(plan.count.max(1));
        threads.for_each_slice(out, per_task, |task, piece| {
            for (index, to) in piece.iter_mut().enumerate() {
                *to = reduce_one(op, plan, x, task * per_task + index);
            }
        });
        Ok(())
    }

    /// `out = op(x)` for truth values; `op` must be `All` or `Any`.
    pub fn reduce_truth<B: Truth>(
        &self,
        op: Reduce,
        plan: &ReducePlan,
        x: &[B],
        out: &mut [B],
    ) -> Result<(), KernelError> {
        expect_length("reduce", "x", plan.in_length, x.len())?;
        expect_length("reduce", "out", plan.out_length, out.len())?;
        let all = match op {
            Reduce::All => true,
            Reduce::Any => false,
            _ => return Err(unsupported(op, "bool")),
        };
        for (index, to) in out.iter_mut().enumerate() {
            let mut elements = elements_of(plan, index);
            let value = if all { elements.all(|at| x[at].get()) } else { elements.any(|at| x[at].get()) };
            *to = B::of(value);
        }
        Ok(())
    }
}

fn unsupported(op: Reduce, element: &'static str) -> KernelError {
    let operation = match op {
        Reduce::All => "All",
        Reduce::Any => "Any",
        _ => "an arithmetic reduction",
    };
    KernelError::Unsupported { operation, element }
}

/// Where the elements that become output element `index` lie.
fn elements_of(plan: &ReducePlan, index: usize) -> impl Iterator<Item = usize> + Clone + '_ {
    let start = plan.group_offset(index / plan.columns) + index % plan.columns;
    let blocks = if plan.count == 0 { 0 } else { plan.blocks() };
    (0..blocks).flat_map(move |block| {
        let from = start + walk_offset(&plan.reduced, block);
        (0..plan.rows.size).map(move |row| from + row * plan.rows.stride)
    })
}

fn reduce_one<T: Number>(op: Reduce, plan: &ReducePlan, x: &[T], index: usize) -> T {
    let elements = elements_of(plan, index).map(|at| x[at]);
    let sum = |values: &mut dyn Iterator<Item = T::Sum>| {
        // Two levels, as in the vector loops.
        const SHORT: usize = 128;
        let (mut total, mut short, mut count) = (T::Sum::ZERO, T::Sum::ZERO, 0);
        for value in values {
            short = short.plus(value);
            count += 1;
            if count % SHORT == 0 {
                total = total.plus(short);
                short = T::Sum::ZERO;
            }
        }
        total.plus(short)
    };
    let squares = || sum(&mut elements.clone().map(|x| x.widen().times(x.widen())));
    let floating = |sum: T::Sum, f: fn(f64) -> f64| T::from_f64(f(sum.to_f64()));
    match op {
        Reduce::Sum => T::narrow(sum(&mut elements.clone().map(T::widen))),
        Reduce::Mean => T::narrow(sum(&mut elements.clone().map(T::widen)).divided_by(plan.count)),
        Reduce::Max => elements.fold(T::LOWEST, |best, x| if x > best || x.is_nan() { x } else { best }),
        Reduce::Min => elements.fold(T::HIGHEST, |best, x| if x < best || x.is_nan() { x } else { best }),
        Reduce::Prod => T::narrow(elements.fold(T::Sum::ONE, |product, x| product.times(x.widen()))),
        Reduce::SumSquare => T::narrow(squares()),
        Reduce::L1 => T::narrow(sum(&mut elements.clone().map(|x| x.widen().magnitude()))),
        Reduce::L2 => floating(squares(), f64::sqrt),
        Reduce::LogSum => floating(sum(&mut elements.clone().map(T::widen)), f64::ln),
        Reduce::LogSumExp => {
            let largest = elements
                .clone()
                .map(T::to_f64)
                .fold(f64::NEG_INFINITY, |best, x| if x > best || x.is_nan() { x } else { best });
            if !largest.is_finite() {
                return T::from_f64(largest);
            }
            let sum: f64 = elements.map(|x| (x.to_f64() - largest).exp()).sum();
            T::from_f64(largest + sum.ln())
        }
        Reduce::All | Reduce::Any => T::ZERO,
    }
}

/// Two partial results to one.
#[inline(always)]
fn combine<T: PartialOrd + Copy + std::ops::Add<Output = T> + std::ops::Mul<Output = T>>(
    fold: Fold,
    a: T,
    b: T,
) -> T {
    #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
    let a_is_nan = a != a;
    match fold {
        Fold::Sum | Fold::SumMagnitude | Fold::SumSquare | Fold::SumExp { .. } => a + b,
        Fold::Prod => a * b,
        Fold::Max if a > b || a_is_nan => a,
        Fold::Min if a < b || a_is_nan => a,
        Fold::Max | Fold::Min => b,
    }
}

/// Steps of a short sum.
const SHORT: usize = 64;

/// Folds `length` elements to one.
///
/// # Safety
/// `x` must be readable for `length` floats.
#[inline(always)]
pub(super) unsafe fn fold_row<I: Isa>(isa: I, fold: Fold, x: *const f32, length: usize) -> f32 {
    macro_rules! each {
        ($start:expr, |$sum:ident, $x:ident| $body:expr) => {{
            const STREAMS: usize = 4;
            let start: f32 = $start;
            let mut total = f64::from(start);
            let mut index = 0;
            while index + I::LANES <= length {
                // One short fold: independent streams, then the lanes.
                let end = (index + SHORT * STREAMS * I::LANES).min(length);
                let mut sums = [isa.splat(start); STREAMS];
                while index + STREAMS * I::LANES <= end {
                    for stream in 0..STREAMS {
                        let $sum = sums[stream];
                        // SAFETY: index + STREAMS * LANES <= length.
                        let $x = unsafe { isa.load(x.add(index + stream * I::LANES)) };
                        sums[stream] = $body;
                    }
                    index += STREAMS * I::LANES;
                }
                while index + I::LANES <= end {
                    let $sum = sums[0];
                    // SAFETY: index + LANES <= length.
                    let $x = unsafe { isa.load(x.add(index)) };
                    sums[0] = $body;
                    index += I::LANES;
                }
                let mut lanes = isa.lanes(sums[0]);
                for stream in 1..STREAMS {
                    let other = isa.lanes(sums[stream]);
                    for lane in 0..I::LANES {
                        lanes[lane] = combine(fold, lanes[lane], other[lane]);
                    }
                }
                let mut width = I::LANES;
                while width > 1 {
                    width /= 2;
                    for lane in 0..width {
                        lanes[lane] = combine(fold, lanes[lane], lanes[lane + width]);
                    }
                }
                total = combine(fold, total, f64::from(lanes[0]));
            }
            // What is left is shorter than a vector: one lane is used of each.
            while index < length {
                let $sum = isa.splat(start);
                // SAFETY: index < length.
                let $x = unsafe { isa.splat(*x.add(index)) };
                total = combine(fold, total, f64::from(isa.lanes($body)[0]));
                index += 1;
            }
            total as f32
        }};
    }
    match fold {
        Fold::Sum => each!(0.0, |sum, x| isa.add(sum, x)),
        Fold::SumMagnitude => each!(0.0, |sum, x| isa.add(sum, isa.abs(x))),
        Fold::SumSquare => each!(0.0, |sum, x| isa.mul_add(x, x, sum)),
        Fold::SumExp { shift } => {
            let shift = isa.splat(shift);
            each!(0.0, |sum, x| isa.add(sum, math::exp(isa, isa.sub(x, shift))))
        }
        Fold::Prod => each!(1.0, |sum, x| isa.mul(sum, x)),
        Fold::Max => each!(f32::NEG_INFINITY, |sum, x| nan_or(isa, sum, isa.max(sum, x))),
        Fold::Min => each!(f32::INFINITY, |sum, x| nan_or(isa, sum, isa.min(sum, x))),
    }
}

/// `sum` if it is NaN, else `next`.
#[inline(always)]
fn nan_or<I: Isa>(isa: I, sum: I::F32, next: I::F32) -> I::F32 {
    isa.select(isa.equal(sum, sum), next, sum)
}

/// Folds `rows` rows of `columns` elements into `out`, column by column.
///
/// # Safety
/// `x` must be readable for `rows` rows of `columns` floats, `stride` apart, and `out` for `columns`; they must not overlap.
#[inline(always)]
pub(super) unsafe fn fold_columns<I: Isa>(
    isa: I,
    fold: Fold,
    x: *const f32,
    rows: usize,
    stride: usize,
    out: *mut f32,
    columns: usize,
) {
    macro_rules! each {
        ($start:expr, |$sum:ident, $x:ident| $body:expr, $combine:ident) => {{
            let mut column = 0;
            while column < columns {
                let count = (columns - column).min(I::LANES);
                let full = count == I::LANES;
                // SAFETY: `count` columns remain from here on.
                unsafe {
                    let to = out.add(column);
                    let mut total = if full { isa.load(to) } else { isa.load_partial(to, count) };
                    let mut row = 0;
                    let mut carry = isa.splat(0.0);
                    while row < rows {
                        let end = (row + SHORT).min(rows);
                        let mut $sum = isa.splat($start);
                        while row < end {
                            let from = x.add(row * stride + column);
                            let $x = if full { isa.load(from) } else { isa.load_partial(from, count) };
                            $sum = $body;
                            row += 1;
                        }
                        let short = $sum;
                        total = $combine(isa, total, short, &mut carry);
                    }
                    if full { isa.store(to, total) } else { isa.store_partial(to, total, count) }
                }
                column += count;
            }
        }};
    }
    match fold {
        Fold::Sum => each!(0.0, |sum, x| isa.add(sum, x), add),
        Fold::SumMagnitude => each!(0.0, |sum, x| isa.add(sum, isa.abs(x)), add),
        Fold::SumSquare => each!(0.0, |sum, x| isa.mul_add(x, x, sum), add),
        Fold::SumExp { shift } => {
            let shift = isa.splat(shift);
            each!(0.0, |sum, x| isa.add(sum, math::exp(isa, isa.sub(x, shift))), add)
        }
        Fold::Prod => each!(1.0, |sum, x| isa.mul(sum, x), mul),
        Fold::Max => each!(f32::NEG_INFINITY, |sum, x| nan_or(isa, sum, isa.max(sum, x)), max),
        Fold::Min => each!(f32::INFINITY, |sum, x| nan_or(isa, sum, isa.min(sum, x)), min),
    }
}

/// The sum of two partial sums; what rounding took away is carried to the next one (Kahan, 1965).
#[inline(always)]
fn add<I: Isa>(isa: I, a: I::F32, b: I::F32, carry: &mut I::F32) -> I::F32 {
    let b = isa.sub(b, *carry);
    let sum = isa.add(a, b);
    let lost = isa.sub(isa.sub(sum, a), b);
    // Infinity has nothing to carry.
    *carry = isa.select(isa.equal(lost, lost), lost, isa.splat(0.0));
    sum
}
#[inline(always)]
fn mul<I: Isa>(isa: I, a: I::F32, b: I::F32, _: &mut I::F32) -> I::F32 {
    isa.mul(a, b)
}
#[inline(always)]
fn max<I: Isa>(isa: I, a: I::F32, b: I::F32, _: &mut I::F32) -> I::F32 {
    nan_or(isa, a, isa.max(a, b))
}
#[inline(always)]
fn min<I: Isa>(isa: I, a: I::F32, b: I::F32, _: &mut I::F32) -> I::F32 {
    nan_or(isa, a, isa.min(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    const OPS: [Reduce; 10] = [
        Reduce::Sum,
        Reduce::Mean,
        Reduce::Max,
        Reduce::Min,
        Reduce::Prod,
        Reduce::SumSquare,
        Reduce::L1,
        Reduce::L2,
        Reduce::LogSum,
        Reduce::LogSumExp,
    ];

    /// Reduction by definition: every element is sorted into the output it belongs to.
    fn naive(op: Reduce, shape: &[usize], axes: &[usize], x: &[f64]) -> Vec<f64> {
        let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
        let length: usize = kept.iter().map(|&axis| shape[axis]).product();
        let mut groups = vec![Vec::new(); length];
        for (index, &x) in x.iter().enumerate() {
            let mut position = vec![0; shape.len()];
            let mut rest = index;
            for axis in (0..shape.len()).rev() {
                position[axis] = rest % shape[axis];
                rest /= shape[axis];
            }
            groups[kept.iter().fold(0, |at, &axis| at * shape[axis] + position[axis])].push(x);
        }
        let of = |x: &Vec<f64>| {
            let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let any_nan = x.iter().any(|x| x.is_nan());
            match op {
                Reduce::Sum => x.iter().sum(),
                Reduce::Mean => x.iter().sum::<f64>() / x.len() as f64,
                Reduce::Max => {
                    if any_nan {
                        f64::NAN
                    } else {
                        largest
                    }
                }
                Reduce::Min => {
                    if any_nan {
                        f64::NAN
                    } else {
                        x.iter().copied().fold(f64::INFINITY, f64::min)
                    }
                }
                Reduce::Prod => x.iter().product(),
                Reduce::SumSquare => x.iter().map(|x| x * x).sum(),
                Reduce::L1 => x.iter().map(|x| x.abs()).sum(),
                Reduce::L2 => x.iter().map(|x| x * x).sum::<f64>().sqrt(),
                Reduce::LogSum => x.iter().sum::<f64>().ln(),
                Reduce::LogSumExp => x.iter().map(|x| x.exp()).sum::<f64>().ln(),
                Reduce::All | Reduce::Any => f64::NAN,
            }
        };
        groups.iter().map(of).collect()
    }

    #[test]
    fn every_set_of_axes() {
        let shapes: [&[usize]; 8] =
            [&[], &[5], &[3, 7], &[2, 3, 4], &[2, 3, 4, 5], &[1, 9, 1, 17], &[3, 1, 33], &[2, 0, 3]];
        for kernels in available() {
            for shape in shapes {
                for set in 0..1 << shape.len() {
                    let axes: Vec<usize> = (0..shape.len()).filter(|axis| set >> axis & 1 == 1).collect();
                    let plan = ReducePlan::new(shape, &axes).unwrap();
                    let x: Vec<f32> = random(shape.iter().product(), 3).iter().map(|x| x + 1.5).collect();
                    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                    for op in OPS {
                        let expected = naive(op, shape, &axes, &wide);
                        let mut out = vec![9.0; expected.len()];
                        kernels.reduce(op, &plan, &x, &mut out, &Threads::single()).unwrap();
                        assert_close(&out, &expected, 1e-6);
                        let mut out = vec![9.0f64; expected.len()];
                        kernels.reduce_any(op, &plan, &wide, &mut out, &Threads::new(2)).unwrap();
                        let out: Vec<f32> = out.iter().map(|&x| x as f32).collect();
                        assert_close(&out, &expected, 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_and_columns_of_many_lengths() {
        for kernels in available() {
            for length in [1, 3, 7, 8, 9, 15, 17, 31, 33, 63, 65, 100, 1000, 5000] {
                for (shape, axes) in [([3, length], [1]), ([length, 3], [0]), ([length, 37], [0])] {
                    let plan = ReducePlan::new(&shape, &axes).unwrap();
                    let x = random(shape.iter().product(), 4);
                    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                    for op in
                        [Reduce::Sum, Reduce::Max, Reduce::Min, Reduce::L1, Reduce::L2, Reduce::LogSumExp]
                    {
                        let mut out = vec![0.0; plan.out_length];
                        kernels.reduce(op, &plan, &x, &mut out, &Threads::new(2)).unwrap();
                        assert_close(&out, &naive(op, &shape, &axes, &wide), 2e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn long_sums_keep_their_precision() {
        let x = vec![0.1f32; 3_000_000];
        let exact = f64::from(0.1f32) * 3e6;
        for kernels in available() {
            for (shape, axes) in [([1, 3_000_000], [1]), ([3_000_000, 1], [0]), ([300_000, 10], [0])] {
                let plan = ReducePlan::new(&shape, &axes).unwrap();
                let mut out = vec![0.0; plan.out_length];
                kernels.reduce(Reduce::Sum, &plan, &x, &mut out, &Threads::single()).unwrap();
                let exact = exact / out.len() as f64;
                assert!((f64::from(out[0]) / exact - 1.0).abs() < 3e-6, "{} {}", out[0], exact);
            }
        }
    }

    #[test]
    fn not_a_number_is_the_greatest_and_the_least() {
        for kernels in available() {
            for length in [1, 5, 40, 300] {
                for at in [0, length / 2, length - 1] {
                    let mut x = random(length, 5);
                    x[at] = f32::NAN;
                    for shape in [[1, length], [length, 1]] {
                        let axis = usize::from(shape[0] == 1);
                        let plan = ReducePlan::new(&shape, &[axis]).unwrap();
                        for op in [Reduce::Max, Reduce::Min] {
                            let mut out = [0.0];
                            kernels.reduce(op, &plan, &x, &mut out, &Threads::single()).unwrap();
                            assert!(out[0].is_nan(), "{op:?} {length} {at}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_and_infinity() {
        for kernels in available() {
            let plan = ReducePlan::new(&[2, 0], &[1]).unwrap();
            let mut out = [9.0; 2];
            for (op, expected) in [(Reduce::Sum, 0.0), (Reduce::Prod, 1.0), (Reduce::Max, f32::NEG_INFINITY)]
            {
                kernels.reduce(op, &plan, &[], &mut out, &Threads::single()).unwrap();
                assert_eq!(out, [expected; 2]);
            }
            let plan = ReducePlan::new(&[3], &[0]).unwrap();
            let mut out = [0.0];
            let x = [f32::NEG_INFINITY; 3];
            kernels.reduce(Reduce::LogSumExp, &plan, &x, &mut out, &Threads::single()).unwrap();
            assert_eq!(out, [f32::NEG_INFINITY]);
            kernels.reduce(Reduce::LogSumExp, &plan, &[1000.0; 3], &mut out, &Threads::single()).unwrap();
            assert!((out[0] - 1001.0986).abs() < 1e-3);
        }
    }

    #[test]
    fn integers_and_truth() {
        let kernels = available()[0];
        let single = Threads::single();
        let plan = ReducePlan::new(&[2, 3], &[1]).unwrap();
        let x = [i32::MAX, 1, 0, 5, -9, 2];
        let mut out = [0; 2];
        for (op, expected) in [
            (Reduce::Sum, [i32::MIN, -2]),
            (Reduce::Mean, [i32::MIN / 3, 0]),
            (Reduce::Max, [i32::MAX, 5]),
            (Reduce::Min, [0, -9]),
            (Reduce::Prod, [0, -90]),
            (Reduce::L1, [i32::MIN, 16]),
        ] {
            kernels.reduce_any(op, &plan, &x, &mut out, &single).unwrap();
            assert_eq!(out, expected, "{op:?}");
        }
        let mut out = [false; 2];
        kernels.reduce_truth(Reduce::All, &plan, &[true, true, true, true, false, true], &mut out).unwrap();
        assert_eq!(out, [true, false]);
        kernels
            .reduce_truth(Reduce::Any, &plan, &[false, false, false, true, false, true], &mut out)
            .unwrap();
        assert_eq!(out, [false, true]);
        assert!(kernels.reduce_truth(Reduce::Sum, &plan, &[true; 6], &mut out).is_err());
        assert!(kernels.reduce(Reduce::Any, &plan, &[0.0; 6], &mut [0.0; 2], &single).is_err());
    }

    #[test]
    fn lying_descriptors_are_refused() {
        assert!(ReducePlan::new(&[2, 3], &[2]).is_err());
        assert!(ReducePlan::new(&[1 << 40, 1 << 40], &[0]).is_err());
        let plan = ReducePlan::new(&[2, 3], &[1]).unwrap();
        let kernels = available()[0];
        let single = Threads::single();
        assert!(kernels.reduce(Reduce::Sum, &plan, &[0.0; 5], &mut [0.0; 2], &single).is_err());
        assert!(kernels.reduce(Reduce::Sum, &plan, &[0.0; 6], &mut [0.0; 3], &single).is_err());
    }
}
