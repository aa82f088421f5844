//! Zeros around the space of images become the padding of the convolution that reads them.

use super::edit::Index;
use crate::{
    graph::{Graph, ValueId},
    ops::{Op, Padding, conv::Conv, pad::PadMode},
};

/// The same graph without pads of zeros before convolutions.
pub(super) fn fuse_pads(mut graph: Graph) -> Graph {
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        if let Some((conv, inputs)) = absorbed(&graph, &index, position) {
            graph.replace(&mut index, position, conv, inputs);
        }
    }
    graph
}

fn absorbed(graph: &Graph, index: &Index, position: usize) -> Option<(Conv, Vec<ValueId>)> {
    let node = &graph.nodes[position];
    let Op::Conv(conv) = &node.op else { return None };
    let before = graph.maker(index, *node.inputs.first()?)?;
    let Op::Pad(pad) = &before.op else { return None };
    let value = before.inputs.get(2).map_or(Some(0.0), |&value| graph.constant_float(value));
    if pad.mode != PadMode::Constant || value != Some(0.0) {
        return None;
    }
    let pads = graph.constant_integers(*before.inputs.get(1)?)?;
    let pads: Vec<(usize, usize)> = pads
        .chunks_exact(2)
        .map(|pad| Some((usize::try_from(pad[0]).ok()?, usize::try_from(pad[1]).ok()?)))
        .collect::<Option<_>>()?;
    let [(0, 0), space @ .., (0, 0)] = pads.as_slice() else { return None };
    let own = match &conv.padding {
        Padding::Valid => vec![(0, 0); space.len()],
        Padding::Explicit(own) if own.len() == space.len() => own.clone(),
        _ => return None,
    };
    let sums = own.iter().zip(space);
    let sums = sums.map(|(a, b)| Some((a.0.checked_add(b.0)?, a.1.checked_add(b.1)?)));
    let mut inputs = node.inputs.clone();
    inputs[0] = *before.inputs.first()?;
    let padding = Padding::Explicit(sums.collect::<Option<_>>()?);
    Some((Conv { padding, ..conv.clone() }, inputs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        ops::{Fused, pad::Pad},
        tensor::Tensor,
    };

    #[test]
    fn zeros_are_padding() {
        for (mode, expected) in [(PadMode::Constant, vec!["Conv"]), (PadMode::Reflect, vec!["Pad", "Conv"])] {
            let before = graph(&[0, 5, 6, 2], |b, x| {
                let pads = b.constant(Tensor::from_slice([4, 2], &[0i32, 0, 1, 2, 0, 1, 0, 0]).unwrap());
                let x = b.push(Pad { mode }, &[x, pads]);
                let w = b.constant(wave(&[3, 3, 2, 4]));
                let padding = Padding::Explicit(vec![(1, 0), (0, 0)]);
                let fused = Fused::default();
                b.push(Conv { strides: vec![2, 1], dilations: vec![], padding, groups: 1, fused }, &[x, w])
            });
            assert_eq!(operators_after(&before, &wave(&[1, 5, 6, 2]), |graph, _| fuse_pads(graph)), expected);
        }
    }
}
