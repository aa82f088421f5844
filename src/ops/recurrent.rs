//! Recurrent layers with the equations and layouts of ONNX `LSTM`, `GRU` and `RNN`; all `float`.
//!
//! The inputs of all steps are multiplied by their weights in one product; a step then is one
//! product of the state, to which its row of the first is added, and the gates.

use super::{Fact, Inferred, Io, Lower, OpError, Operator, Step, expect_inputs};
use crate::{
    kernels::{BLayout, Epilogue, Kernels, PackedB, Unary},
    ops::RunContext,
    tensor::{DType, Tensor},
};
use serde::{Deserialize, Serialize};

/// The equations of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// Gates input, output, forget, cell; activations of gates, cell and hidden state.
    Lstm,
    /// Gates update, reset, hidden; activations of gates and hidden state.
    Gru {
        /// The reset gate is applied after the product with the state.
        linear_before_reset: bool,
    },
    /// One gate and one activation.
    Rnn,
}

/// In which order the steps run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the first.
    Forward,
    /// From the last.
    Reverse,
    /// Two layers of weights, one each way.
    Both,
}

/// A recurrent layer. Inputs: `x` `[steps, batch, size]`, weights `[directions, gates * hidden,
/// size]`, recurrent weights `[directions, gates * hidden, hidden]`, and those of `given`, in the
/// order of its fields. Outputs: `[steps, directions, batch, hidden]`, the last hidden state
/// `[directions, batch, hidden]`, and for `Lstm` the last cell state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recurrent {
    /// The equations.
    pub cell: Cell,
    /// Size of the state.
    pub hidden: usize,
    /// The order of the steps.
    pub direction: Direction,
    /// Activations for each direction in turn; sigmoid for gates and tanh for the others when empty.
    pub activations: Vec<Unary>,
    /// Bounds of what the activations are given.
    pub clip: Option<f32>,
    /// The optional inputs.
    pub given: GivenInputs,
}

/// Which optional inputs a [`Recurrent`] has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GivenInputs {
    /// `[directions, 2 * gates * hidden]`: added to both products.
    pub bias: bool,
    /// `int32` `[batch]`: steps of each row; the outputs after them are 0.
    pub lengths: bool,
    /// `[directions, batch, hidden]`, 0 when not given.
    pub hidden: bool,
    /// As the hidden state, for `Lstm`.
    pub cell: bool,
    /// `[directions, 3 * hidden]`: weights of the cell state in the gates input, output and forget.
    pub peephole: bool,
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru { .. } => 3,
            Cell::Rnn => 1,
        }
    }

    fn default_activations(self) -> &'static [Unary] {
        match self {
            Cell::Lstm => &[Unary::Sigmoid, Unary::Tanh, Unary::Tanh],
            Cell::Gru { .. } => &[Unary::Sigmoid, Unary::Tanh],
            Cell::Rnn => &[Unary::Tanh],
        }
    }
}

/// Positions of the optional inputs.
struct Positions {
    bias: Option<usize>,
    lengths: Option<usize>,
    hidden: Option<usize>,
    cell: Option<usize>,
    peephole: Option<usize>,
    count: usize,
}

impl GivenInputs {
    fn positions(self) -> Positions {
        let mut count = 3;
        let mut next = |given: bool| {
            count += usize::from(given);
            given.then(|| count - 1)
        };
        let [bias, lengths, hidden, cell, peephole] =
            [self.bias, self.lengths, self.hidden, self.cell, self.peephole].map(&mut next);
        Positions { bias, lengths, hidden, cell, peephole, count }
    }
}

impl Recurrent {
    fn directions(&self) -> usize {
        if self.direction == Direction::Both { 2 } else { 1 }
    }

    /// Sigmoid gates, tanh for the others and no bounds: what kernels have in one pass.
    fn is_usual(&self, direction: usize) -> bool {
        self.clip.is_none() && self.activations(direction) == self.cell.default_activations()
    }

    fn activations(&self, direction: usize) -> &[Unary] {
        let defaults = self.cell.default_activations();
        self.activations.get(direction * defaults.len()..(direction + 1) * defaults.len()).unwrap_or(defaults)
    }
}

impl Operator for Recurrent {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let at = self.given.positions();
        expect_inputs(inputs, at.count..=at.count)?;
        if self.cell != Cell::Lstm && (self.given.cell || self.given.peephole) {
            return Err(OpError::invalid("only an LSTM has a cell state"));
        }
        let (hidden, directions) = (self.hidden, self.directions());
        let rows = self.cell.gates().saturating_mul(hidden);
        let &[steps, batch, size] = inputs[0].dims() else {
            return Err(OpError::invalid(format!("expected x of rank 3, got {}", inputs[0].shape)));
        };
        let state = vec![directions, batch, hidden];
        let mut wanted: Vec<(usize, DType, Vec<usize>)> = vec![
            (0, DType::F32, vec![steps, batch, size]),
            (1, DType::F32, vec![directions, rows, size]),
            (2, DType::F32, vec![directions, rows, hidden]),
        ];
        let optional = [
            (at.bias, DType::F32, vec![directions, rows.saturating_mul(2)]),
            (at.lengths, DType::I32, vec![batch]),
            (at.hidden, DType::F32, state.clone()),
            (at.cell, DType::F32, state.clone()),
            (at.peephole, DType::F32, vec![directions, hidden.saturating_mul(3)]),
        ];
        wanted.extend(optional.into_iter().filter_map(|(index, dtype, dims)| Some((index?, dtype, dims))));
        for (index, dtype, dims) in wanted {
            let fact = &inputs[index];
            if fact.dtype != dtype || fact.dims() != dims {
                return Err(OpError::invalid(format!(
                    "input {index} of a recurrent layer is a {} of shape {}, but must be a {dtype} of {dims:?}",
                    fact.dtype, fact.shape
                )));
            }
        }
        let needed = [Some(1), Some(2), at.bias];
        if let Some(unknown) = needed.into_iter().flatten().find(|&index| inputs[index].value.is_none()) {
            return Ok(Inferred::NeedsValue(unknown));
        }
        let mut facts = vec![
            Fact::new(DType::F32, [steps, directions, batch, hidden]),
            Fact::new(DType::F32, [directions, batch, hidden]),
        ];
        if self.cell == Cell::Lstm {
            facts.push(Fact::new(DType::F32, [directions, batch, hidden]));
        }
        Ok(Inferred::Facts(facts))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let at = self.given.positions();
        let mut from = vec![1, 2];
        from.extend(at.bias);
        let values: Option<Vec<&Tensor>> = from.iter().map(|&index| cx.value(index)).collect();
        let values = values.ok_or(OpError::Memory("recurrent weights"))?;
        let weights = cx.packed("recurrent", &from, || self.pack(cx.kernels, &values))?;
        let &[steps, batch, size] = cx.inputs[0].dims() else { return Err(OpError::Memory("a sequence")) };
        let op = self.clone();
        let layer = Layer { steps, batch, size, hidden: self.hidden, width: self.cell.gates() * self.hidden };
        let floats =
            (steps + 2).saturating_mul(batch).saturating_mul(layer.width).saturating_add(batch * self.hidden);
        let step = Step::arena(move |io| layer.run(&op, &at, &weights, io));
        Ok(step.with_scratch(floats.saturating_mul(size_of::<f32>())))
    }
}

/// Packed weights of one direction.
struct Weights {
    input: PackedB,
    /// All gates; for `Gru` the first two.
    gates: PackedB,
    /// For `Gru` the third gate.
    last: Option<PackedB>,
}

impl Recurrent {
    fn pack(&self, kernels: &'static Kernels, values: &[&Tensor]) -> Result<Vec<Weights>, OpError> {
        let (hidden, rows) = (self.hidden, self.cell.gates() * self.hidden);
        let [input, recurrent, bias @ ..] = values else { return Err(OpError::Memory("recurrent weights")) };
        let size = input.shape().last().copied().unwrap_or(0);
        let (input, recurrent) = (input.as_slice::<f32>()?, recurrent.as_slice::<f32>()?);
        let bias = bias.first().map(|bias| bias.as_slice::<f32>()).transpose()?;
        let direction = |direction: usize| {
            let bias = bias.map(|bias| bias[direction * 2 * rows..][..2 * rows].split_at(rows));
            let gru = matches!(self.cell, Cell::Gru { .. });
            let late = self.cell == (Cell::Gru { linear_before_reset: true });
            // Both biases belong to the same sum, unless the reset gate comes between.
            let joined: Option<Vec<f32>> = bias.map(|(input, recurrent)| {
                let own = |row: usize| if late && row >= 2 * hidden { 0.0 } else { recurrent[row] };
                input.iter().enumerate().map(|(row, bias)| bias + own(row)).collect()
            });
            let pack = |k: usize, weights: &[f32], bias: Option<&[f32]>| {
                let n = weights.len().checked_div(k).unwrap_or(0);
                PackedB::pack(kernels, k, n, weights, BLayout::RowMajorNxK, bias)
            };
            let recurrent = &recurrent[direction * rows * hidden..][..rows * hidden];
            let (gates, last) = recurrent.split_at(if gru { 2 * hidden * hidden } else { recurrent.len() });
            let last_bias = bias.filter(|_| late).map(|(_, recurrent)| &recurrent[2 * hidden..]);
            Ok(Weights {
                input: pack(size, &input[direction * rows * size..][..rows * size], joined.as_deref())?,
                gates: pack(hidden, gates, None)?,
                last: if gru { Some(pack(hidden, last, last_bias)?) } else { None },
            })
        };
        (0..self.directions()).map(direction).collect()
    }
}

struct Layer {
    steps: usize,
    batch: usize,
    size: usize,
    hidden: usize,
    width: usize,
}

/// Memory of one direction.
struct Work<'a> {
    /// What the input adds to the gates of each row of this step.
    inputs: &'a [f32],
    gates: &'a mut [f32],
    /// For `Gru`, one value per unit.
    product: &'a mut [f32],
    hidden: &'a mut [f32],
    cell: &'a mut [f32],
    peephole: Option<&'a [f32]>,
}

impl Layer {
    fn run(
        &self,
        op: &Recurrent,
        at: &Positions,
        weights: &[Weights],
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let Self { steps, batch, hidden, width, .. } = *self;
        let x = io.input::<f32>(0)?;
        let lengths = at.lengths.map(|index| io.input::<i32>(index)).transpose()?;
        let mut initial = |index: Option<usize>| index.map(|index| io.input::<f32>(index)).transpose();
        let (first_hidden, first_cell, peephole) =
            (initial(at.hidden)?, initial(at.cell)?, initial(at.peephole)?);
        let (y, last_hidden) = (io.next_output::<f32>()?, io.next_output::<f32>()?);
        let last_cell = if op.cell == Cell::Lstm { io.next_output::<f32>()? } else { &mut [][..] };
        start(last_hidden, first_hidden);
        start(last_cell, first_cell);
        y.fill(0.0);
        let scratch = io.scratch::<f32>()?;
        if y.is_empty() {
            return Ok(());
        }
        let (projected, rest) = scratch.split_at_mut(steps * batch * width);
        let (inputs, rest) = rest.split_at_mut(batch * width);
        let (gates, product) = rest.split_at_mut(batch * width);
        let (state, rows_width) = (batch * hidden, batch * width);
        for (direction, weights) in weights.iter().enumerate() {
            let cx = io.context();
            let backwards = op.direction == Direction::Reverse || direction == 1;
            let (rows, plain) = (steps * batch, Epilogue::default());
            cx.kernels.gemm(x, self.size, rows, &weights.input, projected, width, &plain, cx.threads)?;
            let cells = if last_cell.is_empty() { 0..0 } else { direction * state..(direction + 1) * state };
            for step in 0..steps {
                // The position that a row is at, while it lasts.
                let position = |row: usize| {
                    let len = lengths
                        .map_or(steps, |lengths| usize::try_from(lengths[row]).unwrap_or(0).min(steps));
                    (step < len).then(|| if backwards { len - 1 - step } else { step })
                };
                let inputs: &[f32] = match (lengths, position(0)) {
                    // All rows are at one position: read where they are, by the core that computed them.
                    (None, Some(position)) => &projected[position * rows_width..][..rows_width],
                    _ => {
                        for (row, to) in inputs.chunks_exact_mut(width).enumerate() {
                            match position(row) {
                                Some(position) => to
                                    .copy_from_slice(&projected[(position * batch + row) * width..][..width]),
                                None => to.fill(0.0),
                            }
                        }
                        &*inputs
                    }
                };
                let mut work = Work {
                    inputs,
                    gates: &mut *gates,
                    product: &mut product[..state],
                    hidden: &mut last_hidden[direction * state..][..state],
                    cell: &mut last_cell[cells.clone()],
                    peephole: peephole.map(|all| &all[direction * 3 * hidden..][..3 * hidden]),
                };
                self.multiply(op, weights, &mut work, cx, direction)?;
                for row in 0..batch {
                    let Some(position) = position(row) else { continue };
                    self.update(op, &mut work, row, cx, direction)?;
                    let to = ((position * op.directions() + direction) * batch + row) * hidden;
                    y[to..to + hidden].copy_from_slice(&work.hidden[row * hidden..][..hidden]);
                }
            }
        }
        Ok(())
    }

    /// The products of a step, and the gates that the last product of `Gru` needs.
    fn multiply(
        &self,
        op: &Recurrent,
        weights: &Weights,
        work: &mut Work<'_>,
        cx: &RunContext<'_>,
        direction: usize,
    ) -> Result<(), OpError> {
        let Self { batch, hidden, width, .. } = *self;
        let (kernels, threads) = (cx.kernels, cx.threads);
        let added = Epilogue { residual: Some(work.inputs), ..Epilogue::default() };
        kernels.gemm(work.hidden, hidden, batch, &weights.gates, work.gates, width, &added, threads)?;
        let (Some(last), Cell::Gru { linear_before_reset }) = (&weights.last, op.cell) else { return Ok(()) };
        if linear_before_reset && op.is_usual(direction) {
            let plain = Epilogue::default();
            return Ok(kernels.gemm(
                work.hidden,
                hidden,
                batch,
                last,
                work.product,
                hidden,
                &plain,
                threads,
            )?);
        }
        for gates in work.gates.chunks_exact_mut(width) {
            activate(op, op.activations(direction)[0], &mut gates[..2 * hidden], cx);
        }
        if linear_before_reset {
            let plain = Epilogue::default();
            kernels.gemm(work.hidden, hidden, batch, last, work.product, hidden, &plain, threads)?;
            for ((gates, inputs), product) in work
                .gates
                .chunks_exact_mut(width)
                .zip(work.inputs.chunks_exact(width))
                .zip(work.product.chunks_exact(hidden))
            {
                let (reset, new) = gates[hidden..].split_at_mut(hidden);
                for unit in 0..hidden {
                    new[unit] = inputs[2 * hidden + unit] + reset[unit] * product[unit];
                }
            }
            return Ok(());
        }
        for ((gates, product), state) in work
            .gates
            .chunks_exact(width)
            .zip(work.product.chunks_exact_mut(hidden))
            .zip(work.hidden.chunks_exact(hidden))
        {
            for unit in 0..hidden {
                product[unit] = gates[hidden + unit] * state[unit];
            }
        }
        let added = Epilogue { residual: Some(&work.inputs[2 * hidden..]), ..Epilogue::default() };
        let new = &mut work.gates[2 * hidden..];
        Ok(kernels.gemm(work.product, hidden, batch, last, new, width, &added, threads)?)
    }

    /// The state of one row after a step.
    fn update(
        &self,
        op: &Recurrent,
        work: &mut Work<'_>,
        row: usize,
        cx: &RunContext<'_>,
        direction: usize,
    ) -> Result<(), OpError> {
        let Self { hidden, width, .. } = *self;
        let gates = &mut work.gates[row * width..][..width];
        let state = &mut work.hidden[row * hidden..][..hidden];
        let functions = op.activations(direction);
        match op.cell {
            Cell::Lstm if op.is_usual(direction) && work.peephole.is_none() => {
                let cell = &mut work.cell[row * hidden..][..hidden];
                cx.kernels.lstm_cell(gates, cell, state)?;
            }
            Cell::Gru { linear_before_reset: true } if op.is_usual(direction) => {
                let input = &work.inputs[row * width + 2 * hidden..][..hidden];
                let product = &work.product[row * hidden..][..hidden];
                cx.kernels.gru_cell(&gates[..2 * hidden], input, product, state)?;
            }
            Cell::Rnn => {
                activate(op, functions[0], gates, cx);
                state.copy_from_slice(gates);
            }
            Cell::Gru { .. } => {
                let (update, new) = gates.split_at_mut(2 * hidden);
                activate(op, functions[1], new, cx);
                for unit in 0..hidden {
                    state[unit] = (1.0 - update[unit]) * new[unit] + update[unit] * state[unit];
                }
            }
            Cell::Lstm => {
                let cell = &mut work.cell[row * hidden..][..hidden];
                let (input, rest) = gates.split_at_mut(hidden);
                let (output, rest) = rest.split_at_mut(hidden);
                let (forget, new) = rest.split_at_mut(hidden);
                let peep = |gate: &mut [f32], cell: &[f32], part: usize| {
                    if let Some(weights) = work.peephole {
                        let weights = &weights[part * hidden..][..hidden];
                        gate.iter_mut()
                            .zip(cell)
                            .zip(weights)
                            .for_each(|((gate, cell), weight)| *gate += cell * weight);
                    }
                };
                peep(input, cell, 0);
                peep(forget, cell, 2);
                activate(op, functions[0], input, cx);
                activate(op, functions[0], forget, cx);
                activate(op, functions[1], new, cx);
                for unit in 0..hidden {
                    cell[unit] = forget[unit] * cell[unit] + input[unit] * new[unit];
                }
                peep(output, cell, 1);
                activate(op, functions[0], output, cx);
                state.copy_from_slice(cell);
                cx.kernels.unary_in_place(functions[2], state, cx.threads);
                state.iter_mut().zip(output.iter()).for_each(|(state, gate)| *state *= gate);
            }
        }
        Ok(())
    }
}

fn start(state: &mut [f32], initial: Option<&[f32]>) {
    match initial {
        Some(initial) => state.copy_from_slice(initial),
        None => state.fill(0.0),
    }
}

fn activate(op: &Recurrent, function: Unary, x: &mut [f32], cx: &RunContext<'_>) {
    if let Some(clip) = op.clip {
        x.iter_mut().for_each(|x| *x = x.max(-clip).min(clip));
    }
    cx.kernels.unary_in_place(function, x, cx.threads);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op_outputs;

    const STEPS: usize = 4;
    const BATCH: usize = 3;
    const SIZE: usize = 2;
    const HIDDEN: usize = 5;

    /// Numbers between -1 and 1 that look random.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn tensor(dims: &[usize], seed: u32) -> Tensor {
        Tensor::from_slice(dims, &numbers(dims.iter().product(), seed)).unwrap()
    }

    fn at(tensor: &Tensor, index: &[usize]) -> f64 {
        let place = index.iter().zip(tensor.shape().iter()).fold(0, |place, (&i, &dim)| place * dim + i);
        f64::from(tensor.as_slice::<f32>().unwrap()[place])
    }

    /// The equations of the ONNX operator pages, one unit at a time. Inputs: x, w, r, b, lengths, h, c, p.
    fn naive(op: &Recurrent, inputs: &[Tensor]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (gates, directions) = (op.cell.gates(), op.directions());
        let lengths = inputs[4].as_slice::<i32>().unwrap();
        let mut y = vec![0.0; STEPS * directions * BATCH * HIDDEN];
        let (mut hiddens, mut cells) = (Vec::new(), Vec::new());
        for direction in 0..directions {
            for (row, &length) in lengths.iter().enumerate() {
                let read = |tensor: &Tensor| {
                    (0..HIDDEN).map(|u| at(tensor, &[direction, row, u])).collect::<Vec<_>>()
                };
                let mut h: Vec<f64> = read(&inputs[5]);
                let mut c: Vec<f64> =
                    if op.cell == Cell::Lstm { read(&inputs[6]) } else { vec![0.0; HIDDEN] };
                for step in 0..length as usize {
                    let backwards = op.direction == Direction::Reverse || direction == 1;
                    let position = if backwards { length as usize - 1 - step } else { step };
                    let unit = |gate: usize, unit: usize, h: &[f64], scale: f64| {
                        let line = gate * HIDDEN + unit;
                        let wx: f64 = (0..SIZE)
                            .map(|i| {
                                at(&inputs[1], &[direction, line, i]) * at(&inputs[0], &[position, row, i])
                            })
                            .sum();
                        let rh: f64 = (0..HIDDEN).map(|i| at(&inputs[2], &[direction, line, i]) * h[i]).sum();
                        let recurrent = rh + at(&inputs[3], &[direction, gates * HIDDEN + line]);
                        wx + at(&inputs[3], &[direction, line]) + scale * recurrent
                    };
                    let before = h.clone();
                    match op.cell {
                        Cell::Rnn => (0..HIDDEN).for_each(|u| h[u] = unit(0, u, &before, 1.0).tanh()),
                        Cell::Gru { linear_before_reset } => {
                            let reset: Vec<f64> =
                                (0..HIDDEN).map(|u| sigmoid(unit(1, u, &before, 1.0))).collect();
                            let masked: Vec<f64> = before.iter().zip(&reset).map(|(h, r)| h * r).collect();
                            for u in 0..HIDDEN {
                                let z = sigmoid(unit(0, u, &before, 1.0));
                                let new = match linear_before_reset {
                                    true => unit(2, u, &before, reset[u]),
                                    false => unit(2, u, &masked, 1.0),
                                };
                                h[u] = (1.0 - z) * new.tanh() + z * before[u];
                            }
                        }
                        Cell::Lstm => {
                            let peep =
                                |part: usize, u: usize| at(&inputs[7], &[direction, part * HIDDEN + u]);
                            for u in 0..HIDDEN {
                                let input = sigmoid(unit(0, u, &before, 1.0) + peep(0, u) * c[u]);
                                let forget = sigmoid(unit(2, u, &before, 1.0) + peep(2, u) * c[u]);
                                c[u] = forget * c[u] + input * unit(3, u, &before, 1.0).tanh();
                                let output = sigmoid(unit(1, u, &before, 1.0) + peep(1, u) * c[u]);
                                h[u] = output * c[u].tanh();
                            }
                        }
                    }
                    let to = ((position * directions + direction) * BATCH + row) * HIDDEN;
                    y[to..to + HIDDEN].copy_from_slice(&h);
                }
                hiddens.extend(h);
                cells.extend(c);
            }
        }
        (y, hiddens, cells)
    }

    #[test]
    fn agrees_with_the_equations() {
        let late = Cell::Gru { linear_before_reset: true };
        for cell in [Cell::Rnn, Cell::Gru { linear_before_reset: false }, late, Cell::Lstm] {
            for direction in [Direction::Forward, Direction::Reverse, Direction::Both] {
                let lstm = cell == Cell::Lstm;
                let given =
                    GivenInputs { bias: true, lengths: true, hidden: true, cell: lstm, peephole: lstm };
                let op =
                    Recurrent { cell, hidden: HIDDEN, direction, activations: vec![], clip: None, given };
                let (d, rows) = (op.directions(), cell.gates() * HIDDEN);
                let mut inputs = vec![
                    tensor(&[STEPS, BATCH, SIZE], 1),
                    tensor(&[d, rows, SIZE], 2),
                    tensor(&[d, rows, HIDDEN], 3),
                    tensor(&[d, 2 * rows], 4),
                    Tensor::from_slice([BATCH], &[4i32, 2, 0]).unwrap(),
                    tensor(&[d, BATCH, HIDDEN], 5),
                ];
                if lstm {
                    inputs.extend([tensor(&[d, BATCH, HIDDEN], 6), tensor(&[d, 3 * HIDDEN], 7)]);
                }
                let made = run_op_outputs(op.clone(), &inputs, 2 + usize::from(lstm)).unwrap();
                let (y, hidden, state) = naive(&op, &inputs);
                for (made, expected) in made.iter().zip([y, hidden, state]) {
                    let made = made.as_slice::<f32>().unwrap();
                    assert_eq!(made.len(), expected.len());
                    for (a, b) in made.iter().zip(expected) {
                        assert!((f64::from(*a) - b).abs() < 1e-5, "{cell:?} {direction:?}: {a} and {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn shapes_must_fit() {
        let op = Recurrent {
            cell: Cell::Rnn,
            hidden: HIDDEN,
            direction: Direction::Forward,
            activations: vec![Unary::Relu],
            clip: Some(0.5),
            given: GivenInputs::default(),
        };
        let x = tensor(&[1, 1, SIZE], 1);
        let w = Tensor::from_slice([1, HIDDEN, SIZE], &[1.0f32; HIDDEN * SIZE]).unwrap();
        let r = tensor(&[1, HIDDEN, HIDDEN], 3);
        let big = Tensor::from_slice([1, 1, SIZE], &[3.0f32; SIZE]).unwrap();
        let y = run_op_outputs(op.clone(), &[big, w.clone(), r.clone()], 2).unwrap();
        assert_eq!(y[1].as_slice::<f32>().unwrap(), [0.5; HIDDEN]);
        assert!(run_op_outputs(op, &[x, r, w], 2).is_err());
    }
}
