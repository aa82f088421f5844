//! Turns images back before they are scaled up, while they are small: heads of segmentation end with such a pair.

use super::{inverse, rules::all_along};
use crate::{
    graph::{
        Graph,
        evaluate::Machine,
        passes::{edit::Index, shapes::Shapes},
    },
    ops::{Op, layout::Transpose, resize::ResizeMode},
    tensor::Shape,
};

/// The same graph with transposes of interpolated images in front of the interpolation where that at least doubles them.
pub(super) fn turn_before_growth(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    let index = Index::of(&graph);
    let pairs: Vec<_> =
        (0..graph.nodes.len()).filter_map(|at| Some((pair(&graph, &index, at)?, at))).collect();
    if pairs.is_empty() {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    for (before, after) in pairs {
        turn(&mut graph, &shapes, before, after);
    }
    graph
}

/// The position of the interpolation that only the transpose at `at` reads.
fn pair(graph: &Graph, index: &Index, at: usize) -> Option<usize> {
    let node = graph.nodes.get(at).filter(|node| matches!(node.op, Op::Transpose(_)))?;
    let scaled = graph.only_for(index, *node.inputs.first()?)?;
    let Op::Resize(resize) = &scaled.op else { return None };
    // Nearest neighbours are copied, pixels with all of their channels at once.
    let interpolates = !matches!(resize.mode, ResizeMode::Nearest(_)) && !resize.axes.is_empty();
    index.producer(node.inputs[0]).filter(|_| interpolates)
}

fn turn(graph: &mut Graph, shapes: &Shapes, before: usize, after: usize) -> Option<()> {
    let Op::Transpose(Transpose { perm }) = &graph.nodes[after].op else { return None };
    let Op::Resize(resize) = &graph.nodes[before].op else { return None };
    let (&small, &large) = (graph.nodes[before].inputs.first()?, graph.nodes[after].inputs.first()?);
    let (small, large) = (shapes.tried(small)?, shapes.tried(large)?);
    let grows = |(small, large): (&Shape, &Shape)| {
        small.len() == perm.len() && large.elements() / 2 >= small.elements()
    };
    if !small.iter().zip(&large).all(grows) {
        return None;
    }
    let (transpose, mut resize) = (Transpose { perm: perm.clone() }, resize.clone());
    resize.axes = all_along(&inverse(perm), &resize.axes)?;
    let turned = graph.new_value();
    let x = std::mem::replace(&mut graph.nodes[before].inputs[0], turned);
    let inputs = std::mem::replace(&mut graph.nodes[before].inputs, vec![x]);
    let made = std::mem::replace(&mut graph.nodes[before].outputs, vec![turned]);
    debug_assert_eq!(made, graph.nodes[after].inputs);
    let name = std::mem::replace(&mut graph.nodes[before].name, "transpose".to_owned());
    graph.nodes[before].op = transpose.into();
    graph.nodes[after].op = resize.into();
    graph.nodes[after].name = name;
    graph.nodes[after].inputs = inputs;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        ops::resize::{Coordinates, Resize, Rounding},
    };

    #[test]
    fn images_are_turned_while_they_are_small() {
        let operators = |sizes: [i64; 2], mode| {
            let made = graph(&[0, 4, 5, 3], |b, x| {
                let sizes = b.integers(&sizes);
                let y = b.push(Resize::new(mode, Coordinates::HalfPixel, vec![1, -2]), &[x, sizes]);
                b.push(Transpose { perm: vec![0, 3, 1, 2] }, &[y])
            });
            operators_after(&made, &wave(&[2, 4, 5, 3]), turn_before_growth)
        };
        let nearest = ResizeMode::Nearest(Rounding::Floor);
        assert_eq!(operators([8, 15], ResizeMode::Linear), ["Transpose", "Resize"]);
        assert_eq!(operators([5, 5], ResizeMode::Linear), ["Resize", "Transpose"]);
        assert_eq!(operators([8, 15], nearest), ["Resize", "Transpose"]);
    }
}
