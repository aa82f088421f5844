//! Where the time of runs goes, step by step. A run measures only when it is given a [`Profile`].

use super::{Fact, Op};
use crate::tensor::Shape;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Times of steps, added up over all runs that were given it.
#[derive(Debug, Default)]
pub struct Profile(Mutex<HashMap<(usize, usize), StepTime>>);

/// One node's share.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// Name in the source model.
    pub node: String,
    /// The operator, with its attributes.
    pub op: Op,
    /// Shapes of the inputs, then of the outputs, in the last run.
    pub shapes: StepShapes,
    /// Position in the graph.
    pub position: usize,
    /// How often it ran.
    pub runs: u64,
    /// Floating-point operations of products and convolutions in all runs; 0 for other operators.
    pub operations: u64,
    /// Time in all runs; a loop or branch includes its body.
    pub time: Duration,
}

/// Shapes that a step was planned for.
#[derive(Clone, Debug, Default)]
pub struct StepShapes {
    /// Of the inputs.
    pub inputs: Vec<Shape>,
    /// Of the outputs; empty where only the run tells.
    pub outputs: Vec<Shape>,
}

impl StepShapes {
    /// The shapes of these facts.
    pub fn new(inputs: &[Fact], outputs: &[Fact]) -> Self {
        let shapes = |facts: &[Fact]| facts.iter().map(|fact| fact.shape.clone()).collect();
        Self { inputs: shapes(inputs), outputs: shapes(outputs) }
    }
}

impl Profile {
    /// Adds one execution of node `position` of the graph that `graph` tells apart from others.
    pub fn add(
        &self,
        (graph, position): (usize, usize),
        node: &str,
        op: &Op,
        shapes: &StepShapes,
        time: Duration,
    ) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let step = steps.entry((graph, position)).or_insert_with(|| StepTime {
            node: node.to_owned(),
            op: op.clone(),
            shapes: shapes.clone(),
            position,
            runs: 0,
            operations: 0,
            time: Duration::ZERO,
        });
        step.runs += 1;
        step.operations += operations(op, shapes);
        step.time += time;
    }

    /// What was added, longest first.
    pub fn steps(&self) -> Vec<StepTime> {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<StepTime> = steps.values().cloned().collect();
        steps.sort_by_key(|step| (std::cmp::Reverse(step.time), step.position));
        steps
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Floating-point operations (a multiply-add is two) of the operators that are bound by them.
fn operations(op: &Op, shapes: &StepShapes) -> u64 {
    let elements = |shape: &Shape| shape.elements() as u64;
    let (Some(x), Some(y)) = (shapes.inputs.first(), shapes.outputs.first()) else { return 0 };
    if let Op::Attention(attention) = op
        && attention.packed > 0
    {
        // As many keys as rows, and values as wide as keys.
        let keys = x.get(1).copied().unwrap_or(0);
        return 4 * elements(y) * keys as u64;
    }
    let Some(w) = shapes.inputs.get(1) else { return 0 };
    match op {
        Op::Conv(_) => {
            // A filter is [window.., depth, channels out].
            let channels = w.last().copied().unwrap_or(1).max(1) as u64;
            2 * elements(y) * (elements(w) / channels)
        }
        Op::GatedConv(_) => {
            let w = shapes.inputs.get(2).unwrap_or(w);
            2 * elements(y) * elements(w) / w.last().copied().unwrap_or(1).max(1) as u64
        }
        Op::InvertedResidual(block) => {
            // Every weight meets every pixel of what its convolution makes: those of x, then those of the output.
            let pixels = |shape: &Shape| shape.iter().rev().skip(1).product::<usize>() as u64;
            let weights: Vec<u64> = shapes.inputs.iter().skip(1).step_by(2).map(elements).collect();
            let (before, after) = weights.split_at(usize::from(block.expand.is_some()).min(weights.len()));
            let after = after.iter().take(1 + usize::from(block.project.is_some()));
            2 * (pixels(x) * before.iter().sum::<u64>() + pixels(y) * after.sum::<u64>())
        }
        Op::MatMul(product) => {
            let depth = if product.transpose_a { x.iter().rev().nth(1) } else { x.last() };
            2 * elements(y) * depth.copied().unwrap_or(1) as u64
        }
        Op::Attention(attention) => {
            let keys = if attention.rows_first[1] { w.get(1) } else { w.get(2) };
            let (depth, width) = (x.last(), y.last());
            let rows = x.elements().checked_div(depth.copied().unwrap_or(0)).unwrap_or(0);
            let per_key = depth.copied().unwrap_or(0) + width.copied().unwrap_or(0);
            2 * (rows * keys.copied().unwrap_or(0) * per_key) as u64
        }
        // Every weight meets every row of every step once; x is [steps, batch, features] or [batch, steps, features].
        Op::Recurrent(_) => {
            let rows: usize = x.iter().take(2).product();
            let recurrent = shapes.inputs.get(2).map_or(0, elements);
            2 * rows as u64 * (elements(w) + recurrent)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{attention::Attention, matmul::MatMul};

    #[test]
    fn products_are_counted() {
        let op = Op::MatMul(MatMul::default());
        let shapes = StepShapes {
            inputs: vec![Shape::from([2, 3, 4]), Shape::from([4, 5])],
            outputs: vec![Shape::from([2, 3, 5])],
        };
        assert_eq!(operations(&op, &shapes), 2 * 2 * 3 * 4 * 5);
        let op = Op::Attention(Attention { packed: 3, ..Attention::default() });
        let shapes_of_attention = StepShapes {
            inputs: vec![Shape::from([2, 7, 3, 3, 5])],
            outputs: vec![Shape::from([2, 3, 7, 5])],
        };
        // Scores of 2 x 3 heads, 7 queries and 7 keys take 5 multiply-adds each, and so do the sums of values.
        assert_eq!(operations(&op, &shapes_of_attention), 2 * (2 * 3 * 7 * 7 * 5) * 2);
        let op = Op::MatMul(MatMul::default());
        let profile = Profile::default();
        for _ in 0..2 {
            profile.add((0, 7), "dense", &op, &shapes, Duration::from_micros(3));
        }
        let step = profile.steps().remove(0);
        assert_eq!((step.runs, step.operations, step.time), (2, 480, Duration::from_micros(6)));
    }
}
