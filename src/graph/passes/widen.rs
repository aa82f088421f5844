//! Weights that are stored narrow become `float`s as fast as memory allows: constant folding computes them when they
//! are packed, one after the other, and drops them again.

use crate::{
    ops::Op,
    tensor::{AlignedVec, DType, Tensor},
};
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// The `float`s of a narrow constant; `None` for other operators and cases.
pub(super) fn widened(op: &Op, inputs: &[Tensor]) -> Option<Tensor> {
    let [x, rest @ ..] = inputs else { return None };
    let narrow = match op {
        Op::Cast(cast) => cast.to == DType::F32 && matches!(x.dtype(), DType::F16 | DType::BF16),
        Op::Dequantize(_) => x.dtype() == DType::I8,
        _ => false,
    };
    if !narrow {
        return None;
    }
    let mut wide = AlignedVec::<f32>::for_overwrite(x.len()).ok()?;
    match (op, x.dtype(), rest) {
        (Op::Cast(_), DType::F16, []) => x.as_slice::<f16>().ok()?.convert_to_f32_slice(wide.as_mut_slice()),
        (Op::Cast(_), DType::BF16, []) => {
            let values = x.as_slice::<bf16>().ok()?;
            for (to, from) in wide.as_mut_slice().iter_mut().zip(values) {
                *to = f32::from_bits(u32::from(from.to_bits()) << 16);
            }
        }
        (Op::Dequantize(op), DType::I8, [scale]) => {
            let rank = x.shape().len();
            let axis = if op.axis < 0 { op.axis + rank as i64 } else { op.axis };
            let axis = usize::try_from(axis).ok().filter(|&axis| axis < rank)?;
            let channels = x.shape()[axis];
            let inner: usize = x.shape()[axis + 1..].iter().product();
            let scales = scale.as_slice::<f32>().ok()?;
            if *scale.shape().to_vec() != [channels] || channels * inner == 0 {
                return None;
            }
            let run = channels * inner;
            let values = x.as_slice::<i8>().ok()?.chunks_exact(run);
            for (to, from) in wide.as_mut_slice().chunks_exact_mut(run).zip(values) {
                if inner == 1 {
                    for ((to, &from), scale) in to.iter_mut().zip(from).zip(scales) {
                        *to = f32::from(from) * scale;
                    }
                    continue;
                }
                for ((to, from), scale) in
                    to.chunks_exact_mut(inner).zip(from.chunks_exact(inner)).zip(scales)
                {
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = f32::from(from) * scale);
                }
            }
        }
        _ => return None,
    }
    Tensor::from_aligned(x.shape().clone(), wide).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{
            evaluate::{Machine, evaluate},
            passes::edit::testing::wave,
        },
        kernels::{Threads, best},
        ops::{cast::Cast, quant::Dequantize},
    };

    #[test]
    fn the_fast_ways_are_the_operators() {
        let threads = Threads::single();
        let machine = Machine { kernels: best(), threads: &threads, memory_limit: usize::MAX };
        let x: Vec<i8> = (0..2048).map(|i| (i * 7 % 255 - 127) as i8).collect();
        for (dims, axis, channels) in
            [(vec![16, 128], 1, 128), (vec![16, 128], 0, 16), (vec![4, 8, 64], -2, 8)]
        {
            let inputs = [Tensor::from_slice(dims, &x).unwrap(), wave(&[channels])];
            let op = Op::from(Dequantize { axis });
            assert_eq!(widened(&op, &inputs).unwrap(), evaluate(&machine, &op, &inputs).unwrap()[0]);
        }
        let halves: Vec<f16> = (0..2048u16).map(|i| f16::from_bits(i * 15)).collect();
        let brains: Vec<bf16> = (0..2048u16).map(|i| bf16::from_bits(i * 15)).collect();
        let op = Op::from(Cast { to: DType::F32 });
        for x in [Tensor::from_slice([2048], &halves), Tensor::from_slice([2048], &brains)] {
            let inputs = [x.unwrap()];
            assert_eq!(widened(&op, &inputs).unwrap(), evaluate(&machine, &op, &inputs).unwrap()[0]);
        }
        let zero = [Tensor::from_slice([1024], &[1i8; 1024]).unwrap(), wave(&[1]), wave(&[1])];
        assert!(
            widened(&Op::from(Dequantize { axis: 0 }), &zero).is_none(),
            "zero points are left to the operator"
        );
    }
}
