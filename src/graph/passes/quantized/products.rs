//! Products and convolutions of dequantised values with dequantised weights become those of their bytes.

use super::{Coding, Pass};
use crate::{
    graph::{Node, ValueId, evaluate::evaluate, passes::fold::transposed_later},
    kernels::Binary as B,
    ops::{
        Op,
        layout::Transpose,
        quantized::{QuantizedConv, QuantizedMatMul, Requantize},
    },
    tensor::{DType, Tensor},
};

/// Taps times input channels of a kernel, at most: sums must fit into 32 bits.
const MAX_DEPTH: usize = 1 << 16;
/// Taps of a kernel, at most.
const MAX_TAPS: usize = 256;

/// Signed weights with zero point 0.
struct Weights {
    bytes: Tensor,
    /// One, or one per output channel.
    scales: Vec<f32>,
}

/// A product as it was found, and what it becomes.
struct Found {
    op: Op,
    name: String,
    inputs: Vec<ValueId>,
}

impl Pass<'_> {
    /// The product that makes `value`, requantised to `output`.
    pub(super) fn product(
        &mut self,
        value: ValueId,
        coding: Coding,
        bounds: Option<(i32, i32)>,
        output: ValueId,
    ) -> Option<()> {
        let (node, bias) = self.with_bias(value)?;
        let requantize = Requantize { x_zero: 0, output: coding.dtype, y_zero: coding.zero, bounds };
        let found = self.in_integers(&node, bias, coding.scale, requantize)?;
        self.push(found.op, &found.name, found.inputs, output);
        Some(())
    }

    /// A product whose result stays a float.
    pub(super) fn float_product(&mut self, node: &Node) -> Option<()> {
        let &[output] = node.outputs.as_slice() else { return None };
        let requantize = Requantize { x_zero: 0, output: DType::F32, y_zero: 0, bounds: None };
        let found = self.in_integers(node, None, 1.0, requantize)?;
        self.push(found.op, &found.name, found.inputs, output);
        Some(())
    }

    /// The product that makes a value, with the constant that was added to it.
    fn with_bias(&self, value: ValueId) -> Option<(Node, Option<ValueId>)> {
        let node = self.graph.only_for(&self.index, value)?;
        match (&node.op, node.inputs.as_slice()) {
            (Op::Conv(_) | Op::MatMul(_), _) => Some((node.clone(), None)),
            (Op::Binary(function), &[a, b]) if function.0 == B::Add => {
                let product = |x: ValueId| {
                    let node = self.graph.only_for(&self.index, x)?;
                    matches!(node.op, Op::Conv(_) | Op::MatMul(_)).then_some(node)
                };
                let (node, bias) = match (product(a), product(b)) {
                    (Some(node), _) => (node, b),
                    (None, Some(node)) => (node, a),
                    _ => return None,
                };
                self.float_constant(bias)?;
                Some((node.clone(), Some(bias)))
            }
            _ => None,
        }
    }

    fn in_integers(
        &mut self,
        node: &Node,
        added: Option<ValueId>,
        y_scale: f32,
        requantize: Requantize,
    ) -> Option<Found> {
        let (x, x_coding) = self.coded(*node.inputs.first()?)?;
        let &weights = node.inputs.get(1)?;
        let fused = super::super::affine::fused(&node.op)?;
        if fused.residual || fused.activation.is_some() || (fused.bias && added.is_some()) {
            return None;
        }
        let added = if fused.bias { Some(*node.inputs.get(2)?) } else { added };
        let weights = match &node.op {
            Op::Conv(_) => self.weights(weights, false)?,
            Op::MatMul(product) if !product.transpose_a => self.weights(weights, product.transpose_b)?,
            _ => return None,
        };
        let &channels = weights.bytes.shape().last()?;
        match (&node.op, &weights.bytes.shape()[..]) {
            (Op::Conv(conv), [kernel @ .., depth, channels]) => {
                let taps: usize = kernel.iter().product();
                let depthwise = *depth == 1 && conv.groups > 1;
                let fits = taps <= MAX_TAPS
                    && taps * depth <= MAX_DEPTH
                    && matches!(kernel.len(), 1 | 2)
                    && (!depthwise || *channels == conv.groups);
                fits.then_some(())?;
            }
            (_, [depth, _]) => (*depth <= MAX_DEPTH).then_some(())?,
            _ => return None,
        }
        let scale = |channel: usize| weights.scales[if weights.scales.len() == 1 { 0 } else { channel }];
        let bias = match added {
            Some(bias) => Some(self.bias(bias, channels, |channel| x_coding.scale * scale(channel))?),
            None => None,
        };
        let factors: Vec<f32> = weights.scales.iter().map(|w| x_coding.scale * w / y_scale).collect();
        if !factors.iter().all(|factor| factor.is_finite()) {
            return None;
        }
        let (with_bias, requantize) = (bias.is_some(), Requantize { x_zero: x_coding.zero, ..requantize });
        let op = match &node.op {
            Op::Conv(conv) => Op::QuantizedConv(QuantizedConv {
                strides: conv.strides.clone(),
                dilations: conv.dilations.clone(),
                padding: conv.padding.clone(),
                groups: conv.groups,
                bias: with_bias,
                requantize,
            }),
            _ => Op::QuantizedMatMul(QuantizedMatMul { bias: with_bias, requantize }),
        };
        let factors = Tensor::from_slice([factors.len()], &factors).ok()?;
        let mut inputs = vec![x, self.constant(weights.bytes), self.constant(factors)];
        inputs.extend(bias.map(|bias| self.constant(bias)));
        Some(Found { op, name: node.name.clone(), inputs })
    }

    /// Dequantised constants, their output channels last.
    fn weights(&self, value: ValueId, turned: bool) -> Option<Weights> {
        let (mut bytes, scales, zeros, mut axis) = self.quantized_constant(value)?;
        let rank = bytes.shape().len();
        if turned {
            (bytes, axis) = (transposed_later(self.machine, &bytes, &[1, 0])?, 1usize.checked_sub(axis)?);
        }
        if scales.len() != 1 && axis + 1 != rank {
            return None;
        }
        let bytes = match bytes.dtype() {
            DType::I8 if zeros.iter().all(|&zero| zero == 0) => bytes,
            // Weights around 128 are signed ones around 0.
            DType::U8 if zeros.iter().all(|&zero| zero == 128) => {
                let signed = bytes.as_slice::<u8>().ok()?.iter().map(|&w| (w ^ 0x80) as i8);
                Tensor::from_slice(bytes.shape().clone(), &signed.collect::<Vec<_>>()).ok()?
            }
            _ => return None,
        };
        Some(Weights { bytes, scales })
    }

    /// Bytes, scales, zero points and the axis of the scales.
    fn quantized_constant(&self, value: ValueId) -> Option<(Tensor, Vec<f32>, Vec<i64>, usize)> {
        let maker = self.graph.maker(&self.index, value)?;
        match (&maker.op, maker.inputs.as_slice()) {
            (Op::Dequantize(dequantize), [bytes, scales, zero @ ..]) => {
                let bytes = self.graph.constants.get(bytes)?;
                let scales = self.graph.constants.get(scales).filter(|scales| scales.shape().len() <= 1)?;
                let scales = scales.as_slice::<f32>().ok()?.to_vec();
                let zeros = match zero {
                    [] if bytes.dtype() == DType::I8 => vec![0],
                    [] => return None,
                    [zero, ..] => self.graph.constants.get(zero)?.to_i64_vec().ok()?,
                };
                let rank = bytes.shape().len() as i64;
                let axis = if dequantize.axis < 0 { dequantize.axis + rank } else { dequantize.axis };
                let axis = usize::try_from(axis).ok().filter(|&axis| (axis as i64) < rank);
                let axis = if scales.len() == 1 { axis.unwrap_or(0) } else { axis? };
                (scales.len() == 1 || bytes.shape()[axis] == scales.len()).then_some(())?;
                Some((bytes.clone(), scales, zeros, axis))
            }
            (Op::Transpose(Transpose { perm }), &[x]) => {
                let (bytes, scales, zeros, axis) = self.quantized_constant(x)?;
                let axis = perm.iter().position(|&from| from == axis)?;
                Some((transposed_later(self.machine, &bytes, perm)?, scales, zeros, axis))
            }
            _ => None,
        }
    }

    /// A constant, dequantised where it has to be.
    fn float_constant(&self, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.graph.constants.get(&value) {
            return Some(tensor.clone());
        }
        let maker = self.graph.maker(&self.index, value)?;
        if !matches!(maker.op, Op::Dequantize(_)) {
            return None;
        }
        let inputs = maker.inputs.iter().map(|value| self.graph.constants.get(value).cloned());
        evaluate(self.machine, &maker.op, &inputs.collect::<Option<Vec<_>>>()?).ok()?.pop()
    }

    /// A bias in units of the products' scales; the integers that the file has, where it has them.
    fn bias(&self, value: ValueId, channels: usize, scale: impl Fn(usize) -> f32) -> Option<Tensor> {
        let floats = self.float_constant(value)?;
        let floats = floats.as_slice::<f32>().ok().filter(|floats| floats.len() == channels)?;
        let given = self.graph.maker(&self.index, value).and_then(|maker| {
            let (bytes, own) = (self.graph.constants.get(maker.inputs.first()?)?, maker.inputs.get(1)?);
            let own = self.graph.constants.get(own)?.as_slice::<f32>().ok()?;
            let same = |channel: usize| {
                let (own, scale) = (own[if own.len() == 1 { 0 } else { channel }], scale(channel));
                (own - scale).abs() <= scale.abs() * 1e-5
            };
            let zeros = match maker.inputs.get(2) {
                Some(zero) => self.graph.constants.get(zero)?.to_i64_vec().ok()?,
                None => vec![0],
            };
            let fits = bytes.dtype() == DType::I32
                && (own.len() == 1 || own.len() == channels)
                && zeros.iter().all(|&zero| zero == 0)
                && (0..channels).all(same);
            fits.then(|| bytes.reshaped([channels]).ok())?
        });
        if given.is_some() {
            return given;
        }
        let mut whole = Vec::with_capacity(channels);
        for (channel, &bias) in floats.iter().enumerate() {
            let wide = (f64::from(bias) / f64::from(scale(channel))).round_ties_even();
            // Half of the range is left to the products.
            whole.push(if bias == 0.0 {
                0
            } else if wide.abs() < f64::from(1 << 30) {
                wide as i32
            } else {
                return None;
            });
        }
        Tensor::from_slice([channels], &whole).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{find_quantized, testing::*};
    use crate::{
        graph::{
            Builder, ValueId,
            passes::edit::testing::{graph, operators_after, wave},
        },
        kernels::{Binary as B, Unary as U},
        ops::{Fused, Padding, binary::Binary, conv::Conv, layout::Transpose, matmul::MatMul, unary::Unary},
        tensor::DType,
    };

    fn conv(groups: usize, bias: bool) -> Conv {
        let fused = Fused { bias, ..Fused::default() };
        Conv { strides: vec![], dilations: vec![], padding: Padding::SameUpper, groups, fused }
    }

    #[test]
    fn convolutions() {
        for dtype in [DType::U8, DType::I8] {
            for groups in [1, 4] {
                let before = graph(&[0, 5, 6, 4], |b, x| {
                    let x = coded(b, x, dtype, 1.0 / 32.0, 60);
                    // As importers make it of filters with channels first.
                    let w = weights(b, &[4, 4 / groups, 3, 3], 0);
                    let w = b.push(Transpose { perm: vec![2, 3, 1, 0] }, &[w]);
                    let bias = b.constant(wave(&[4]));
                    let y = b.push(conv(groups, true), &[x, w, bias]);
                    let y = b.push(Unary(U::Relu6), &[y]);
                    coded(b, y, dtype, 0.125, if dtype == DType::I8 { -1 } else { 0 })
                });
                let operators = operators_after(&before, &wave(&[2, 5, 6, 4]), find_quantized);
                assert_eq!(operators, ["Quantize", "QuantizedConv", "Dequantize"]);
            }
        }
    }

    #[test]
    fn products_with_and_without_a_quantised_result() {
        let make = |b: &mut Builder, x: ValueId| {
            let x = coded(b, x, DType::I8, 1.0 / 32.0, -3);
            let w = weights(b, &[5, 3], 0);
            let y = b.push(MatMul { transpose_b: true, ..MatMul::default() }, &[x, w]);
            let bias = b.constant(wave(&[5]));
            b.push(Binary(B::Add), &[y, bias])
        };
        let before = graph(&[0, 3], |b, x| {
            let y = make(b, x);
            coded(b, y, DType::I8, 0.5, 3)
        });
        let operators = operators_after(&before, &wave(&[2, 3]), find_quantized);
        assert_eq!(operators, ["Quantize", "QuantizedMatMul", "Dequantize"]);
        let operators = operators_after(&graph(&[0, 3], make), &wave(&[2, 3]), find_quantized);
        assert_eq!(operators, ["Quantize", "QuantizedMatMul", "Binary"]);
    }

    #[test]
    fn a_result_that_is_read_twice_stays_a_float() {
        let before = graph(&[0, 3], |b, x| {
            let x = coded(b, x, DType::U8, 1.0 / 32.0, 128);
            let w = weights(b, &[3, 3], 1);
            let y = b.push(MatMul::default(), &[x, w]);
            let coded = coded(b, y, DType::U8, 0.5, 3);
            b.push(Binary(B::Sub), &[y, coded])
        });
        let operators = operators_after(&before, &wave(&[2, 3]), find_quantized);
        assert_eq!(operators, ["Quantize", "QuantizedMatMul", "Quantize", "Dequantize", "Binary"]);
    }
}
