//! States the groups of convolutions, which TensorFlow leaves to the depth of the filter, where the channels are known.

use super::shapes::Shapes;
use crate::{
    graph::{Graph, ValueId, evaluate::Machine},
    ops::Op,
};

/// The same graph, with the number of groups in place of 0.
pub(super) fn state_groups(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    let open = |op: &Op| matches!(op, Op::Conv(conv) if conv.groups == 0);
    if !graph.nodes.iter().any(|node| open(&node.op)) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    // Of the last dimensions, the one that is so many from the end.
    let from_end = |value: Option<&ValueId>, back: usize| {
        let dims = shapes.dims(*value?)?;
        dims.into_iter().rev().nth(back).flatten()
    };
    for node in &mut graph.nodes {
        let Op::Conv(conv) = &mut node.op else { continue };
        let (channels, depth) = (from_end(node.inputs.first(), 0), from_end(node.inputs.get(1), 1));
        if let (0, Some(channels), Some(depth)) = (conv.groups, channels, depth)
            && depth > 0
            && channels.is_multiple_of(depth)
        {
            conv.groups = (channels / depth).max(1);
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, wave},
        kernels::{Threads, best},
        ops::{Fused, Padding, conv::Conv},
    };

    fn groups_after(channels: usize, filter: [usize; 4]) -> Vec<usize> {
        let before = graph(&[0, 5, 6, channels], |b, x| {
            let fused = Fused::default();
            let conv =
                Conv { strides: vec![], dilations: vec![], padding: Padding::SameUpper, groups: 0, fused };
            let w = b.constant(wave(&filter));
            b.push(conv, &[x, w])
        });
        let machine = Machine { kernels: best(), threads: &Threads::single(), memory_limit: usize::MAX };
        let after = state_groups(before, &machine);
        let groups = after.nodes.iter().filter_map(|node| match &node.op {
            Op::Conv(conv) => Some(conv.groups),
            _ => None,
        });
        groups.collect()
    }

    #[test]
    fn groups_follow_from_the_channels() {
        assert_eq!(groups_after(6, [3, 3, 6, 4]), [1]);
        assert_eq!(groups_after(6, [3, 3, 2, 9]), [3]);
        assert_eq!(groups_after(6, [1, 1, 1, 6]), [6]);
    }

    /// Open channels: any number that the filter divides may come.
    #[test]
    fn unknown_channels_leave_them_open() {
        assert_eq!(groups_after(0, [3, 3, 2, 4]), [0]);
    }
}
