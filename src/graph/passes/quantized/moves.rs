//! What only moves elements moves the bytes that a dequantisation reads, instead of the floats that it makes.

use crate::{
    graph::{Graph, Node, ValueId},
    ops::Op,
};
use std::collections::HashMap;

/// The same graph with dequantisations behind moves.
pub(super) fn move_bytes(mut graph: Graph) -> Graph {
    // Of dequantised values: the node that made them.
    let mut dequantized: HashMap<ValueId, Node> = HashMap::new();
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        match &node.op {
            Op::Dequantize(_) if of_one_scale(&graph, &node) => {
                if let &[output] = node.outputs.as_slice() {
                    dequantized.insert(output, node.clone());
                }
            }
            op if moves(op) => {
                let (inputs, outputs) = (node.inputs.as_slice(), node.outputs.as_slice());
                if let ([x, others @ ..], &[output]) = (inputs, outputs)
                    && let Some(mut after) = dequantized.get(x).cloned()
                {
                    let moved = graph.new_value();
                    let inputs = after.inputs.first().copied().into_iter().chain(others.iter().copied());
                    let inputs = inputs.collect();
                    graph.nodes.push(Node { inputs, outputs: vec![moved], ..node });
                    after.inputs[0] = moved;
                    after.outputs = vec![output];
                    dequantized.insert(output, after.clone());
                    graph.nodes.push(after);
                    continue;
                }
            }
            _ => {}
        }
        graph.nodes.push(node);
    }
    graph
}

/// A scale of one element, which axes do not matter to.
fn of_one_scale(graph: &Graph, node: &Node) -> bool {
    let scale = node.inputs.get(1).and_then(|scale| graph.constants.get(scale));
    scale.is_some_and(|scale| scale.len() == 1 && scale.shape().len() <= 1)
        && node.inputs.first().is_some_and(|x| !graph.constants.contains_key(x))
}

/// Operators that give elements of their first input in another place, whatever they are.
pub(super) fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Squeeze(_)
            | Op::ExpandDims(_)
            | Op::Slice(_)
            | Op::Gather(_)
            | Op::DepthToSpace(_)
            | Op::SpaceToDepth(_)
    )
}

#[cfg(test)]
mod tests {
    use super::{super::testing::coded, *};
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        ops::{layout::Transpose, shape::Squeeze},
        tensor::DType,
    };

    #[test]
    fn bytes_are_transposed() {
        let before = graph(&[0, 1, 5], |b, x| {
            let x = coded(b, x, DType::U8, 0.25, 128);
            let x = b.push(Transpose { perm: vec![2, 1, 0] }, &[x]);
            b.push(Squeeze { axes: vec![1] }, &[x])
        });
        let after = operators_after(&before, &wave(&[2, 1, 5]), |graph, _| move_bytes(graph));
        assert_eq!(after, ["Quantize", "Transpose", "Squeeze", "Dequantize"]);
    }
}
