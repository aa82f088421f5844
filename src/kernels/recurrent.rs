//! Steps of recurrent layers: the products of the state with its weights, and the state that follows from them.
//!
//! Of as many units as a vector has lanes, the columns of all gates stand side by side in a panel: what the next state of
//! these units is made of is a few sums in registers. The state is read by all threads, so the next one is written elsewhere.
//! Nothing is fetched ahead: in every step but the first, the weights come from the second-level cache as fast as it gives
//! them, and each instruction that asks for them once more takes a place in its queue.

use super::aligned::AlignedFloats;
use super::error::{KernelError, expect_length, product};
use super::isa::Isa;
use super::math;
use super::product::{add_products, for_rows, part, unroll};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::ops::Range;

/// Multiplications of a step below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 64 * 1024;

/// The weights of a state in the gates of its units, packed for one instruction set.
pub struct PackedGates {
    panels: AlignedFloats,
    /// As wide as the panels.
    bias: Option<AlignedFloats>,
    gates: usize,
    units: usize,
    lanes: usize,
}

impl PackedGates {
    /// Packs `weights`, floats `[gates * units, units]` at any address, of one to four gates, with a bias
    /// `[gates * units]` that is added to the products.
    pub fn pack(
        kernels: &Kernels,
        gates: usize,
        units: usize,
        weights: &[u8],
        bias: Option<&[f32]>,
        threads: &Threads,
    ) -> Result<PackedGates, KernelError> {
        if !(1..=4).contains(&gates) {
            let problem = "are not one to four";
            return Err(KernelError::Descriptor { kernel: "pack", argument: "gates", problem });
        }
        let lanes = kernels.lanes;
        let elements = product("pack", "weights", &[gates, units, units])?;
        expect_length("pack", "weights", elements.saturating_mul(size_of::<f32>()), weights.len())?;
        let (count, width) = (units.div_ceil(lanes), gates * lanes);
        let mut panels = AlignedFloats::zeroed(product("pack", "weights", &[count, units, width])?);
        let to = SendPtr(panels.as_mut_slice().as_mut_ptr());
        let from = SendPtr(weights.as_ptr().cast_mut());
        threads.for_each(count * gates, |task| {
            let (panel, gate) = (task / gates, task % gates);
            let own = panel * lanes..units.min((panel + 1) * lanes);
            // SAFETY: rows `own` of the gate lie within the weights, whose length was checked; they become columns of the
            // panel, `units` rows of `width` floats, and no two tasks have the same ones. No alignment is asked for.
            unsafe {
                let first = from.get().cast::<f32>().add((gate * units + own.start) * units);
                let to = to.get().add(panel * units * width + gate * lanes);
                (kernels.turn)(first, units, own.len(), units, to, width);
            }
        });
        let bias = match bias {
            None => None,
            Some(bias) => {
                expect_length("pack", "bias", gates * units, bias.len())?;
                let mut padded = AlignedFloats::zeroed(count * width);
                for (index, &value) in bias.iter().enumerate() {
                    let (gate, unit) = (index / units, index % units);
                    padded.as_mut_slice()[unit / lanes * width + gate * lanes + unit % lanes] = value;
                }
                Some(padded)
            }
        };
        Ok(PackedGates { panels, bias, gates, units, lanes })
    }
}

/// What becomes of the sums of a row's units.
#[derive(Clone, Copy)]
enum Finish {
    /// They are stored, gate after gate.
    Store,
    /// The next state of an LSTM.
    Lstm,
    /// The next state of a GRU whose reset gate comes after the product.
    Gru,
}

/// In which order the panels of a step are worked through. Where steps take turns, those that came last in one, and are still in
/// a near cache, come first in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelOrder {
    /// From the first.
    Forwards,
    /// From the last.
    Backwards,
}

/// Some panels of a step.
pub(super) struct Step {
    order: PanelOrder,
    finish: Finish,
    gates: usize,
    units: usize,
    rows: usize,
    panels: Range<usize>,
    /// Of the first panel; so is the bias, null for none.
    weights: *const f32,
    bias: *const f32,
    /// `[rows, units]`, as are the cell states.
    state: *const f32,
    cell: *const f32,
    next_cell: *mut f32,
    /// What is added to the sums, `[rows, gates * units]`; null where these are stored.
    inputs: *const f32,
    /// The next state, or the sums.
    out: *mut f32,
    /// Floats from a row of `out` to the next.
    out_stride: usize,
}
// SAFETY: whoever makes one answers for what it points to; tasks write disjoint units.
unsafe impl Sync for Step {}

impl Kernels {
    /// The products of `state` `[rows, units]` with the weights, plus their bias: those of a row in `gates * units` floats of
    /// `out`, gate after gate, `out_stride` from one row to the next. `out` must end with (or after) the last row.
    pub fn gate_products(
        &self,
        weights: &PackedGates,
        state: &[f32],
        out: &mut [f32],
        out_stride: usize,
        order: PanelOrder,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let mut step = self.all_panels("gate_products", weights, state)?;
        let width = step.gates * step.units;
        if out_stride < width {
            let (argument, problem) = ("out_stride", "is less than a row");
            return Err(KernelError::Descriptor { kernel: "gate_products", argument, problem });
        }
        let most = step
            .rows
            .checked_sub(1)
            .map_or(0, |before| before.saturating_mul(out_stride).saturating_add(width));
        if out.len() < most {
            let (expected, actual) = (most, out.len());
            return Err(KernelError::Length { kernel: "gate_products", argument: "out", expected, actual });
        }
        (step.order, step.out, step.out_stride) = (order, out.as_mut_ptr(), out_stride);
        // SAFETY: lengths were checked; `out` is borrowed uniquely, so it overlaps nothing.
        unsafe { self.run_step(&step, threads) };
        Ok(())
    }

    /// A step of an LSTM: with the sums i, o, f and g of the products of `hidden` and of `inputs` `[rows, 4 * units]`,
    /// `next_cell = s(f) cell + s(i) tanh(g)` and `next_hidden = s(o) tanh(next_cell)`, where s is the sigmoid. All states are
    /// `[rows, units]`.
    pub fn lstm_step(
        &self,
        weights: &PackedGates,
        inputs: &[f32],
        [hidden, cell]: [&[f32]; 2],
        [next_hidden, next_cell]: [&mut [f32]; 2],
        order: PanelOrder,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let mut step = self.state_step("lstm_step", weights, Finish::Lstm, inputs, hidden, next_hidden)?;
        expect_length("lstm_step", "cell", hidden.len(), cell.len())?;
        expect_length("lstm_step", "next_cell", hidden.len(), next_cell.len())?;
        (step.order, step.cell, step.next_cell) = (order, cell.as_ptr(), next_cell.as_mut_ptr());
        // SAFETY: lengths were checked; what is written is borrowed uniquely, so it overlaps nothing.
        unsafe { self.run_step(&step, threads) };
        Ok(())
    }

    /// A step of a GRU whose reset gate comes after the product: with the products z, r and h of `hidden` and what `inputs`
    /// `[rows, 3 * units]` adds to them, `next = (1 - s(z)) tanh(input + s(r) h) + s(z) hidden`, where s is the sigmoid.
    pub fn gru_step(
        &self,
        weights: &PackedGates,
        inputs: &[f32],
        hidden: &[f32],
        next: &mut [f32],
        order: PanelOrder,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let mut step = self.state_step("gru_step", weights, Finish::Gru, inputs, hidden, next)?;
        step.order = order;
        // SAFETY: lengths were checked; `next` is borrowed uniquely, so it overlaps nothing.
        unsafe { self.run_step(&step, threads) };
        Ok(())
    }

    /// A step that makes the next state.
    fn state_step(
        &self,
        kernel: &'static str,
        weights: &PackedGates,
        finish: Finish,
        inputs: &[f32],
        state: &[f32],
        next: &mut [f32],
    ) -> Result<Step, KernelError> {
        let gates = if matches!(finish, Finish::Lstm) { 4 } else { 3 };
        if weights.gates != gates {
            let problem = "have another number of gates";
            return Err(KernelError::Descriptor { kernel, argument: "weights", problem });
        }
        let mut step = self.all_panels(kernel, weights, state)?;
        expect_length(kernel, "inputs", state.len().saturating_mul(gates), inputs.len())?;
        expect_length(kernel, "next", state.len(), next.len())?;
        (step.finish, step.inputs) = (finish, inputs.as_ptr());
        (step.out, step.out_stride) = (next.as_mut_ptr(), step.units);
        Ok(step)
    }

    /// A step of all panels that has no place for its results yet.
    fn all_panels(
        &self,
        kernel: &'static str,
        weights: &PackedGates,
        state: &[f32],
    ) -> Result<Step, KernelError> {
        let PackedGates { gates, units, lanes, .. } = *weights;
        if lanes != self.lanes {
            let problem = "are packed for another instruction set";
            return Err(KernelError::Descriptor { kernel, argument: "weights", problem });
        }
        let rows = state.len().checked_div(units).unwrap_or(0);
        expect_length(kernel, "state", rows * units, state.len())?;
        Ok(Step {
            order: PanelOrder::Forwards,
            finish: Finish::Store,
            gates,
            units,
            rows,
            panels: 0..units.div_ceil(lanes),
            weights: weights.panels.as_slice().as_ptr(),
            bias: weights.bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_slice().as_ptr()),
            state: state.as_ptr(),
            cell: std::ptr::null(),
            next_cell: std::ptr::null_mut(),
            inputs: std::ptr::null(),
            out: std::ptr::null_mut(),
            out_stride: 0,
        })
    }

    /// # Safety
    /// All that [`Step`] describes must be there, and what is written must not overlap what is read.
    unsafe fn run_step(&self, step: &Step, threads: &Threads) {
        let panels = step.panels.len();
        let work = step.rows.saturating_mul(step.units * step.units).saturating_mul(step.gates);
        // A task each: a core then has its part of the weights in its own cache, in every step.
        let tasks = if work < PARALLEL_WORK { 1 } else { threads.count().min(panels) };
        let width = step.gates * self.lanes;
        threads.for_each(tasks, |task| {
            let own = part(panels, tasks, task);
            // SAFETY: the panel is one of those that are packed.
            let (weights, bias) = unsafe {
                let bias = if step.bias.is_null() { step.bias } else { step.bias.add(own.start * width) };
                (step.weights.add(own.start * step.units * width), bias)
            };
            let own = Step { panels: own, weights, bias, ..*step };
            // SAFETY: as the caller vouches; the units of different panels are disjoint.
            unsafe { (self.recurrent)(&own) };
        });
    }
}

/// # Safety
/// As [`Kernels::run_step`], for these panels only.
#[inline(always)]
pub(super) unsafe fn step<I: Isa>(isa: I, work: &Step) {
    /// Rows of the tile of several rows: with four vectors, these have to fit into the registers.
    const fn tile_rows<I: Isa>() -> usize {
        if I::TILE_ROWS[3] > 0 { 4 } else { 2 }
    }
    let width = work.gates * I::LANES;
    for turn in 0..work.panels.len() {
        let index = match work.order {
            PanelOrder::Forwards => turn,
            PanelOrder::Backwards => work.panels.len() - 1 - turn,
        };
        let panel = work.panels.start + index;
        for row in (0..work.rows).step_by(tile_rows::<I>()) {
            let rows = row..work.rows.min(row + tile_rows::<I>());
            // SAFETY: as the caller vouches.
            unsafe {
                let weights = work.weights.add(index * work.units * width);
                let bias = if work.bias.is_null() { work.bias } else { work.bias.add(index * width) };
                let panel = Panel { weights, bias, unit: panel * I::LANES };
                macro_rules! tiles {
                    ($($gates:literal)*) => {
                        match (rows.len(), work.gates) {
                            $((1, $gates) => tile::<I, 1, $gates, { unroll(1, $gates) }>(isa, work, &panel, rows),)*
                            // The constant condition drops one of the two.
                            $((_, $gates) if const { tile_rows::<I>() == 4 } =>
                                tile::<I, 4, $gates, { unroll(4, $gates) }>(isa, work, &panel, rows),)*
                            $((_, $gates) => tile::<I, 2, $gates, { unroll(2, $gates) }>(isa, work, &panel, rows),)*
                            _ => {}
                        }
                    };
                }
                tiles!(1 2 3 4);
            }
        }
    }
}

struct Panel {
    weights: *const f32,
    bias: *const f32,
    /// The first of its units.
    unit: usize,
}

/// At most `R` rows of a panel of `V` gates.
///
/// # Safety
/// As [`step`].
#[inline(always)]
unsafe fn tile<I: Isa, const R: usize, const V: usize, const U: usize>(
    isa: I,
    work: &Step,
    panel: &Panel,
    rows: Range<usize>,
) {
    let mut sums = [[[isa.splat(0.0); V]; R]; U];
    let mut from = [std::ptr::null::<f32>(); R];
    // SAFETY: the caller vouches for `units` floats behind each row, as many rows of V vectors of weights, and V of bias.
    unsafe {
        for row in 0..R {
            // In place of rows that are missing, the last one is computed again.
            from[row] = work.state.add((rows.start + row).min(rows.end - 1) * work.units);
        }
        if !panel.bias.is_null() {
            for vector in 0..V {
                let bias = isa.load(panel.bias.add(vector * I::LANES));
                for_rows!(row of R { sums[0][row][vector] = bias; });
            }
        }
        add_products::<I, R, V, U>(isa, &mut sums, &from, work.units, panel.weights, |_, _| ());
        let mut done = [[isa.splat(0.0); V]; R];
        for_rows!(row of R {
            for vector in 0..V {
                done[row][vector] = sums[0][row][vector];
                for other in 1..U {
                    done[row][vector] = isa.add(done[row][vector], sums[other][row][vector]);
                }
            }
        });
        for (row, sums) in rows.zip(done) {
            finish::<I, V>(isa, work, row, panel.unit, sums);
        }
    }
}

/// # Safety
/// As [`step`], for a row and the units of a vector from `unit` on.
#[inline(always)]
unsafe fn finish<I: Isa, const V: usize>(
    isa: I,
    work: &Step,
    row: usize,
    unit: usize,
    mut sums: [I::F32; V],
) {
    let units = work.units;
    let count = (units - unit).min(I::LANES);
    let at = row * units + unit;
    // SAFETY: `count` units remain in the row.
    unsafe {
        let out = work.out.add(row * work.out_stride + unit);
        let inputs = work.inputs.wrapping_add(row * V * units + unit);
        match (work.finish, V) {
            (Finish::Lstm, 4) => {
                for gate in 0..V {
                    sums[gate] = isa.add(sums[gate], isa.load_up_to(inputs.add(gate * units), count));
                }
                let new = isa.mul(sigmoid(isa, sums[0]), math::tanh(isa, sums[3]));
                let kept = sigmoid(isa, sums[2]);
                let state = isa.mul_add(kept, isa.load_up_to(work.cell.add(at), count), new);
                isa.store_up_to(work.next_cell.add(at), state, count);
                let shown = sigmoid(isa, sums[1]);
                isa.store_up_to(out, isa.mul(shown, math::tanh(isa, state)), count);
            }
            (Finish::Gru, 3) => {
                let update = sigmoid(isa, isa.add(sums[0], isa.load_up_to(inputs, count)));
                let reset = sigmoid(isa, isa.add(sums[1], isa.load_up_to(inputs.add(units), count)));
                let input = isa.load_up_to(inputs.add(2 * units), count);
                let new = math::tanh(isa, isa.mul_add(reset, sums[2], input));
                let old = isa.load_up_to(work.state.add(at), count);
                isa.store_up_to(out, isa.mul_add(update, isa.sub(old, new), new), count);
            }
            _ => {
                for gate in 0..V {
                    isa.store_up_to(out.add(gate * units), sums[gate], count);
                }
            }
        }
    }
}

#[inline(always)]
fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    math::times_sigmoid(isa, isa.splat(1.0), x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};
    use crate::tensor::buffer::bytes_of;

    const ROWS: [usize; 4] = [1, 2, 5, 9];
    const UNITS: [usize; 5] = [1, 3, 17, 33, 250];

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    fn single(numbers: &[f32]) -> Vec<f64> {
        numbers.iter().map(|&number| f64::from(number)).collect()
    }

    /// Weights of some gates with a bias, and a state.
    struct Case {
        gates: usize,
        units: usize,
        rows: usize,
        weights: Vec<f32>,
        bias: Vec<f32>,
        state: Vec<f32>,
        inputs: Vec<f32>,
    }

    impl Case {
        fn new(gates: usize, units: usize, rows: usize) -> Case {
            Case {
                gates,
                units,
                rows,
                weights: random(gates * units * units, 1),
                bias: random(gates * units, 2),
                state: random(rows * units, 3),
                inputs: random(rows * gates * units, 4),
            }
        }

        /// Packed from an odd address.
        fn pack(&self, kernels: &Kernels) -> PackedGates {
            let mut bytes = vec![0u8];
            bytes.extend_from_slice(bytes_of(&self.weights));
            let threads = Threads::new(2);
            PackedGates::pack(kernels, self.gates, self.units, &bytes[1..], Some(&self.bias), &threads)
                .unwrap()
        }

        /// The sum of a gate of a unit, without the inputs.
        fn sum(&self, row: usize, gate: usize, unit: usize) -> f64 {
            let line = gate * self.units + unit;
            let weights = &self.weights[line * self.units..][..self.units];
            let state = &self.state[row * self.units..][..self.units];
            let products = weights.iter().zip(state).map(|(&w, &x)| f64::from(w) * f64::from(x));
            f64::from(self.bias[line]) + products.sum::<f64>()
        }

        fn input(&self, row: usize, gate: usize, unit: usize) -> f64 {
            f64::from(self.inputs[(row * self.gates + gate) * self.units + unit])
        }

        fn each(&self, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
            (0..self.rows * self.units).map(|at| value(at / self.units, at % self.units)).collect()
        }
    }

    /// Calls `run` with every instruction set, both orders and some numbers of threads; all of the latter must write the same bits.
    fn everywhere(
        case: &Case,
        run: impl Fn(&'static Kernels, &PackedGates, PanelOrder, &Threads) -> Vec<f32>,
    ) {
        for kernels in available() {
            let packed = case.pack(kernels);
            let first = run(kernels, &packed, PanelOrder::Forwards, &Threads::single());
            for threads in 1..4 {
                let pool = Threads::new(threads);
                assert!(
                    run(kernels, &packed, PanelOrder::Backwards, &pool) == first,
                    "{kernels:?} {threads}"
                );
            }
        }
    }

    #[test]
    fn products_of_one_to_four_gates() {
        for (units, rows) in UNITS.into_iter().flat_map(|units| ROWS.map(|rows| (units, rows))) {
            for gates in 1..=4 {
                let case = Case::new(gates, units, rows);
                let stride = gates * units + 2;
                everywhere(&case, |kernels, packed, order, threads| {
                    let mut out = vec![7.0; rows * stride];
                    kernels.gate_products(packed, &case.state, &mut out, stride, order, threads).unwrap();
                    for (row, out) in out.chunks(stride).enumerate() {
                        let (sums, rest) = out.split_at(gates * units);
                        let expected: Vec<f64> = (0..gates * units)
                            .map(|line| case.sum(row, line / units, line % units))
                            .collect();
                        assert_close(sums, &expected, 1e-5);
                        assert_eq!(rest, [7.0; 2]);
                    }
                    out
                });
            }
        }
    }

    #[test]
    fn steps_follow_their_equations() {
        for (units, rows) in UNITS.into_iter().flat_map(|units| ROWS.map(|rows| (units, rows))) {
            let case = Case::new(4, units, rows);
            let gate = |gate, row, unit| case.sum(row, gate, unit) + case.input(row, gate, unit);
            let cell = random(rows * units, 5);
            let cells = case.each(|row, unit| {
                let kept = sigmoid(gate(2, row, unit)) * f64::from(cell[row * units + unit]);
                kept + sigmoid(gate(0, row, unit)) * gate(3, row, unit).tanh()
            });
            let states =
                case.each(|row, unit| sigmoid(gate(1, row, unit)) * cells[row * units + unit].tanh());
            everywhere(&case, |kernels, packed, order, threads| {
                let (mut next, mut next_cell) = (vec![7.0; rows * units], vec![7.0; rows * units]);
                let (from, to) = ([&case.state[..], &cell[..]], [&mut next[..], &mut next_cell[..]]);
                kernels.lstm_step(packed, &case.inputs, from, to, order, threads).unwrap();
                assert_close(&next, &states, 1e-5);
                assert_close(&next_cell, &cells, 1e-5);
                [next, next_cell].concat()
            });

            let case = Case::new(3, units, rows);
            let gate = |gate, row, unit| sigmoid(case.sum(row, gate, unit) + case.input(row, gate, unit));
            let before = single(&case.state);
            let states = case.each(|row, unit| {
                let (update, reset) = (gate(0, row, unit), gate(1, row, unit));
                let new = (case.input(row, 2, unit) + reset * case.sum(row, 2, unit)).tanh();
                (1.0 - update) * new + update * before[row * units + unit]
            });
            everywhere(&case, |kernels, packed, order, threads| {
                let mut next = vec![7.0; rows * units];
                kernels.gru_step(packed, &case.inputs, &case.state, &mut next, order, threads).unwrap();
                assert_close(&next, &states, 1e-5);
                next
            });
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (kernels, order, one) = (available()[0], PanelOrder::Forwards, Threads::single());
        let pack = |kernels, gates, units, floats: usize, bias: Option<&[f32]>| {
            PackedGates::pack(kernels, gates, units, &vec![0; floats * 4], bias, &one)
        };
        assert!(pack(kernels, 0, 2, 0, None).is_err());
        assert!(pack(kernels, 5, 2, 20, None).is_err());
        assert!(pack(kernels, 4, 2, 15, None).is_err());
        assert!(pack(kernels, 4, 2, 16, Some(&[0.0; 7])).is_err());
        assert!(pack(kernels, 4, usize::MAX / 2, 0, None).is_err());
        let (lstm, gru) = (pack(kernels, 4, 2, 16, None).unwrap(), pack(kernels, 3, 2, 12, None).unwrap());
        let products = |weights, state: usize, out: usize, stride| {
            kernels.gate_products(weights, &vec![0.0; state], &mut vec![0.0; out], stride, order, &one)
        };
        assert!(products(&lstm, 4, 16, 8).is_ok());
        assert!(products(&lstm, 3, 16, 8).is_err());
        assert!(products(&lstm, 4, 15, 8).is_err());
        assert!(products(&lstm, 4, 16, 7).is_err());
        assert!(products(&lstm, 4, 16, usize::MAX).is_err());
        let step = |weights, inputs: usize, sizes: [usize; 4]| {
            let [hidden, cell, mut next, mut next_cell] = sizes.map(|size| vec![0.0; size]);
            kernels.lstm_step(
                weights,
                &vec![0.0; inputs],
                [&hidden, &cell],
                [&mut next, &mut next_cell],
                order,
                &one,
            )
        };
        assert!(step(&lstm, 8, [2; 4]).is_ok());
        assert!(step(&gru, 6, [2; 4]).is_err());
        assert!(step(&lstm, 7, [2; 4]).is_err());
        for wrong in 0..4 {
            let mut sizes = [2; 4];
            sizes[wrong] = 1;
            assert!(step(&lstm, 8, sizes).is_err());
        }
        assert!(kernels.gru_step(&gru, &[0.0; 6], &[0.0; 2], &mut [0.0; 2], order, &one).is_ok());
        assert!(kernels.gru_step(&gru, &[0.0; 6], &[0.0; 2], &mut [0.0; 1], order, &one).is_err());
        assert!(kernels.gru_step(&lstm, &[0.0; 8], &[0.0; 2], &mut [0.0; 2], order, &one).is_err());
        let none = pack(kernels, 4, 0, 0, None).unwrap();
        assert!(kernels.gate_products(&none, &[], &mut [], 0, order, &one).is_ok());
        if let Some(other) = available().iter().find(|other| other.lanes != kernels.lanes) {
            let foreign = pack(other, 4, 2, 16, None).unwrap();
            assert!(step(&foreign, 8, [2; 4]).is_err());
        }
    }
}
