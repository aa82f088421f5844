//! The measure of all percentages: how many multiply-adds one core does when nothing waits for memory.

use super::isa::Isa;
use super::table::Kernels;
use std::time::Instant;

impl Kernels {
    /// f32 operations per second of one core in a loop of independent multiply-adds in registers (a multiply-add counts as two);
    /// the best of several short runs, about 20 ms in all.
    pub fn measure_peak(&self) -> f64 {
        const ROUNDS: usize = 100_000;
        let mut best = 0.0f64;
        for _ in 0..10 {
            let start = Instant::now();
            // SAFETY: registers only.
            let sum = unsafe { (self.peak)(ROUNDS) };
            let seconds = start.elapsed().as_secs_f64();
            std::hint::black_box(sum);
            let operations = ROUNDS * CHAINS * self.lanes * 2;
            best = best.max(operations as f64 / seconds);
        }
        best
    }
}

/// Independent chains: enough to hide the latency (4 or 5 cycles, two units), few enough for sixteen registers.
const CHAINS: usize = 12;

/// # Safety
/// None beyond the instruction set.
#[inline(always)]
pub(super) unsafe fn peak<I: Isa>(isa: I, rounds: usize) -> f32 {
    let factor = isa.splat(std::hint::black_box(0.999));
    let summand = isa.splat(std::hint::black_box(0.001));
    let mut sums = [summand; CHAINS];
    for _ in 0..rounds {
        for chain in 0..CHAINS {
            sums[chain] = isa.mul_add(sums[chain], factor, summand);
        }
    }
    let mut total = sums[0];
    for &sum in &sums[1..] {
        total = isa.add(total, sum);
    }
    isa.reduce_add(total)
}
