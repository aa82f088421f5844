//! The gates of recurrent layers, with the usual activations, in one pass over the units.

use super::error::{KernelError, expect_length};
use super::isa::Isa;
use super::math;
use super::table::Kernels;

impl Kernels {
    /// A step of an LSTM for one row: `cell = s(f) cell + s(i) tanh(g)` and `hidden = s(o) tanh(cell)`, where
    /// `gates` holds the sums of the gates i, o, f and g one after the other, and s is the sigmoid.
    pub fn lstm_cell(&self, gates: &[f32], cell: &mut [f32], hidden: &mut [f32]) -> Result<(), KernelError> {
        let units = hidden.len();
        expect_length("lstm_cell", "gates", units * 4, gates.len())?;
        expect_length("lstm_cell", "cell", units, cell.len())?;
        // SAFETY: the lengths were checked.
        unsafe { (self.lstm_cell)(gates.as_ptr(), cell.as_mut_ptr(), hidden.as_mut_ptr(), units) };
        Ok(())
    }

    /// A step of a GRU for one row whose reset gate comes after the product with the state:
    /// `hidden = (1 - s(z)) tanh(input + s(r) product) + s(z) hidden`, where `gates` holds the sums of the gates z and r
    /// one after the other, and s is the sigmoid.
    pub fn gru_cell(
        &self,
        gates: &[f32],
        input: &[f32],
        product: &[f32],
        hidden: &mut [f32],
    ) -> Result<(), KernelError> {
        let units = hidden.len();
        expect_length("gru_cell", "gates", units * 2, gates.len())?;
        expect_length("gru_cell", "input", units, input.len())?;
        expect_length("gru_cell", "product", units, product.len())?;
        // SAFETY: the lengths were checked.
        unsafe {
            (self.gru_cell)(gates.as_ptr(), input.as_ptr(), product.as_ptr(), hidden.as_mut_ptr(), units);
        }
        Ok(())
    }
}

/// # Safety
/// `count <= LANES` floats must be readable.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, from: *const f32, count: usize) -> I::F32 {
    // SAFETY: as the caller vouches.
    unsafe { if count == I::LANES { isa.load(from) } else { isa.load_partial(from, count) } }
}

/// # Safety
/// `count <= LANES` floats must be writable.
#[inline(always)]
unsafe fn store<I: Isa>(isa: I, to: *mut f32, value: I::F32, count: usize) {
    // SAFETY: as the caller vouches.
    unsafe { if count == I::LANES { isa.store(to, value) } else { isa.store_partial(to, value, count) } }
}

#[inline(always)]
fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    math::times_sigmoid(isa, isa.splat(1.0), x)
}

/// # Safety
/// The slices must have the lengths of [`Kernels::lstm_cell`] for `units`.
#[inline(always)]
pub(super) unsafe fn lstm_cell<I: Isa>(
    isa: I,
    gates: *const f32,
    cell: *mut f32,
    hidden: *mut f32,
    units: usize,
) {
    let mut unit = 0;
    while unit < units {
        let count = (units - unit).min(I::LANES);
        // SAFETY: `count` units remain.
        unsafe {
            let gate = |index: usize| load(isa, gates.add(index * units + unit), count);
            let (input, output, forget) =
                (sigmoid(isa, gate(0)), sigmoid(isa, gate(1)), sigmoid(isa, gate(2)));
            let added = isa.mul(input, math::tanh(isa, gate(3)));
            let state = isa.mul_add(forget, load(isa, cell.add(unit), count), added);
            store(isa, cell.add(unit), state, count);
            store(isa, hidden.add(unit), isa.mul(output, math::tanh(isa, state)), count);
        }
        unit += I::LANES;
    }
}

/// # Safety
/// The slices must have the lengths of [`Kernels::gru_cell`] for `units`.
#[inline(always)]
pub(super) unsafe fn gru_cell<I: Isa>(
    isa: I,
    gates: *const f32,
    input: *const f32,
    product: *const f32,
    hidden: *mut f32,
    units: usize,
) {
    let mut unit = 0;
    while unit < units {
        let count = (units - unit).min(I::LANES);
        // SAFETY: `count` units remain.
        unsafe {
            let update = sigmoid(isa, load(isa, gates.add(unit), count));
            let reset = sigmoid(isa, load(isa, gates.add(units + unit), count));
            let product = load(isa, product.add(unit), count);
            let new = math::tanh(isa, isa.mul_add(reset, product, load(isa, input.add(unit), count)));
            let old = load(isa, hidden.add(unit), count);
            store(isa, hidden.add(unit), isa.mul_add(update, isa.sub(old, new), new), count);
        }
        unit += I::LANES;
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn cells_follow_their_equations() {
        for kernels in available() {
            for units in [0, 1, 7, 8, 16, 21, 64] {
                let gates: Vec<f32> = random(units * 4, 1).iter().map(|x| x * 4.0).collect();
                let gate = |index: usize, unit: usize| f64::from(gates[index * units + unit]);
                let (mut cell, mut hidden) = (random(units, 2), vec![7.0; units]);
                let state: Vec<f64> = (0..units)
                    .map(|u| {
                        let kept = sigmoid(gate(2, u)) * f64::from(cell[u]);
                        kept + sigmoid(gate(0, u)) * gate(3, u).tanh()
                    })
                    .collect();
                kernels.lstm_cell(&gates, &mut cell, &mut hidden).unwrap();
                assert_close(&cell, &state, 1e-6);
                let expected: Vec<f64> = (0..units).map(|u| sigmoid(gate(1, u)) * state[u].tanh()).collect();
                assert_close(&hidden, &expected, 1e-6);

                let (input, product, mut hidden) = (random(units, 3), random(units, 4), random(units, 5));
                let expected: Vec<f64> = (0..units)
                    .map(|u| {
                        let (z, r) = (sigmoid(gate(0, u)), sigmoid(gate(1, u)));
                        let new = (f64::from(input[u]) + r * f64::from(product[u])).tanh();
                        (1.0 - z) * new + z * f64::from(hidden[u])
                    })
                    .collect();
                kernels.gru_cell(&gates[..2 * units], &input, &product, &mut hidden).unwrap();
                assert_close(&hidden, &expected, 1e-6);
            }
            assert!(kernels.lstm_cell(&[0.0; 7], &mut [0.0; 2], &mut [0.0; 2]).is_err());
            assert!(kernels.gru_cell(&[0.0; 4], &[0.0; 1], &[0.0; 2], &mut [0.0; 2]).is_err());
        }
    }
}
