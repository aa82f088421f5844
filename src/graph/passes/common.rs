//! What is computed twice is computed once: nodes with equal operators and inputs become one.

use crate::{
    graph::{Graph, ValueId},
    ops::{Op, Operator},
    tensor::{DType, Tensor},
};
use std::collections::{BTreeMap, HashMap};

/// Constants of more bytes are not compared: exporters repeat scalars and shapes, not weights.
const SMALL: usize = 256;

/// The same graph without repeated nodes and small constants.
pub(super) fn share_common(mut graph: Graph) -> Graph {
    let mut same: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut seen: HashMap<(DType, Vec<usize>, Vec<u8>), ValueId> = HashMap::new();
    for (&value, constant) in &graph.constants {
        let Some(bytes) = small_bytes(constant) else { continue };
        let first = *seen.entry((constant.dtype(), constant.shape().to_vec(), bytes)).or_insert(value);
        if first != value {
            same.insert(value, first);
        }
    }
    // Nodes by name and inputs; few have both in common, and those are compared.
    let mut known: HashMap<(&'static str, Vec<ValueId>), Vec<usize>> = HashMap::new();
    let mut kept: Vec<crate::graph::Node> = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.inputs {
            *input = *same.get(input).unwrap_or(input);
        }
        if may_share(&node.op) {
            let candidates = known.entry((node.op.name(), node.inputs.clone())).or_default();
            let twin = candidates
                .iter()
                .map(|&at| &kept[at])
                .find(|twin| twin.op == node.op && twin.outputs.len() == node.outputs.len());
            if let Some(twin) = twin {
                same.extend(node.outputs.iter().copied().zip(twin.outputs.iter().copied()));
                continue;
            }
            candidates.push(kept.len());
        }
        kept.push(node);
    }
    graph.nodes = kept;
    for (_, value) in &mut graph.outputs {
        *value = *same.get(value).unwrap_or(value);
    }
    graph
}

/// The bytes of a small constant that are there without computing them.
fn small_bytes(constant: &Tensor) -> Option<Vec<u8>> {
    (constant.dtype().size().is_some() && constant.memory() <= SMALL).then(|| constant.as_bytes().to_vec())
}

/// Bodies of loops and branches may do more than compute.
fn may_share(op: &Op) -> bool {
    !op.stateful() && !matches!(op, Op::If(_) | Op::While(_) | Op::Loop(_) | Op::Scan(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        kernels::{Binary as B, Unary as U},
        ops::{binary::Binary, unary::Unary},
    };

    #[test]
    fn equal_chains_become_one() {
        let before = graph(&[2, 3], |b, x| {
            let side = |b: &mut crate::graph::Builder| {
                let two = b.scalar(2.0);
                let y = b.push(Binary(B::Mul), &[x, two]);
                b.push(Unary(U::Exp), &[y])
            };
            let (left, right) = (side(b), side(b));
            b.push(Binary(B::Add), &[left, right])
        });
        let after = operators_after(&before, &wave(&[2, 3]), |graph, _| share_common(graph));
        assert_eq!(after, ["Binary", "Unary", "Binary"]);
    }

    #[test]
    fn what_differs_stays() {
        let before = graph(&[2, 3], |b, x| {
            let [two, zero, minus] = [2.0, 0.0, -0.0].map(|value| b.scalar(value));
            let y = b.push(Binary(B::Mul), &[x, two]);
            let z = b.push(Binary(B::Add), &[x, two]);
            let [y, z] = [b.push(Binary(B::Add), &[y, zero]), b.push(Binary(B::Add), &[z, minus])];
            b.push(Binary(B::Sub), &[y, z])
        });
        let after = operators_after(&before, &wave(&[2, 3]), |graph, _| share_common(graph));
        assert_eq!(after.len(), 5);
    }
}
