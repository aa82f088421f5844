//! Values as error messages show them: in the layout of single-line arrays, cut behind the first
//! token that makes 256 bytes. Numbers are printed as RapidJSON does, not as tensors are.

use super::{
    grisu,
    number::{Conversion, Number},
    value::{Kind, Value},
    write::Writer,
};

const LIMIT: usize = 256;

/// The text for `value`. A number that is not finite ends it, with nothing in its place.
pub fn dump(value: Value<'_>) -> Vec<u8> {
    let mut writer = Writer::new(4);
    writer.single_line_arrays(true);
    // Every level of nesting writes a byte before the next, so the limit bounds the recursion.
    write(value, &mut writer);
    writer.finish()
}

/// Returns whether there is room for more.
fn write(value: Value<'_>, writer: &mut Writer) -> bool {
    match value.kind() {
        Kind::Null => writer.raw(b"null"),
        Kind::False => writer.boolean(false),
        Kind::True => writer.boolean(true),
        Kind::String => writer.string(&value.string().unwrap_or_default()),
        Kind::Number => match value.number(Conversion::Serving) {
            Number::Negative(integer) => writer.signed(integer),
            Number::Positive(integer) => writer.unsigned(integer),
            Number::Double(double) if double.is_finite() => writer.raw(rapid_json_double(double).as_bytes()),
            Number::Double(_) => {
                writer.begin_value();
                return false;
            }
        },
        Kind::Array => {
            writer.begin_array();
            if !room(writer) || !value.items().all(|item| write(item, writer)) {
                return false;
            }
            writer.end_array();
        }
        Kind::Object => {
            writer.begin_object();
            let all = room(writer)
                && value.members().all(|(key, member)| {
                    writer.key(&key);
                    room(writer) && write(member, writer)
                });
            if !all {
                return false;
            }
            writer.end_object();
        }
    }
    room(writer)
}

fn room(writer: &Writer) -> bool {
    writer.as_bytes().len() < LIMIT
}

/// Grisu2's digits; positional up to 10^21 and down to 10^-6.
fn rapid_json_double(value: f64) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value == 0.0 {
        return format!("{sign}0.0");
    }
    let (digits, power) = grisu::digits(value.abs());
    let digits = String::from_utf8_lossy(&digits);
    // The place of the decimal point from the first digit on.
    let point = digits.len() as i32 + power;
    match point {
        _ if power >= 0 && point <= 21 => format!("{sign}{digits}{}.0", "0".repeat(power as usize)),
        1..=21 => {
            let (whole, fraction) = digits.split_at(point as usize);
            format!("{sign}{whole}.{fraction}")
        }
        -5..=0 => format!("{sign}0.{}{digits}", "0".repeat(-point as usize)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            format!("{sign}{first}{dot}{rest}e{}", point - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scan::Document, *};

    fn dumped(text: &str) -> String {
        String::from_utf8(dump(Document::parse(text.as_bytes()).unwrap().root())).unwrap()
    }

    /// Recorded from TensorFlow Serving.
    #[test]
    fn recorded() {
        assert_eq!(
            dumped(r#"{"signature_name":["hello"],"examples":[{"names":["foo","bar"]}]}"#),
            "{\n    \"signature_name\": [\"hello\"],\n    \"examples\": [{\n            \"names\": [\"foo\", \"bar\"]\n        }]\n}"
        );
        let long = dumped(&format!("{:?}", (0..300).collect::<Vec<_>>()));
        assert!(long.len() == 257 && long.ends_with(", 65, 66"), "{long}");
        assert_eq!(dumped("18446744073709551616"), "18446744073709553000.0");
        assert_eq!(dumped("NaN"), "");
    }

    #[test]
    fn nesting_is_cut() {
        assert_eq!(dumped(&("[".repeat(1_000_000) + &"]".repeat(1_000_000))), "[".repeat(256));
    }

    #[test]
    fn doubles() {
        for (text, expected) in [
            ("1.50", "1.5"),
            ("-0.0", "-0.0"),
            ("1e20", "100000000000000000000.0"),
            ("1e21", "1e21"),
            ("1.25e-7", "1.25e-7"),
            ("0.000001", "0.000001"),
            ("12.5e300", "1.25e301"),
            ("[1.0, Infinity, 2]", "[1.0, "),
        ] {
            assert_eq!(dumped(text), expected);
        }
    }
}
