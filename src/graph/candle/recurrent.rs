//! Recurrent layers, step by step, by the equations of ONNX `LSTM`, `GRU` and `RNN`.

use super::{
    elements::apply,
    step::{Inputs, Known, Step},
};
use crate::{
    kernels::Unary as U,
    ops::{
        OpError,
        recurrent::{Cell, Direction, Recurrent},
    },
};
use candle_core::{self as candle, Tensor};

/// True for layers without sequence lengths, peepholes and bounds.
pub(super) fn has(op: &Recurrent) -> bool {
    op.clip.is_none() && !op.given.lengths && !op.given.peephole && op.activations.is_empty()
}

pub(super) fn recurrent(op: &Recurrent, _: &Known<'_>) -> Result<Step, OpError> {
    let op = op.clone();
    Ok(Step::There(Box::new(move |inputs| run(&op, inputs))))
}

fn run(op: &Recurrent, inputs: &Inputs<'_>) -> candle::Result<Vec<Tensor>> {
    let x = inputs.at(0)?;
    let (steps, batch, _) = x.dims3()?;
    let mut next = 3;
    let mut optional = |given: bool| -> candle::Result<Option<Tensor>> {
        next += usize::from(given);
        given.then(|| inputs.at(next - 1)).transpose()
    };
    let (bias, first_hidden) = (optional(op.given.bias)?, optional(op.given.hidden)?);
    let first_cell = optional(op.given.cell)?;
    let directions = if op.direction == Direction::Both { 2 } else { 1 };
    let (mut sequences, mut hiddens, mut cells) = (Vec::new(), Vec::new(), Vec::new());
    for direction in 0..directions {
        let zero = || Tensor::zeros((batch, op.hidden), x.dtype(), x.device());
        let first = |given: &Option<Tensor>| match given {
            Some(given) => given.get(direction),
            None => zero(),
        };
        let (mut hidden, mut cell) = (first(&first_hidden)?, first(&first_cell)?);
        let weights = inputs.at(1)?.get(direction)?.t()?.contiguous()?;
        let recurrent = inputs.at(2)?.get(direction)?.t()?.contiguous()?;
        let width = weights.dim(1)?;
        let bias = bias.as_ref().map(|bias| bias.get(direction)).transpose()?;
        let part = |start: usize| bias.as_ref().map(|bias| bias.narrow(0, start, width)).transpose();
        let (input_bias, state_bias) = (part(0)?, part(width)?);
        let plus = |y: Tensor, bias: &Option<Tensor>| match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        };
        let projected = x.contiguous()?.flatten_to(1)?.matmul(&weights)?.reshape((steps, batch, width))?;
        let projected = plus(projected, &input_bias)?;
        let backwards = op.direction == Direction::Reverse || direction == 1;
        let mut sequence = Vec::with_capacity(steps);
        for step in 0..steps {
            let gates = projected.get(if backwards { steps - 1 - step } else { step })?;
            let gate = |y: &Tensor, number: usize| y.narrow(1, number * op.hidden, op.hidden);
            match op.cell {
                Cell::Rnn => {
                    let sum = (gates + plus(hidden.matmul(&recurrent)?, &state_bias)?)?;
                    hidden = sum.tanh()?;
                }
                Cell::Lstm => {
                    let sum = (gates + plus(hidden.matmul(&recurrent)?, &state_bias)?)?;
                    let sigmoid = |number: usize| apply(U::Sigmoid, &gate(&sum, number)?);
                    let (input, output, forget) = (sigmoid(0)?, sigmoid(1)?, sigmoid(2)?);
                    cell = ((forget * &cell)? + (input * gate(&sum, 3)?.tanh()?)?)?;
                    hidden = (output * cell.tanh()?)?;
                }
                Cell::Gru { linear_before_reset } => {
                    let state = plus(hidden.matmul(&recurrent)?, &state_bias)?;
                    let sigmoid =
                        |number: usize| apply(U::Sigmoid, &(gate(&gates, number)? + gate(&state, number)?)?);
                    let (update, reset) = (sigmoid(0)?, sigmoid(1)?);
                    let proposed = match linear_before_reset {
                        true => (reset * gate(&state, 2)?)?,
                        false => {
                            let kept = (reset * &hidden)?;
                            let product =
                                kept.matmul(&recurrent.narrow(1, 2 * op.hidden, op.hidden)?.contiguous()?)?;
                            let bias =
                                state_bias.as_ref().map(|bias| bias.narrow(0, 2 * op.hidden, op.hidden));
                            plus(product, &bias.transpose()?)?
                        }
                    };
                    let proposed = (gate(&gates, 2)? + proposed)?.tanh()?;
                    hidden = ((update.affine(-1.0, 1.0)? * proposed)? + (update * &hidden)?)?;
                }
            }
            sequence.push(hidden.clone());
        }
        if backwards {
            sequence.reverse();
        }
        sequences.push(Tensor::stack(&sequence, 0)?);
        hiddens.push(hidden);
        cells.push(cell);
    }
    let mut outputs = vec![Tensor::stack(&sequences, 1)?, Tensor::stack(&hiddens, 0)?];
    if op.cell == Cell::Lstm {
        outputs.push(Tensor::stack(&cells, 0)?);
    }
    Ok(outputs)
}
