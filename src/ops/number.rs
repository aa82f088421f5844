//! From a dtype to code for its elements.

/// Calls `$body` with `$t` bound to the Rust type of a numeric dtype, `u8` standing for `bool`.
macro_rules! with_element {
    ($dtype:expr, $t:ident => $body:expr, else $other:expr) => {{
        use $crate::tensor::DType as D;
        match $dtype {
            D::Bool | D::U8 => {
                type $t = u8;
                $body
            }
            D::U16 => {
                type $t = u16;
                $body
            }
            D::U32 => {
                type $t = u32;
                $body
            }
            D::U64 => {
                type $t = u64;
                $body
            }
            D::I8 => {
                type $t = i8;
                $body
            }
            D::I16 => {
                type $t = i16;
                $body
            }
            D::I32 => {
                type $t = i32;
                $body
            }
            D::I64 => {
                type $t = i64;
                $body
            }
            D::F16 => {
                type $t = half::f16;
                $body
            }
            D::BF16 => {
                type $t = half::bf16;
                $body
            }
            D::F32 => {
                type $t = f32;
                $body
            }
            D::F64 => {
                type $t = f64;
                $body
            }
            _ => $other,
        }
    }};
}
pub(crate) use with_element;
