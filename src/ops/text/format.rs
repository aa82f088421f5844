//! Numbers as text, in the manner of C's `printf`.

use crate::{
    kernels::Number,
    ops::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, with_element},
    tensor::{Bytes, DType, Tensor},
};
use serde::{Deserialize, Serialize};

/// Each number as text (TensorFlow `AsString`): integers in decimal, `bool` as `true` and `false`,
/// floats as C's `%f`, or `%e` when `scientific`, or `%g` when `shortest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AsString {
    /// Digits after the point; 6 when `None`.
    pub precision: Option<usize>,
    /// With an exponent.
    pub scientific: bool,
    /// With an exponent only where it is shorter.
    pub shortest: bool,
    /// The least length, filled up with spaces in front.
    pub width: usize,
    /// `0` fills up with zeros, `-` fills up behind; else empty.
    pub fill: String,
}

/// The longest text that an attribute may ask for.
const MAX_WIDTH: usize = 1 << 10;

impl Operator for AsString {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        if self.width > MAX_WIDTH || self.precision.is_some_and(|precision| precision > MAX_WIDTH) {
            return Err(OpError::unsupported(format!(
                "texts of more than {MAX_WIDTH} characters are not supported"
            )));
        }
        Ok(Inferred::one(DType::String, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (op, dtype) = (self.clone(), cx.inputs[0].dtype);
        if dtype == DType::String {
            return Ok(Step::alias());
        }
        if dtype == DType::Bool {
            return Ok(Step::tensors(move |inputs, _| {
                let [x] = inputs else { return Err(OpError::Memory("numbers")) };
                let made = x.as_bools()?.iter().map(|value| op.filled(value.to_string()));
                Ok(vec![Tensor::from_strings(x.shape().clone(), made.collect())?])
            }));
        }
        with_element!(dtype, T => Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("numbers")) };
            let text = |value: &T| match dtype.is_float() {
                true => op.float(value.to_f64()),
                false => value.to_string(),
            };
            let made = x.as_slice::<T>()?.iter().map(|value| op.filled(text(value)));
            Ok(vec![Tensor::from_strings(x.shape().clone(), made.collect())?])
        })), else Err(OpError::unsupported(format!("a {dtype} as text is not supported"))))
    }
}

impl AsString {
    fn float(&self, value: f64) -> String {
        if !value.is_finite() {
            let sign = if value.is_sign_negative() { "-" } else { "" };
            return format!("{sign}{}", if value.is_nan() { "nan" } else { "inf" });
        }
        let precision = self.precision.unwrap_or(6);
        if self.scientific {
            return scientific(value, precision);
        }
        if !self.shortest {
            return format!("{value:.precision$}");
        }
        // %g: the precision counts digits, and zeros at the end go.
        let digits = precision.max(1);
        let exponent = exponent(value, digits - 1);
        if !(-4..digits as i32).contains(&exponent) {
            let text = scientific(value, digits - 1);
            return match text.split_once('e') {
                Some((number, exponent)) => format!("{}e{exponent}", without_zeros(number)),
                None => text,
            };
        }
        let decimals = (digits as i32 - 1 - exponent) as usize;
        without_zeros(&format!("{value:.decimals$}")).to_string()
    }

    fn filled(&self, text: String) -> Bytes {
        let missing = self.width.saturating_sub(text.chars().count());
        let filled = match self.fill.as_str() {
            "-" => format!("{text}{}", " ".repeat(missing)),
            "0" => {
                let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
                format!("{sign}{}{digits}", "0".repeat(missing))
            }
            _ => format!("{}{text}", " ".repeat(missing)),
        };
        filled.into()
    }
}

/// The decimal exponent after rounding to so many digits after the first.
fn exponent(value: f64, precision: usize) -> i32 {
    let text = format!("{value:.precision$e}");
    text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// C writes at least two digits of the exponent, and its sign.
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let exponent = exponent(value, precision);
    let number = text.split_once('e').map_or(text.as_str(), |(number, _)| number);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{number}e{sign}{:02}", exponent.unsigned_abs())
}

fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    fn text(op: AsString, x: Tensor) -> Vec<String> {
        let y = run_op(op, &[x]).unwrap();
        y[0].as_strings().unwrap().iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    #[test]
    fn printf_formats() {
        let floats = Tensor::from_slice([3], &[1.5f32, -0.00001, f32::INFINITY]).unwrap();
        let plain = AsString::default();
        assert_eq!(text(plain.clone(), floats.clone()), ["1.500000", "-0.000010", "inf"]);
        let scientific = AsString { scientific: true, precision: Some(2), ..plain.clone() };
        assert_eq!(text(scientific, floats), ["1.50e+00", "-1.00e-05", "inf"]);
        let shortest = AsString { shortest: true, ..plain.clone() };
        let doubles = Tensor::from_slice([4], &[100000.0f64, 1e6, 1.25e-5, 0.1]).unwrap();
        assert_eq!(text(shortest, doubles), ["100000", "1e+06", "1.25e-05", "0.1"]);
        let integers = Tensor::from_slice([2], &[-7i64, 42]).unwrap();
        assert_eq!(text(plain.clone(), integers.clone()), ["-7", "42"]);
        let zeros = AsString { width: 4, fill: "0".into(), ..plain.clone() };
        assert_eq!(text(zeros, integers.clone()), ["-007", "0042"]);
        let left = AsString { width: 4, fill: "-".into(), ..plain.clone() };
        assert_eq!(text(left, integers), ["-7  ", "42  "]);
        assert_eq!(text(plain, Tensor::scalar(true)), ["true"]);
    }
}
