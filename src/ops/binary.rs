//! Functions of two arguments with NumPy broadcasting: arithmetic, comparison, logic; and selection.

use super::{Fact, Inferred, Io, Lower, OpError, Operator, Step, expect_inputs, function::one_function};
use crate::{
    kernels::{self, BroadcastPlan, KernelError, Number, SelectPlan},
    tensor::{Bytes, DType, Shape, Tensor, buffer::Plain},
};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// `f(a, b)` of two tensors of one numeric dtype.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary(pub kernels::Binary);

one_function!(Binary(kernels::Binary));

impl Operator for Binary {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let shape = pair(inputs)?;
        let dtype = inputs[0].dtype;
        if !(dtype.is_float() || dtype.is_integer()) {
            return Err(OpError::unsupported(format!("{:?} of {dtype} is not supported", self.0)));
        }
        Ok(Inferred::one(dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let plan = broadcast(cx.inputs)?;
        let op = self.0;
        fn step<T: Number + Plain>(op: kernels::Binary, plan: BroadcastPlan) -> Step {
            Step::arena(move |io: &mut Io<'_>| {
                let (a, b, out) = (io.input::<T>(0)?, io.input::<T>(1)?, io.next_output::<T>()?);
                let cx = io.context();
                Ok(cx.kernels.binary(op, &plan, a, b, out, cx.threads)?)
            })
        }
        Ok(match cx.inputs[0].dtype {
            DType::F32 => step::<f32>(op, plan),
            DType::F64 => step::<f64>(op, plan),
            DType::F16 => step::<f16>(op, plan),
            DType::BF16 => step::<bf16>(op, plan),
            DType::U8 => step::<u8>(op, plan),
            DType::U16 => step::<u16>(op, plan),
            DType::U32 => step::<u32>(op, plan),
            DType::U64 => step::<u64>(op, plan),
            DType::I8 => step::<i8>(op, plan),
            DType::I16 => step::<i16>(op, plan),
            DType::I32 => step::<i32>(op, plan),
            DType::I64 => step::<i64>(op, plan),
            other => return Err(OpError::unsupported(format!("{op:?} of {other} is not supported"))),
        })
    }
}

/// `a < b` and its kin, of two tensors of one dtype; gives `Bool`. Strings compare bytewise.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare(pub kernels::Compare);

one_function!(Compare(kernels::Compare));

impl Operator for Compare {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        Ok(Inferred::one(DType::Bool, pair(inputs)?))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let plan = broadcast(cx.inputs)?;
        let op = self.0;
        fn step<T: Plain + PartialOrd + Sync + 'static>(op: kernels::Compare, plan: BroadcastPlan) -> Step {
            Step::arena(move |io: &mut Io<'_>| {
                let (a, b, out) = (io.input::<T>(0)?, io.input::<T>(1)?, io.next_output::<u8>()?);
                let cx = io.context();
                Ok(cx.kernels.compare(op, &plan, a, b, out, cx.threads)?)
            })
        }
        Ok(match cx.inputs[0].dtype {
            DType::Bool | DType::U8 => step::<u8>(op, plan),
            DType::F32 => step::<f32>(op, plan),
            DType::F64 => step::<f64>(op, plan),
            DType::F16 => step::<f16>(op, plan),
            DType::BF16 => step::<bf16>(op, plan),
            DType::U16 => step::<u16>(op, plan),
            DType::U32 => step::<u32>(op, plan),
            DType::U64 => step::<u64>(op, plan),
            DType::I8 => step::<i8>(op, plan),
            DType::I16 => step::<i16>(op, plan),
            DType::I32 => step::<i32>(op, plan),
            DType::I64 => step::<i64>(op, plan),
            DType::String => Step::tensors(move |inputs, cx| {
                let [a, b] = inputs else { return Err(OpError::Memory("a comparison")) };
                let mut out = vec![0u8; plan.length()];
                let (left, right): (Vec<&Bytes>, Vec<&Bytes>) =
                    (a.as_strings()?.iter().collect(), b.as_strings()?.iter().collect());
                cx.kernels.compare(op, &plan, &left, &right, &mut out, cx.threads)?;
                let data = crate::tensor::Buffer::copy_of(&out)?;
                Ok(vec![Tensor::from_buffer(DType::Bool, plan.out_shape(), data)?])
            }),
            other => return Err(OpError::unsupported(format!("comparing {other} is not supported"))),
        })
    }
}

/// `a and b` and its kin, of `Bool`.
#[derive(Clone, Debug, PartialEq)]
pub struct Logical(pub kernels::Logical);

one_function!(Logical(kernels::Logical));

impl Operator for Logical {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let shape = pair(inputs)?;
        if inputs[0].dtype != DType::Bool {
            return Err(OpError::invalid(format!(
                "{:?} needs bool, but {} is given",
                self.0, inputs[0].dtype
            )));
        }
        Ok(Inferred::one(DType::Bool, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (plan, op) = (broadcast(cx.inputs)?, self.0);
        Ok(Step::arena(move |io| {
            let (a, b, out) = (io.input::<u8>(0)?, io.input::<u8>(1)?, io.next_output::<u8>()?);
            let cx = io.context();
            Ok(cx.kernels.logical(op, &plan, a, b, out, cx.threads)?)
        }))
    }
}

/// `not a`, of `Bool`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Not;

impl Operator for Not {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        if inputs[0].dtype != DType::Bool {
            return Err(OpError::invalid(format!("Not needs bool, but {} is given", inputs[0].dtype)));
        }
        Ok(Inferred::one(DType::Bool, inputs[0].shape.clone()))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::arena(|io| {
            let (x, out) = (io.input::<u8>(0)?, io.next_output::<u8>()?);
            for (out, x) in out.iter_mut().zip(x) {
                *out = x ^ 1;
            }
            Ok(())
        }))
    }
}

/// `condition ? a : b` element by element with broadcasting; any dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Select;

impl Operator for Select {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        let [condition, a, b] = [&inputs[0], &inputs[1], &inputs[2]];
        if condition.dtype != DType::Bool || a.dtype != b.dtype {
            return Err(OpError::invalid(format!(
                "Select needs a bool and two tensors of one dtype, but {}, {} and {} are given",
                condition.dtype, a.dtype, b.dtype
            )));
        }
        Ok(Inferred::one(a.dtype, select_plan(inputs)?.out_shape()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let plan = select_plan(cx.inputs)?;
        fn step<T: Plain + Send + Sync + 'static>(plan: SelectPlan) -> Step {
            Step::arena(move |io: &mut Io<'_>| {
                let (a, b) = (io.input::<T>(1)?, io.input::<T>(2)?);
                let (condition, out) = (io.input::<u8>(0)?, io.next_output::<T>()?);
                let cx = io.context();
                Ok(cx.kernels.select(&plan, condition, a, b, out, cx.threads)?)
            })
        }
        // Only the size of the elements matters.
        Ok(match cx.inputs[1].dtype.size() {
            Some(1) => step::<u8>(plan),
            Some(2) => step::<u16>(plan),
            Some(4) => step::<u32>(plan),
            Some(8) if cx.inputs[1].dtype == DType::Complex64 => step::<[f32; 2]>(plan),
            Some(8) => step::<u64>(plan),
            Some(_) => step::<[f64; 2]>(plan),
            None => Step::tensors(move |inputs, cx| {
                let [condition, a, b] = inputs else { return Err(OpError::Memory("a selection")) };
                let mut out = vec![Bytes::new(); plan.length()];
                let (a, b) = (a.as_strings()?, b.as_strings()?);
                cx.kernels.select(&plan, condition.as_bools()?, a, b, &mut out, cx.threads)?;
                Ok(vec![Tensor::from_strings(plan.out_shape(), out)?])
            }),
        })
    }
}

/// Two inputs of one dtype and their broadcast shape.
fn pair(inputs: &[Fact]) -> Result<Shape, OpError> {
    expect_inputs(inputs, 2..=2)?;
    if inputs[0].dtype != inputs[1].dtype {
        return Err(OpError::invalid(format!(
            "two tensors of one dtype are needed, but {} and {} are given",
            inputs[0].dtype, inputs[1].dtype
        )));
    }
    Ok(Shape::from(broadcast(inputs)?.out_shape()))
}

fn broadcast(inputs: &[Fact]) -> Result<BroadcastPlan, OpError> {
    let [a, b] = [&inputs[0].shape, &inputs[1].shape];
    BroadcastPlan::new(a, b).map_err(|error| incompatible(error, &format!("{a} vs. {b}")))
}

fn select_plan(inputs: &[Fact]) -> Result<SelectPlan, OpError> {
    let [condition, a, b] = [&inputs[0].shape, &inputs[1].shape, &inputs[2].shape];
    SelectPlan::new(condition, a, b)
        .map_err(|error| incompatible(error, &format!("{condition} vs. {a} vs. {b}")))
}

/// In TensorFlow's words.
fn incompatible(error: KernelError, shapes: &str) -> OpError {
    match error {
        KernelError::Broadcast { .. } => OpError::invalid(format!("Incompatible shapes: {shapes}")),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    #[test]
    fn rows_and_columns_broadcast() {
        let column = Tensor::from_slice([2, 1], &[1.0f32, 2.0]).unwrap();
        let row = Tensor::from_slice([3], &[10.0f32, 20.0, 30.0]).unwrap();
        let y = run_op(Binary(kernels::Binary::Sub), &[column.clone(), row.clone()]).unwrap();
        assert_eq!(y[0].shape().to_vec(), [2, 3]);
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [-9.0, -19.0, -29.0, -8.0, -18.0, -28.0]);
        let y = run_op(Compare(kernels::Compare::Less), &[column, row]).unwrap();
        assert_eq!(y[0].as_bools().unwrap(), [true; 6]);
        let three = Tensor::from_slice([3], &[1i64; 3]).unwrap();
        let two = Tensor::from_slice([2], &[1i64; 2]).unwrap();
        let error = run_op(Binary(kernels::Binary::Add), &[three.clone(), two]).unwrap_err();
        assert!(error.to_string().starts_with("Incompatible shapes: [3] vs. [2]"), "{error}");
        let zero = Tensor::scalar(0i64);
        assert!(run_op(Binary(kernels::Binary::Div), &[three, zero]).is_err());
    }

    #[test]
    fn strings_compare_and_select() {
        let strings = |values: &[&'static str]| {
            let values = values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();
            Tensor::from_strings([2], values).unwrap()
        };
        let (a, b) = (strings(&["x", "y"]), strings(&["x", "z"]));
        let same = run_op(Compare(kernels::Compare::Equal), &[a.clone(), b.clone()]).unwrap();
        assert_eq!(same[0].as_bools().unwrap(), [true, false]);
        let chosen = run_op(Select, &[same[0].clone(), a, strings(&["p", "q"])]).unwrap();
        assert_eq!(chosen[0].as_strings().unwrap(), ["x", "q"]);
        let not = run_op(Not, &[same[0].clone()]).unwrap();
        let and = run_op(Logical(kernels::Logical::And), &[same[0].clone(), not[0].clone()]).unwrap();
        assert_eq!(and[0].as_bools().unwrap(), [false, false]);
    }
}
