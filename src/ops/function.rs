//! Model files of operators that are one function of a family: `{"op": "Unary", "function": "Exp"}`.

use serde::{Deserialize, Serialize};

/// The attributes of such an operator.
#[derive(Serialize, Deserialize)]
pub(super) struct Attributes<F> {
    pub(super) function: F,
}

/// For payloads that are tuples of a kernel function.
macro_rules! one_function {
    ($($op:ident($function:ty)),* $(,)?) => { $(
        impl serde::Serialize for $op {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::ops::function::Attributes { function: self.0 }.serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $op {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::ops::function::Attributes::<$function>::deserialize(deserializer)
                    .map(|attributes| Self(attributes.function))
            }
        }
    )* };
}
pub(super) use one_function;
