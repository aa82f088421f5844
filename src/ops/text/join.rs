//! Joining, splitting, cutting and comparing strings.

use super::{Unit, characters, common_shape, expect_strings};
use crate::{
    ops::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, mapping::axis_of},
    tensor::{Bytes, DType, Shape, Tensor},
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The inputs joined element by element; scalars serve every element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StringJoin {
    /// Put between the parts.
    pub separator: String,
}

impl Operator for StringJoin {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=usize::MAX)?;
        expect_strings(inputs)?;
        Ok(Inferred::one(DType::String, common_shape(inputs)?))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (separator, shape) = (self.separator.clone().into_bytes(), cx.outputs[0].shape.clone());
        Ok(Step::tensors(move |inputs, _| {
            let parts = inputs.iter().map(Tensor::as_strings).collect::<Result<Vec<_>, _>>()?;
            let of =
                |part: &&[Bytes], element: usize| part[if part.len() == 1 { 0 } else { element }].clone();
            let joined = (0..shape.elements()).map(|element| {
                let texts: Vec<Bytes> = parts.iter().map(|part| of(part, element)).collect();
                Bytes::from(texts.join(&separator[..]))
            });
            Ok(vec![Tensor::from_strings(shape.clone(), joined.collect())?])
        }))
    }
}

/// The strings along some axes joined to one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReduceJoin {
    /// The joined axes, of which the last runs fastest; negative from the back.
    pub axes: Vec<i64>,
    /// The joined axes stay, with size 1.
    pub keep_dims: bool,
    /// Put between the parts.
    pub separator: String,
}

impl ReduceJoin {
    /// The joined axes in order, and the ones that stay.
    fn axes(&self, shape: &Shape) -> Result<(Vec<usize>, Vec<usize>), OpError> {
        let joined = self.axes.iter().map(|&axis| axis_of(shape, axis)).collect::<Result<Vec<usize>, _>>()?;
        let kept = (0..shape.len()).filter(|axis| !joined.contains(axis)).collect();
        Ok((joined, kept))
    }
}

impl Operator for ReduceJoin {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        expect_strings(inputs)?;
        let from = &inputs[0].shape;
        let (joined, kept) = self.axes(from)?;
        if joined.len() + kept.len() != from.len() {
            return Err(OpError::invalid(format!("Duplicate reduction dimension in {:?}", self.axes)));
        }
        let shape: Shape = match self.keep_dims {
            true => from
                .iter()
                .enumerate()
                .map(|(axis, &dim)| if joined.contains(&axis) { 1 } else { dim })
                .collect(),
            false => kept.iter().map(|&axis| from[axis]).collect(),
        };
        Ok(Inferred::one(DType::String, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (from, to) = (cx.inputs[0].shape.clone(), cx.outputs[0].shape.clone());
        if from.elements() == 0 {
            // Its other dimensions may claim any length.
            return Ok(Step::tensors(move |_, _| Ok(vec![Tensor::zeros(DType::String, to.clone())?])));
        }
        let (joined, kept) = self.axes(&from)?;
        let separator = self.separator.clone().into_bytes();
        let offsets = move |axes: &[usize]| {
            let strides = crate::ops::mapping::row_major(&from);
            let mut offsets = vec![0usize];
            for &axis in axes {
                let steps = |offset: usize| (0..from[axis]).map(move |step| (offset, step));
                offsets = offsets
                    .into_iter()
                    .flat_map(steps)
                    .map(|(offset, step)| offset + step * strides[axis] as usize)
                    .collect();
            }
            offsets
        };
        let (inner, outer) = (offsets(&joined), offsets(&kept));
        Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("strings")) };
            let x = x.as_strings()?;
            let join = |&start: &usize| {
                let parts: Vec<Bytes> = inner.iter().map(|&step| x[start + step].clone()).collect();
                Bytes::from(parts.join(&separator[..]))
            };
            Ok(vec![Tensor::from_strings(to.clone(), outer.iter().map(join).collect())?])
        }))
    }
}

/// The strings of a vector cut at a separator (input 1, a scalar; empty means runs of white space).
/// Outputs, as of TensorFlow `StringSplitV2`: indices `[parts, 2]`, parts, and shape of the sparse
/// tensor `[n, most parts]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StringSplit {
    /// The most cuts per string; all when negative.
    pub most: i64,
    /// Every character of the separator is one (TensorFlow `StringSplit`), and parts without
    /// characters are left out when `skip_empty`.
    #[serde(default)]
    pub any_of: Option<AnyOf>,
}

/// Cutting at any of several characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnyOf {
    /// Leaves out parts without characters.
    pub skip_empty: bool,
}

impl Operator for StringSplit {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        expect_strings(inputs)?;
        if inputs[0].rank() != 1 || inputs[1].elements() != 1 {
            return Err(OpError::invalid("input must be a vector, and the separator one string"));
        }
        Ok(Inferred::AtRun)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let most = usize::try_from(self.most).unwrap_or(usize::MAX);
        let any_of = self.any_of;
        Ok(Step::tensors(move |inputs, _| {
            let [x, separator] = inputs else { return Err(OpError::Memory("strings")) };
            let separator = separator.as_strings()?.first().cloned().unwrap_or_default();
            let (mut indices, mut parts, mut longest) = (Vec::new(), Vec::new(), 0);
            for (row, text) in x.as_strings()?.iter().enumerate() {
                let ranges = match any_of {
                    Some(any_of) => split_at_any(text, &separator, any_of.skip_empty),
                    None => split(text, &separator, most),
                };
                longest = longest.max(ranges.len());
                for (column, range) in ranges.into_iter().enumerate() {
                    indices.extend([row as i64, column as i64]);
                    parts.push(text.slice(range));
                }
            }
            Ok(vec![
                Tensor::from_slice([parts.len(), 2], &indices)?,
                Tensor::from_strings([parts.len()], parts)?,
                Tensor::from_slice([2], &[x.len() as i64, longest as i64])?,
            ])
        }))
    }
}

/// The parts of a text between any of the separator's bytes; single bytes without one.
fn split_at_any(text: &[u8], separator: &[u8], skip_empty: bool) -> Vec<Range<usize>> {
    if separator.is_empty() {
        return (0..text.len()).map(|at| at..at + 1).collect();
    }
    let mut parts = Vec::new();
    let mut start = 0;
    let ends = text.iter().enumerate().filter(|(_, byte)| separator.contains(byte)).map(|(at, _)| at);
    for end in ends.chain([text.len()]) {
        if start < end || !skip_empty {
            parts.push(start..end);
        }
        start = end + 1;
    }
    parts
}

/// The parts of a text, as Python's `str.split` makes them.
fn split(text: &[u8], separator: &[u8], most: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = 0;
    if separator.is_empty() {
        let space = |byte: &u8| byte.is_ascii_whitespace();
        loop {
            start += text[start..].iter().take_while(|byte| space(byte)).count();
            if start == text.len() {
                return parts;
            }
            let len = match parts.len() < most {
                true => text[start..].iter().take_while(|byte| !space(byte)).count(),
                false => text[start..].trim_ascii_end().len(),
            };
            parts.push(start..start + len);
            start += len;
        }
    }
    while parts.len() < most
        && let Some(found) = memchr::memmem::find(&text[start..], separator)
    {
        parts.push(start..start + found);
        start += found + separator.len();
    }
    parts.push(start..text.len());
    parts
}

/// Parts of strings: inputs are the strings, the first position (negative from the back) and the
/// length, both integers and scalars or of the strings' shape. A longer length ends with the string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Substr {
    /// What positions and lengths count.
    pub unit: Unit,
}

impl Operator for Substr {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        expect_strings(&inputs[..1])?;
        let shape = common_shape(inputs)?;
        Ok(Inferred::one(DType::String, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (unit, shape) = (self.unit, cx.outputs[0].shape.clone());
        Ok(Step::tensors(move |inputs, _| {
            let [x, positions, lens] = inputs else { return Err(OpError::Memory("strings")) };
            let (x, positions, lens) = (x.as_strings()?, positions.to_i64_vec()?, lens.to_i64_vec()?);
            let at = |len: usize, element: usize| if len == 1 { 0 } else { element };
            let cut = |element: usize| {
                let text = &x[at(x.len(), element)];
                let position = positions[at(positions.len(), element)];
                part(text, position, lens[at(lens.len(), element)], unit)
                    .map(|range| text.slice(range))
                    .ok_or_else(|| {
                        let text = String::from_utf8_lossy(text);
                        OpError::invalid(format!(
                            "pos {position} out of range for string b'{text}' at index {element}"
                        ))
                    })
            };
            let made = (0..shape.elements()).map(cut).collect::<Result<Vec<Bytes>, OpError>>()?;
            Ok(vec![Tensor::from_strings(shape.clone(), made)?])
        }))
    }
}

fn part(text: &[u8], position: i64, len: i64, unit: Unit) -> Option<Range<usize>> {
    let count = match unit {
        Unit::Byte => text.len(),
        Unit::Character => characters(text).count(),
    };
    let start = if position < 0 { position.checked_add(count as i64)? } else { position };
    let start = usize::try_from(start).ok().filter(|&start| start <= count)?;
    let end = start.saturating_add(usize::try_from(len).unwrap_or(0)).min(count);
    match unit {
        Unit::Byte => Some(start..end),
        Unit::Character => {
            let byte = |character: usize| characters(text).nth(character).unwrap_or(text.len());
            Some(byte(start)..byte(end))
        }
    }
}

/// Whether strings are equal, element by element, as `bool`; one may be a scalar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StringEqual {
    /// Asks whether they differ.
    pub negate: bool,
}

impl Operator for StringEqual {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        expect_strings(inputs)?;
        Ok(Inferred::one(DType::Bool, common_shape(inputs)?))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (negate, shape) = (self.negate, cx.outputs[0].shape.clone());
        Ok(Step::tensors(move |inputs, _| {
            let [a, b] = inputs else { return Err(OpError::Memory("strings")) };
            let (a, b) = (a.as_strings()?, b.as_strings()?);
            let at = |len: usize, element: usize| if len == 1 { 0 } else { element };
            let equal = (0..shape.elements()).map(|e| (a[at(a.len(), e)] == b[at(b.len(), e)]) != negate);
            Ok(vec![Tensor::from_slice(shape.clone(), &equal.collect::<Vec<bool>>())?])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::texts, *};
    use crate::graph::testing::{run_op, run_op_outputs};

    fn scalar(text: &'static str) -> Tensor {
        Tensor::from_strings([0usize; 0], vec![text.into()]).unwrap()
    }

    #[test]
    fn joins() {
        let op = StringJoin { separator: "-".into() };
        let y = run_op(op.clone(), &[texts(&["a", "b"]), scalar("x"), texts(&["c", ""])]).unwrap();
        assert_eq!(y[0].as_strings().unwrap(), ["a-x-c", "b-x-"]);
        assert!(run_op(op, &[texts(&["a", "b"]), texts(&["c"]), texts(&["c", "d", "e"])]).is_err());
        let x = texts(&["a", "b", "c", "d"]).reshaped([2, 2]).unwrap();
        let join = |axes: &[i64], keep_dims| {
            let op = ReduceJoin { axes: axes.to_vec(), keep_dims, separator: "+".into() };
            run_op(op, std::slice::from_ref(&x)).unwrap().remove(0)
        };
        assert_eq!(join(&[-1], false).as_strings().unwrap(), ["a+b", "c+d"]);
        assert_eq!(join(&[0], true).shape().to_vec(), [1, 2]);
        assert_eq!(join(&[0, 1], false).as_strings().unwrap(), ["a+b+c+d"]);
        assert_eq!(join(&[1, 0], false).as_strings().unwrap(), ["a+c+b+d"]);
        let none = Tensor::from_strings([0, 1 << 50], vec![]).unwrap();
        let op = ReduceJoin { axes: vec![1], keep_dims: false, separator: String::new() };
        assert_eq!(run_op(op, &[none]).unwrap()[0].shape().to_vec(), [0]);
    }

    #[test]
    fn splits_as_python() {
        let run = |text: &'static str, separator: &'static str, most| {
            let y =
                run_op_outputs(StringSplit { most, any_of: None }, &[texts(&[text]), scalar(separator)], 3)
                    .unwrap();
            y[1].as_strings()
                .unwrap()
                .iter()
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(" a  b\tc ", "", -1), ["a", "b", "c"]);
        assert_eq!(run(" a  b\tc ", "", 1), ["a", "b\tc"]);
        assert_eq!(run("a,,b", ",", -1), ["a", "", "b"]);
        assert_eq!(run("a,b,c", ",", 1), ["a", "b,c"]);
        assert_eq!(run("", ",", -1), [""]);
        assert_eq!(run("", "", -1), [""; 0]);
        let y = run_op_outputs(
            StringSplit { most: -1, any_of: None },
            &[texts(&["a b", "", "c"]), scalar("")],
            3,
        )
        .unwrap();
        assert_eq!(y[0].as_slice::<i64>().unwrap(), [0, 0, 0, 1, 2, 0]);
        assert_eq!(y[2].as_slice::<i64>().unwrap(), [3, 2]);
    }

    #[test]
    fn cuts() {
        let cut = |position: i32, len: i32, unit| {
            let y = run_op(
                Substr { unit },
                &[texts(&["h\u{e9}llo"]), Tensor::scalar(position), Tensor::scalar(len)],
            );
            Some(String::from_utf8_lossy(&y.ok()?[0].as_strings().unwrap()[0]).into_owned())
        };
        assert_eq!(cut(1, 3, Unit::Character).as_deref(), Some("\u{e9}ll"));
        assert_eq!(cut(-2, 9, Unit::Byte).as_deref(), Some("lo"));
        assert_eq!(cut(5, 1, Unit::Character).as_deref(), Some(""));
        assert_eq!(cut(6, 1, Unit::Character), None);
        assert_eq!(cut(-7, 1, Unit::Byte), None);
    }

    #[test]
    fn compares() {
        let y = run_op(StringEqual { negate: false }, &[texts(&["a", "b"]), scalar("b")]).unwrap();
        assert_eq!(y[0].as_bools().unwrap(), [false, true]);
    }
}
