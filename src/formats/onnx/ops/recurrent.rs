//! Recurrent layers.

use super::{Outputs, many};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    kernels::Unary as U,
    ops::{
        layout::Transpose,
        recurrent::{Cell, Direction, GivenInputs, Recurrent},
    },
};

pub(super) fn lstm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    if n.attributes.flag("input_forget") {
        return Err("coupled gates are not supported".into());
    }
    layer(i, n, Cell::Lstm)
}

pub(super) fn gru<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    layer(i, n, Cell::Gru { linear_before_reset: n.attributes.flag("linear_before_reset") })
}

pub(super) fn rnn<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    layer(i, n, Cell::Rnn)
}

fn layer<'a>(i: &mut Import<'a>, n: &Node<'a>, cell: Cell) -> Outputs {
    let batch_first = n.attributes.flag("layout");
    let swap = |i: &mut Import<'a>, x: ValueId| {
        if batch_first { i.b.push(Transpose { perm: vec![1, 0, 2] }, &[x]) } else { x }
    };
    let x = n.tensor(0)?;
    let mut inputs = vec![swap(i, x), n.tensor(1)?, n.tensor(2)?];
    let optional = [n.optional(3)?, n.optional(4)?, n.optional(5)?, n.optional(6)?, n.optional(7)?];
    let given = optional.map(|input| input.is_some());
    for (position, input) in optional.into_iter().enumerate() {
        if let Some(input) = input {
            // The initial states have the batch first too.
            inputs.push(if matches!(position, 2 | 3) { swap(i, input) } else { input });
        }
    }
    let hidden = match (n.attributes.int("hidden_size", 0), i.dims(inputs[2]).as_deref()) {
        (1.., _) => {
            usize::try_from(n.attributes.int("hidden_size", 0)).map_err(|_| "hidden_size is too large")?
        }
        (_, Some([_, _, Some(hidden)])) => *hidden,
        _ => return Err("hidden_size is missing".into()),
    };
    let clip = n.attributes.float("clip", 0.0);
    let op = Recurrent {
        cell,
        hidden,
        direction: match n.attributes.text("direction", "forward") {
            "forward" => Direction::Forward,
            "reverse" => Direction::Reverse,
            "bidirectional" => Direction::Both,
            other => return Err(format!("unknown direction \"{other}\"").into()),
        },
        activations: activations(n)?,
        clip: (clip > 0.0).then_some(clip),
        given: GivenInputs {
            bias: given[0],
            lengths: given[1],
            hidden: given[2],
            cell: given[3],
            peephole: given[4],
        },
    };
    let outputs = if cell == Cell::Lstm { 3 } else { 2 };
    let mut made = i.b.push_many(op, &inputs, outputs);
    if batch_first {
        made[0] = i.b.push(Transpose { perm: vec![2, 0, 1, 3] }, &[made[0]]);
        for state in &mut made[1..] {
            *state = swap(i, *state);
        }
    }
    many(made)
}

/// The activations with their parameters, which stand in lists of their own.
fn activations(n: &Node<'_>) -> Result<Vec<U>, Stop> {
    let (mut alphas, mut betas) =
        (n.attributes.floats("activation_alpha").iter(), n.attributes.floats("activation_beta").iter());
    let mut parameter = |default: f32| alphas.next().copied().unwrap_or(default);
    let activation = |name: &str| {
        Ok(match name.to_ascii_lowercase().as_str() {
            "relu" => U::Relu,
            "tanh" => U::Tanh,
            "sigmoid" => U::Sigmoid,
            "softsign" => U::Softsign,
            "softplus" => U::Softplus,
            "leakyrelu" => U::LeakyRelu(parameter(0.01)),
            "thresholdedrelu" => U::ThresholdedRelu(parameter(1.0)),
            "elu" => U::Elu(parameter(1.0)),
            "hardsigmoid" => {
                U::HardSigmoid { alpha: parameter(0.2), beta: betas.next().copied().unwrap_or(0.5) }
            }
            other => return Err(Stop::Reason(format!("activation \"{other}\" is not supported"))),
        })
    };
    n.attributes.texts("activations").into_iter().map(activation).collect()
}
