//! Sums, functions, maxima and concatenations of dequantised values become those of their bytes.

use super::{Clamped, Coding, Pass};
use crate::{
    graph::{Node, ValueId, evaluate::evaluate},
    kernels::Binary as B,
    ops::{
        Op,
        pool::{Pool, PoolKind},
        quantized_elements::{Operand, QuantizedAdd, QuantizedTable},
        shape::Identity,
    },
    tensor::{DType, Tensor},
};

/// Operators between a dequantisation and a quantisation that are followed, one inside of the other.
const MAX_DEPTH: usize = 4;

/// A value that depends on the byte at the same place of another only.
struct Function {
    source: ValueId,
    /// The value, by the byte.
    numbers: Vec<f32>,
}

impl Pass<'_> {
    /// A function of one coded value: the same bytes, or a table.
    pub(super) fn recoded(&mut self, node: &Node, x: ValueId, coding: Coding, output: ValueId) -> Option<()> {
        match self.coded(x) {
            Some((bytes, own)) if own == coding => self.push(Identity, &node.name, vec![bytes], output),
            _ => {
                let function = self.function(x, MAX_DEPTH)?;
                self.table(&node.name, &function, coding, output)?;
            }
        }
        Some(())
    }

    fn table(&mut self, name: &str, function: &Function, coding: Coding, output: ValueId) -> Option<()> {
        let mut table = [0u8; 256];
        for (code, &number) in table.iter_mut().zip(&function.numbers) {
            *code = coding.code(number) as u8;
        }
        let tensor = match coding.dtype {
            DType::I8 => Tensor::from_slice([256], &table.map(|code| code as i8)),
            _ => Tensor::from_slice([256], &table),
        };
        let tensor = self.constant(tensor.ok()?);
        self.push(QuantizedTable {}, name, vec![function.source, tensor], output);
        self.tables.insert(output, (function.source, table));
        Some(())
    }

    fn function(&self, value: ValueId, depth: usize) -> Option<Function> {
        if let Some((source, coding)) = self.coded(value) {
            return Some(Function { source, numbers: coding.numbers() });
        }
        let depth = depth.checked_sub(1)?;
        let node = self.graph.maker(&self.index, value)?;
        let vector = |numbers: &[f32]| Tensor::from_slice([numbers.len()], numbers).ok();
        let apply = |inputs: &[Tensor]| {
            let made = evaluate(self.machine, &node.op, inputs).ok()?.pop()?;
            made.as_slice::<f32>().ok().filter(|numbers| numbers.len() == 256).map(<[f32]>::to_vec)
        };
        match (&node.op, node.inputs.as_slice()) {
            (Op::Unary(_), &[x]) => {
                let x = self.function(x, depth)?;
                Some(Function { numbers: apply(&[vector(&x.numbers)?])?, ..x })
            }
            (Op::Binary(_), &[a, b]) => {
                if let Some(b) = self.graph.constant_float(b) {
                    let a = self.function(a, depth)?;
                    return Some(Function { numbers: apply(&[vector(&a.numbers)?, vector(&[b])?])?, ..a });
                }
                if let Some(a) = self.graph.constant_float(a) {
                    let b = self.function(b, depth)?;
                    return Some(Function { numbers: apply(&[vector(&[a])?, vector(&b.numbers)?])?, ..b });
                }
                let (a, b) = self.of_one_source(self.function(a, depth)?, self.function(b, depth)?)?;
                let numbers = apply(&[vector(&a.numbers)?, vector(&b.numbers)?])?;
                Some(Function { numbers, ..a })
            }
            _ => None,
        }
    }

    /// Two functions of the same bytes; one of them may be a function of bytes that are a function of the other's.
    fn of_one_source(&self, a: Function, b: Function) -> Option<(Function, Function)> {
        if a.source == b.source {
            return Some((a, b));
        }
        let of_other = |inner: &Function, outer: &Function| {
            let (source, table) = self.tables.get(&outer.source).filter(|(from, _)| *from == inner.source)?;
            let numbers = table.iter().map(|&byte| outer.numbers.get(usize::from(byte)).copied());
            Some(Function { source: *source, numbers: numbers.collect::<Option<_>>()? })
        };
        if let Some(b) = of_other(&a, &b) {
            return Some((a, b));
        }
        let a = of_other(&b, &a)?;
        Some((a, b))
    }

    /// Parts that are coded, each taken to the coding of the whole.
    pub(super) fn concatenated(
        &mut self,
        node: &Node,
        x: ValueId,
        coding: Coding,
        output: ValueId,
    ) -> Option<()> {
        let concat = self.graph.only_for(&self.index, x)?.clone();
        let Op::Concat(op) = &concat.op else { return None };
        let functions =
            concat.inputs.iter().map(|&part| self.function(part, MAX_DEPTH)).collect::<Option<Vec<_>>>()?;
        let mut parts = Vec::with_capacity(functions.len());
        for (&part, function) in concat.inputs.iter().zip(&functions) {
            match self.coded(part) {
                Some((bytes, own)) if own == coding => parts.push(bytes),
                _ => {
                    let part = self.graph.new_value();
                    self.table(&node.name, function, coding, part)?;
                    parts.push(part);
                }
            }
        }
        self.push(op.clone(), &concat.name, parts, output);
        Some(())
    }

    /// The sum of two coded values of one shape.
    pub(super) fn sum(
        &mut self,
        value: ValueId,
        coding: Coding,
        bounds: Option<(i32, i32)>,
        output: ValueId,
    ) -> Option<()> {
        let node = self.graph.only_for(&self.index, value)?.clone();
        let (Op::Binary(function), &[a, b]) = (&node.op, node.inputs.as_slice()) else { return None };
        if function.0 != B::Add || !self.shapes.same(a, b) {
            return None;
        }
        let ((a, a_coding), (b, b_coding)) = (self.coded(a)?, self.coded(b)?);
        let operand = |own: Coding| {
            let scale = own.scale / coding.scale;
            scale.is_finite().then_some(Operand { scale, zero: own.zero })
        };
        let op = QuantizedAdd {
            a: operand(a_coding)?,
            b: operand(b_coding)?,
            output: coding.dtype,
            y_zero: coding.zero,
            bounds,
        };
        self.push(op, &node.name, vec![a, b], output);
        Some(())
    }

    /// The greatest bytes of windows stand for the greatest numbers.
    pub(super) fn maximum(&mut self, clamped: &Clamped, coding: Coding, output: ValueId) -> Option<()> {
        if clamped.bounds.is_some() {
            return None;
        }
        let node = self.graph.only_for(&self.index, clamped.value)?.clone();
        let Op::Pool(pool @ Pool { kind: PoolKind::Max, .. }) = &node.op else { return None };
        let &x = node.inputs.first()?;
        if self.shapes.rank(x).is_none_or(|rank| rank > 4) {
            return None;
        }
        let (bytes, _) = self.coded(x).filter(|(_, own)| *own == coding)?;
        self.push(pool.clone(), &node.name, vec![bytes], output);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{find_quantized, testing::*};
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        kernels::{Binary as B, Unary as U},
        ops::{
            Padding,
            binary::Binary,
            join::Concat,
            pool::{Pool, PoolKind},
            shape::Reshape,
            unary::Unary,
        },
        tensor::DType,
    };

    #[test]
    fn sums_with_a_clamp() {
        let before = graph(&[0, 40], |b, x| {
            let a = coded(b, x, DType::U8, 1.0 / 32.0, 128);
            let c = coded(b, x, DType::I8, 0.25, 0);
            let y = b.push(Binary(B::Add), &[a, c]);
            let y = b.push(Unary(U::Relu), &[y]);
            coded(b, y, DType::I8, 0.125, -128)
        });
        let operators = operators_after(&before, &wave(&[2, 40]), find_quantized);
        assert_eq!(operators, ["Quantize", "Quantize", "QuantizedAdd", "Dequantize"]);
    }

    /// SiLU, coded after each of its two operators, is one table of one table.
    #[test]
    fn functions_become_tables() {
        let before = graph(&[0, 40], |b, x| {
            let x = coded(b, x, DType::U8, 1.0 / 32.0, 128);
            let gate = b.push(Unary(U::Sigmoid), &[x]);
            let gate = coded(b, gate, DType::U8, 1.0 / 256.0, 0);
            let y = b.push(Binary(B::Mul), &[x, gate]);
            coded(b, y, DType::I8, 0.125, 0)
        });
        let operators = operators_after(&before, &wave(&[2, 40]), find_quantized);
        assert_eq!(operators, ["Quantize", "QuantizedTable", "Dequantize"]);
    }

    #[test]
    fn maxima_and_concatenations() {
        let before = graph(&[1, 4, 4, 2], |b, x| {
            let x = coded(b, x, DType::I8, 1.0 / 32.0, 10);
            let op = Pool {
                kind: PoolKind::Max,
                window: vec![3, 3],
                strides: vec![],
                dilations: vec![],
                padding: Padding::SameUpper,
                ceil: false,
            };
            let y = b.push(op, &[x]);
            let y = coded(b, y, DType::I8, 1.0 / 32.0, 10);
            let z = b.push(Concat { axis: -1 }, &[y, x]);
            let y = coded(b, z, DType::I8, 1.0 / 32.0, 10);
            let narrow = coded(b, x, DType::I8, 1.0 / 64.0, 10);
            let z = b.push(Concat { axis: 1 }, &[narrow, x]);
            let z = coded(b, z, DType::I8, 1.0 / 32.0, 10);
            let flat = b.integers(&[1, -1]);
            let rows = [y, z].map(|x| b.push(Reshape { zero_copies: false }, &[x, flat]));
            b.push(Concat { axis: 1 }, &rows)
        });
        let operators = operators_after(&before, &wave(&[1, 4, 4, 2]), find_quantized);
        let bytes = ["Quantize", "Pool", "Concat", "QuantizedTable", "QuantizedTable", "Concat"];
        assert_eq!(
            operators,
            [&bytes[..], &["Reshape", "Dequantize", "Reshape", "Dequantize", "Concat"]].concat()
        );
    }
}
