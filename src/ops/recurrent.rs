//! Recurrent layers with the equations and layouts of ONNX `LSTM`, `GRU` and `RNN`; all `float`.
//!
//! The inputs of all steps are multiplied by their weights in one product; a step then is one
//! product of the state, to which its row of the first is added, and the gates (`steps`).

mod steps;

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::{
    kernels::{BLayout, PackedB, PackedGates, Unary},
    tensor::{DType, Tensor},
};
use serde::{Deserialize, Serialize};
use steps::Layer;

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

    /// Sigmoid gates, tanh for the others and nothing between: a step is one call of a kernel.
    fn is_usual(&self, direction: usize) -> bool {
        matches!(self.cell, Cell::Lstm | Cell::Gru { linear_before_reset: true })
            && self.clip.is_none()
            && !self.given.peephole
            && self.activations(direction) == self.cell.default_activations()
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
        let weights = cx.packed("recurrent", &from, || self.pack(cx, &values))?;
        let &[steps, batch, size] = cx.inputs[0].dims() else { return Err(OpError::Memory("a sequence")) };
        let op = self.clone();
        let layer = Layer { steps, batch, size, hidden: self.hidden, width: self.cell.gates() * self.hidden };
        let scratch = layer.scratch(self);
        Ok(Step::arena(move |io| layer.run(&op, &at, &weights, io)).with_scratch(scratch))
    }
}

/// Packed weights of one direction.
struct Weights {
    input: PackedB,
    /// All gates; but for a `Gru` whose reset gate comes before the product, the first two.
    gates: PackedGates,
    /// The third of those.
    last: Option<PackedGates>,
}

impl Recurrent {
    fn pack(&self, cx: &Lower<'_>, values: &[&Tensor]) -> Result<Vec<Weights>, OpError> {
        let (hidden, gates) = (self.hidden, self.cell.gates());
        let rows = gates * hidden;
        let [input, recurrent, bias @ ..] = values else { return Err(OpError::Memory("recurrent weights")) };
        let size = input.shape().last().copied().unwrap_or(0);
        let (input, recurrent) = (input.stored_bytes(), recurrent.stored_bytes());
        let bias = bias.first().map(|bias| bias.as_slice::<f32>()).transpose()?;
        let direction = |direction: usize| {
            let bias = bias.map(|bias| bias[direction * 2 * rows..][..2 * rows].split_at(rows));
            let late = self.cell == (Cell::Gru { linear_before_reset: true });
            // Both biases belong to the same sum, unless the reset gate comes between.
            let apart = |row: usize| late && row >= 2 * hidden;
            let joined: Option<Vec<f32>> = bias.map(|(input, recurrent)| {
                let own = |row: usize| if apart(row) { 0.0 } else { recurrent[row] };
                input.iter().enumerate().map(|(row, bias)| bias + own(row)).collect()
            });
            let own: Option<Vec<f32>> = bias.filter(|_| late).map(|(_, recurrent)| {
                recurrent.iter().enumerate().map(|(row, &bias)| if apart(row) { bias } else { 0.0 }).collect()
            });
            let pack = |gates: usize, weights: &[u8]| {
                PackedGates::pack(cx.kernels, gates, hidden, weights, own.as_deref(), cx.threads)
            };
            let recurrent = own_matrix(recurrent, direction, [rows, hidden])?;
            let early = self.cell == (Cell::Gru { linear_before_reset: false });
            let together = if early { 2 } else { gates };
            let (first, last) = recurrent.split_at(recurrent.len() / gates * together);
            Ok(Weights {
                input: PackedB::pack_stored(
                    cx.kernels,
                    size,
                    rows,
                    own_matrix(input, direction, [rows, size])?,
                    BLayout::RowMajorNxK,
                    joined.as_deref(),
                    cx.threads,
                )?,
                gates: pack(together, first)?,
                last: if early { Some(pack(1, last)?) } else { None },
            })
        };
        (0..self.directions()).map(direction).collect()
    }
}

/// The bytes of the matrix of a direction.
fn own_matrix(weights: &[u8], direction: usize, [rows, columns]: [usize; 2]) -> Result<&[u8], OpError> {
    let bytes = rows * columns * size_of::<f32>();
    weights.get(direction * bytes..(direction + 1) * bytes).ok_or(OpError::Memory("recurrent weights"))
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

    /// Runs a layer with and without what keeps it from the usual steps.
    fn check(cell: Cell, direction: Direction, usual: bool) {
        let lstm = cell == Cell::Lstm;
        let given =
            GivenInputs { bias: true, lengths: !usual, hidden: true, cell: lstm, peephole: lstm && !usual };
        let op = Recurrent { cell, hidden: HIDDEN, direction, activations: vec![], clip: None, given };
        let (d, rows) = (op.directions(), cell.gates() * HIDDEN);
        let steps = STEPS as i32;
        let lengths = if usual { [steps; BATCH] } else { [steps, 2, 0] };
        let mut inputs = vec![
            tensor(&[STEPS, BATCH, SIZE], 1),
            tensor(&[d, rows, SIZE], 2),
            tensor(&[d, rows, HIDDEN], 3),
            tensor(&[d, 2 * rows], 4),
            Tensor::from_slice([BATCH], &lengths).unwrap(),
            tensor(&[d, BATCH, HIDDEN], 5),
        ];
        if lstm {
            let peephole = if usual { vec![0.0; d * 3 * HIDDEN] } else { numbers(d * 3 * HIDDEN, 7) };
            inputs.push(tensor(&[d, BATCH, HIDDEN], 6));
            inputs.push(Tensor::from_slice([d, 3 * HIDDEN], &peephole).unwrap());
        }
        let (y, hidden, state) = naive(&op, &inputs);
        if usual {
            inputs.remove(4);
            inputs.truncate(5 + usize::from(lstm));
        }
        let made = run_op_outputs(op, &inputs, 2 + usize::from(lstm)).unwrap();
        for (made, expected) in made.iter().zip([y, hidden, state]) {
            let made = made.as_slice::<f32>().unwrap();
            assert_eq!(made.len(), expected.len());
            for (a, b) in made.iter().zip(expected) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "{cell:?} {direction:?} {usual}: {a} and {b}");
            }
        }
    }

    #[test]
    fn agrees_with_the_equations() {
        let late = Cell::Gru { linear_before_reset: true };
        for cell in [Cell::Rnn, Cell::Gru { linear_before_reset: false }, late, Cell::Lstm] {
            for direction in [Direction::Forward, Direction::Reverse, Direction::Both] {
                check(cell, direction, false);
                check(cell, direction, true);
            }
        }
    }

    #[test]
    fn no_steps_leave_the_first_state() {
        let given = GivenInputs { hidden: true, ..GivenInputs::default() };
        let (cell, direction) = (Cell::Gru { linear_before_reset: true }, Direction::Both);
        let op = Recurrent { cell, hidden: HIDDEN, direction, activations: vec![], clip: None, given };
        let rows = cell.gates() * HIDDEN;
        let first = tensor(&[2, BATCH, HIDDEN], 4);
        let x = Tensor::zeros(DType::F32, [0, BATCH, SIZE]).unwrap();
        let inputs = [x, tensor(&[2, rows, SIZE], 2), tensor(&[2, rows, HIDDEN], 3), first.clone()];
        let made = run_op_outputs(op, &inputs, 2).unwrap();
        assert_eq!(made[0].len(), 0);
        assert_eq!(made[1].as_slice::<f32>().unwrap(), first.as_slice::<f32>().unwrap());
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
