//! Finds activations that exporters spell out: SiLU, GELU in both forms, hard sigmoid and swish, Mish.

use super::edit::Index;
use crate::{
    graph::{Graph, Node, ValueId},
    kernels::{Binary as B, Unary as U},
    ops::{Op, unary::Unary},
};

/// The same graph with one operator for each activation.
pub(super) fn find_activations(mut graph: Graph) -> Graph {
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        let Some(output) = graph.nodes[position].outputs.first().copied() else { continue };
        let view = View { graph: &graph, index: &index };
        let found = [View::hard_sigmoid, View::gated, View::gelu, View::gelu_tanh];
        let found = found.iter().find_map(|pattern| pattern(&view, output));
        if let Some((function, x)) = found {
            graph.replace(&mut index, position, Unary(function), vec![x]);
        }
    }
    graph
}

/// Takes expressions apart, from the result backwards.
struct View<'a> {
    graph: &'a Graph,
    index: &'a Index,
}

impl View<'_> {
    fn node(&self, value: ValueId) -> Option<&Node> {
        self.graph.maker(self.index, value)
    }

    fn unary(&self, value: ValueId) -> Option<(U, ValueId)> {
        match self.node(value)? {
            Node { op: Op::Unary(Unary(function)), inputs, .. } => Some((*function, *inputs.first()?)),
            _ => None,
        }
    }

    fn binary(&self, value: ValueId, function: B) -> Option<[ValueId; 2]> {
        match self.node(value)? {
            Node { op: Op::Binary(op), inputs, .. } if op.0 == function => inputs.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// The value and the constant of a product or sum with a constant, on either side.
    fn with_constant(&self, value: ValueId, function: B) -> Option<(ValueId, f32)> {
        let [a, b] = self.binary(value, function)?;
        let constant = |value| self.graph.constant_float(value);
        constant(b).map(|constant| (a, constant)).or_else(|| constant(a).map(|constant| (b, constant)))
    }

    /// `x factor`, however it is written.
    fn scaled(&self, value: ValueId) -> Option<(ValueId, f32)> {
        self.with_constant(value, B::Mul).or_else(|| {
            let [x, divisor] = self.binary(value, B::Div)?;
            Some((x, 1.0 / self.graph.constant_float(divisor)?))
        })
    }

    /// `clip(x + 3, 0, 6) / 6`
    fn hard_sigmoid(&self, value: ValueId) -> Option<(U, ValueId)> {
        let (clipped, factor) = self.scaled(value)?;
        let (function, sum) = self.unary(clipped)?;
        let six = function == U::Relu6 || function == U::Clip { min: 0.0, max: 6.0 };
        let (x, summand) = self.with_constant(sum, B::Add)?;
        let found = six && close(factor, 1.0 / 6.0) && close(summand, 3.0);
        found.then_some((U::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, x))
    }

    /// `x f(x)`: SiLU, hard swish, Mish; also `x clip(x + 3, 0, 6) / 6` with the division last.
    fn gated(&self, value: ValueId) -> Option<(U, ValueId)> {
        if let Some((product, factor)) = self.scaled(value)
            && close(factor, 1.0 / 6.0)
            && let Some([a, b]) = self.binary(product, B::Mul)
        {
            let is_gate = |gate: ValueId, x: ValueId| {
                let Some((function, sum)) = self.unary(gate) else { return false };
                let six = function == U::Relu6 || function == U::Clip { min: 0.0, max: 6.0 };
                six && self.with_constant(sum, B::Add).is_some_and(|(of, three)| of == x && close(three, 3.0))
            };
            let x = if is_gate(b, a) { Some(a) } else { is_gate(a, b).then_some(b) };
            return x.map(|x| (U::HardSwish, x));
        }
        let [a, b] = self.binary(value, B::Mul)?;
        let gate = |gate: ValueId, x: ValueId| {
            let (function, of) = self.unary(gate)?;
            match function {
                // TensorFlow scales what stands under the gate, by 1 mostly.
                U::Sigmoid if of == x || self.with_constant(of, B::Mul) == Some((x, 1.0)) => Some(U::Silu),
                U::HardSigmoid { alpha, beta } if of == x && close(alpha, 1.0 / 6.0) && close(beta, 0.5) => {
                    Some(U::HardSwish)
                }
                U::Tanh => match self.unary(of)? {
                    (U::Softplus, inner) if inner == x => Some(U::Mish),
                    _ => None,
                },
                _ => None,
            }
        };
        gate(b, a).map(|function| (function, a)).or_else(|| gate(a, b).map(|function| (function, b)))
    }

    /// The factors of a product, nested products included, and their constant part.
    fn factors(&self, value: ValueId, depth: usize, into: &mut Vec<ValueId>) -> f32 {
        let alone = self.graph.constant_float(value);
        if let Some(constant) = alone {
            return constant;
        }
        if depth > 0
            && let Some([a, b]) = self.binary(value, B::Mul)
        {
            return self.factors(a, depth - 1, into) * self.factors(b, depth - 1, into);
        }
        if depth > 0
            && let Some((x, factor)) = self.scaled(value)
        {
            return factor * self.factors(x, depth - 1, into);
        }
        into.push(value);
        1.0
    }

    /// `x (1 + f(..)) / 2`: what stands under `f`, 1, and x. Or `x (1 - f(..)) / 2`, with -1.
    fn half_gate(&self, value: ValueId, function: U) -> Option<(ValueId, f32, ValueId)> {
        self.binary(value, B::Mul).or_else(|| self.binary(value, B::Div))?;
        let mut factors = Vec::new();
        let constant = self.factors(value, 3, &mut factors);
        let &[a, b] = factors.as_slice() else { return None };
        let inner = |gate: ValueId| {
            let (curve, one, sign) = match self.with_constant(gate, B::Add) {
                Some((curve, one)) => (curve, one, 1.0),
                None => {
                    let [one, curve] = self.binary(gate, B::Sub)?;
                    (curve, self.graph.constant_float(one)?, -1.0)
                }
            };
            let (found, inner) = self.unary(curve)?;
            (found == function && close(one, 1.0) && close(constant, 0.5)).then_some((inner, sign))
        };
        let with = |gate: ValueId, x: ValueId| inner(gate).map(|(inner, sign)| (inner, sign, x));
        with(b, a).or_else(|| with(a, b))
    }

    /// The value, or what it is the negative of, and -1.
    fn signed(&self, value: ValueId) -> (ValueId, f32) {
        match self.unary(value) {
            Some((U::Neg, x)) => (x, -1.0),
            _ => (value, 1.0),
        }
    }

    /// With the error function, or its complement of the negative.
    fn gelu(&self, value: ValueId) -> Option<(U, ValueId)> {
        let (inner, sign, x) = self.half_gate(value, U::Erf)?;
        let (inner, outer_sign) = self.signed(inner);
        let (of, factor) = self.scaled(inner)?;
        let (of, inner_sign) = self.signed(of);
        let factor = factor * sign * outer_sign * inner_sign;
        (of == x && close(factor, std::f32::consts::FRAC_1_SQRT_2)).then_some((U::Gelu, x))
    }

    /// `tanh(sqrt(2 / pi) (x + 0.044715 x^3))`
    fn gelu_tanh(&self, value: ValueId) -> Option<(U, ValueId)> {
        let (inner, sign, x) = self.half_gate(value, U::Tanh)?;
        let (sum, factor) = self.scaled(inner)?;
        let [a, b] = self.binary(sum, B::Add)?;
        let cubic = if a == x { b } else { a };
        let (cube, small) = self.scaled(cubic)?;
        let is_x = |value: ValueId| value == x;
        let cubed = match self.binary(cube, B::Pow) {
            Some([base, power]) => is_x(base) && self.graph.constant_float(power) == Some(3.0),
            None => {
                let mut factors = Vec::new();
                let constant = self.factors(cube, 2, &mut factors);
                constant == 1.0 && factors.len() == 3 && factors.iter().all(|&factor| factor == x)
            }
        };
        let found = sign == 1.0
            && (a == x || b == x)
            && cubed
            && close(small, 0.044_715)
            && close(factor, 0.797_884_6);
        found.then_some((U::GeluTanh, x))
    }
}

/// Within the rounding of constants in files.
fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-4 * b.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{
            Builder,
            passes::edit::testing::{graph, operators_after, wave},
        },
        ops::binary::Binary,
    };

    fn check(make: impl Fn(&mut Builder, ValueId) -> ValueId) {
        let before = graph(&[2, 60], make);
        let after = operators_after(&before, &wave(&[2, 60]), |graph, _| find_activations(graph));
        assert_eq!(after, ["Unary"]);
    }

    fn with(b: &mut Builder, function: B, x: ValueId, constant: f32) -> ValueId {
        let constant = b.scalar(constant);
        b.push(Binary(function), &[x, constant])
    }

    #[test]
    fn gates_of_the_value_itself() {
        check(|b, x| {
            let gate = b.push(Unary(U::Sigmoid), &[x]);
            b.push(Binary(B::Mul), &[gate, x])
        });
        check(|b, x| {
            let scaled = with(b, B::Mul, x, 1.0);
            let gate = b.push(Unary(U::Sigmoid), &[scaled]);
            b.push(Binary(B::Mul), &[x, gate])
        });
        check(|b, x| {
            let soft = b.push(Unary(U::Softplus), &[x]);
            let gate = b.push(Unary(U::Tanh), &[soft]);
            b.push(Binary(B::Mul), &[x, gate])
        });
    }

    #[test]
    fn hard_swish_in_three_spellings() {
        let clipped = |b: &mut Builder, x| {
            let sum = with(b, B::Add, x, 3.0);
            b.push(Unary(U::Relu6), &[sum])
        };
        check(|b, x| {
            let clipped = clipped(b, x);
            with(b, B::Div, clipped, 6.0)
        });
        check(|b, x| {
            let clipped = clipped(b, x);
            let gate = with(b, B::Mul, clipped, 1.0 / 6.0);
            b.push(Binary(B::Mul), &[x, gate])
        });
        check(|b, x| {
            let clipped = clipped(b, x);
            let product = b.push(Binary(B::Mul), &[x, clipped]);
            with(b, B::Div, product, 6.0)
        });
    }

    #[test]
    fn gelu_by_the_error_function() {
        for order in 0..2 {
            check(move |b, x| {
                let scaled = with(b, B::Div, x, std::f32::consts::SQRT_2);
                let curve = b.push(Unary(U::Erf), &[scaled]);
                let gate = with(b, B::Add, curve, 1.0);
                match order {
                    0 => {
                        let product = b.push(Binary(B::Mul), &[x, gate]);
                        with(b, B::Mul, product, 0.5)
                    }
                    _ => {
                        let half = with(b, B::Mul, x, 0.5);
                        b.push(Binary(B::Mul), &[half, gate])
                    }
                }
            });
        }
    }

    #[test]
    fn gelu_by_tanh() {
        check(|b, x| {
            let cube = with(b, B::Pow, x, 3.0);
            let small = with(b, B::Mul, cube, 0.044715);
            let sum = b.push(Binary(B::Add), &[x, small]);
            let inner = with(b, B::Mul, sum, 0.797_884_6);
            let curve = b.push(Unary(U::Tanh), &[inner]);
            let gate = with(b, B::Add, curve, 1.0);
            let product = b.push(Binary(B::Mul), &[x, gate]);
            with(b, B::Mul, product, 0.5)
        });
    }

    #[test]
    fn what_only_looks_alike_stays() {
        let before = graph(&[4], |b, x| {
            let gate = b.push(Unary(U::Sigmoid), &[x]);
            let other = with(b, B::Add, x, 1.0);
            b.push(Binary(B::Mul), &[other, gate])
        });
        let after = operators_after(&before, &wave(&[4]), |graph, _| find_activations(graph));
        assert_eq!(after, ["Unary", "Binary", "Binary"]);
    }
}
