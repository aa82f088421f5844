//! Removes identities, and nodes and constants that no output needs.

use crate::{
    graph::{Graph, ValueId},
    maps::Ordered,
    ops::{Op, Operator},
};
use std::collections::BTreeMap;

/// The same computation without identities and dead nodes.
pub fn clean(mut graph: Graph) -> Graph {
    remove_identities(&mut graph);
    remove_dead(&mut graph);
    graph
}

fn remove_identities(graph: &mut Graph) {
    let mut same: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let resolve = |same: &BTreeMap<ValueId, ValueId>, value: ValueId| *same.get(&value).unwrap_or(&value);
    graph.nodes.retain_mut(|node| {
        for input in &mut node.inputs {
            *input = resolve(&same, *input);
        }
        match (&node.op, node.inputs.as_slice(), node.outputs.as_slice()) {
            (Op::Identity(_), [input], [output]) => {
                same.insert(*output, *input);
                false
            }
            _ => true,
        }
    });
    for (_, value) in &mut graph.outputs {
        *value = resolve(&same, *value);
    }
}

fn remove_dead(graph: &mut Graph) {
    let mut needed = graph.outputs.iter().map(|(_, value)| *value).into_set();
    let mut nodes = std::mem::take(&mut graph.nodes);
    let mut kept = Vec::with_capacity(nodes.len());
    while let Some(node) = nodes.pop() {
        if node.op.stateful() || node.outputs.iter().any(|value| needed.contains(value)) {
            needed.extend(node.inputs.iter().copied());
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
    graph.constants.retain(|value, _| needed.contains(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::Builder,
        ops::{shape::Identity, unary::Unary},
        tensor::DType,
    };

    #[test]
    fn only_what_the_outputs_need_stays() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, None);
        let unused = b.scalar(1.0);
        let dead = b.push(Unary::relu(), &[unused]);
        let _dead = b.push(Unary::relu(), &[dead]);
        let same = b.push(Identity, &[x]);
        let y = b.push(Unary::relu(), &[same]);
        let z = b.push(Identity, &[y]);
        let graph = clean(b.finish(vec![("z".into(), z)]));
        assert_eq!(graph.nodes().len(), 1);
        assert_eq!(graph.nodes()[0].inputs, [x]);
        assert_eq!(graph.outputs(), [("z".to_owned(), y)]);
        assert!(graph.constants().is_empty());
    }
}
