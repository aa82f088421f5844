//! The run of a recurrent layer: the inputs of all steps in one product, then step after step.
//!
//! The usual layers have a kernel that makes the next state; all others store the products of the state and go on from there.

use super::{Cell, Direction, Positions, Recurrent, Weights};
use crate::{
    kernels::{Epilogue, Kernels, PanelOrder, Threads, Unary},
    ops::{Io, OpError},
};
use std::sync::{Mutex, PoisonError};

/// Floats of a cache line: where one memory ends and the next begins, threads shall not meet.
const LINE: usize = 16;

/// Sizes of a layer.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    pub(super) steps: usize,
    pub(super) batch: usize,
    pub(super) size: usize,
    pub(super) hidden: usize,
    /// Floats of all gates of a row.
    pub(super) width: usize,
}

/// What all directions read.
struct Run<'a> {
    layer: Layer,
    op: &'a Recurrent,
    kernels: &'static Kernels,
    threads: &'a Threads,
    x: &'a [f32],
    lengths: Option<&'a [i32]>,
    hidden: Option<&'a [f32]>,
    cell: Option<&'a [f32]>,
    peephole: Option<&'a [f32]>,
}

/// The states of all rows; `cell` is empty but for `Lstm`.
struct State<'a> {
    hidden: &'a mut [f32],
    cell: &'a mut [f32],
}

/// What a step reads besides the state.
struct Reads<'a> {
    direction: usize,
    weights: &'a Weights,
    /// What the inputs add to the gates.
    inputs: &'a [f32],
    order: PanelOrder,
}

/// Memory of one direction.
struct Memory<'a> {
    /// The last state, and memory for the next.
    state: State<'a>,
    next: State<'a>,
    /// What the inputs add to the gates, of all steps.
    projected: &'a mut [f32],
    /// The same of one step, if its rows are at different positions.
    gathered: &'a mut [f32],
    /// Of layers that are not usual, the gates of a step, and of a `Gru` the state behind its reset gate.
    gates: &'a mut [f32],
    reset: &'a mut [f32],
}

impl Layer {
    /// Floats of each memory of a direction, in the order of [`Memory`], and of outputs of its own.
    fn memory(&self, op: &Recurrent) -> [usize; 9] {
        let (state, width) = (self.batch.saturating_mul(self.hidden), self.batch.saturating_mul(self.width));
        let only = |when: bool, floats: usize| if when { floats } else { 0 };
        let cell = only(op.cell == Cell::Lstm, state);
        let odd = (0..op.directions()).any(|direction| !op.is_usual(direction));
        [
            state,
            cell,
            state,
            cell,
            self.steps.saturating_mul(width),
            only(op.given.lengths, width),
            only(odd, width),
            only(op.cell == Cell::Gru { linear_before_reset: false }, state),
            only(op.directions() > 1, self.steps.saturating_mul(state)),
        ]
    }

    /// Floats that one direction takes.
    fn floats(&self, op: &Recurrent) -> usize {
        let line = |floats: usize| floats.div_ceil(LINE).saturating_mul(LINE);
        self.memory(op).into_iter().fold(0, |sum, floats| sum.saturating_add(line(floats)))
    }

    /// Bytes of scratch memory.
    pub(super) fn scratch(&self, op: &Recurrent) -> usize {
        self.floats(op).saturating_mul(op.directions() * size_of::<f32>())
    }

    /// Cuts the memory of a direction, of which the last part is for outputs.
    fn cut<'a>(&self, op: &Recurrent, mut memory: &'a mut [f32]) -> (Memory<'a>, &'a mut [f32]) {
        let mut next = |floats: usize| {
            let (own, rest) = std::mem::take(&mut memory).split_at_mut(floats.next_multiple_of(LINE));
            memory = rest;
            &mut own[..floats]
        };
        let [state, cell, next_state, next_cell, projected, gathered, gates, reset, y] =
            self.memory(op).map(&mut next);
        let (state, next) = (State { hidden: state, cell }, State { hidden: next_state, cell: next_cell });
        (Memory { state, next, projected, gathered, gates, reset }, y)
    }

    pub(super) fn run(
        self,
        op: &Recurrent,
        at: &Positions,
        weights: &[Weights],
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let (cx, x) = (io.context(), io.input::<f32>(0)?);
        let lengths = at.lengths.map(|index| io.input::<i32>(index)).transpose()?;
        let mut floats = |index: Option<usize>| index.map(|index| io.input::<f32>(index)).transpose();
        let (hidden, cell, peephole) = (floats(at.hidden)?, floats(at.cell)?, floats(at.peephole)?);
        let run = Run {
            layer: self,
            op,
            kernels: cx.kernels,
            threads: cx.threads,
            x,
            lengths,
            hidden,
            cell,
            peephole,
        };
        let (y, last_hidden) = (io.next_output::<f32>()?, io.next_output::<f32>()?);
        let last_cell = if op.cell == Cell::Lstm { io.next_output::<f32>()? } else { &mut [][..] };
        let (scratch, floats) = (io.scratch::<f32>()?, self.floats(op));
        let state = self.batch * self.hidden;
        if state == 0 {
            return Ok(());
        }
        let scratch = &mut scratch[..floats * weights.len()];
        let mut save = |direction: usize, last: &State<'_>| {
            last_hidden[direction * state..][..state].copy_from_slice(last.hidden);
            if !last.cell.is_empty() {
                last_cell[direction * state..][..state].copy_from_slice(last.cell);
            }
        };
        let stride = weights.len() * state;
        // Few threads take a direction each, which is handed over once; more of them share every step.
        if (2..2 * weights.len()).contains(&cx.threads.count()) {
            let outcome = Mutex::new(Ok(()));
            cx.threads.for_each_slice(scratch, floats, |direction, memory| {
                let (memory, y) = self.cut(op, memory);
                if let Err(error) = run.direction(direction, &weights[direction], memory, y, state) {
                    *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                }
            });
            outcome.into_inner().unwrap_or_else(PoisonError::into_inner)?;
            for (direction, memory) in scratch.chunks_mut(floats).enumerate() {
                let (memory, own) = self.cut(op, memory);
                save(direction, &memory.state);
                for (step, own) in own.chunks_exact(state).enumerate() {
                    y[step * stride + direction * state..][..state].copy_from_slice(own);
                }
            }
            return Ok(());
        }
        for (direction, weights) in weights.iter().enumerate() {
            let y = y.get_mut(direction * state..).unwrap_or_default();
            run.direction(direction, weights, self.cut(op, &mut scratch[..floats]).0, y, stride)?;
            save(direction, &self.cut(op, &mut scratch[..floats]).0.state);
        }
        Ok(())
    }
}

impl Run<'_> {
    /// Runs a direction, whose last state is then in its memory. The outputs of a step are `stride` floats after those of the
    /// step before.
    fn direction(
        &self,
        direction: usize,
        weights: &Weights,
        memory: Memory<'_>,
        y: &mut [f32],
        stride: usize,
    ) -> Result<(), OpError> {
        let Memory { mut state, mut next, projected, gathered, gates, reset } = memory;
        let Layer { steps, batch, size, hidden, width } = self.layer;
        let first = |state: &mut [f32], given: Option<&[f32]>| match given {
            Some(given) if !state.is_empty() => {
                state.copy_from_slice(&given[direction * batch * hidden..][..batch * hidden])
            }
            _ => state.fill(0.0),
        };
        first(state.hidden, self.hidden);
        first(state.cell, self.cell);
        if self.lengths.is_some() {
            y.chunks_mut(stride).for_each(|y| y[..batch * hidden].fill(0.0));
        }
        let (rows, plain) = (steps * batch, Epilogue::default());
        self.kernels.gemm(self.x, size, rows, &weights.input, projected, width, &plain, self.threads)?;
        let backwards = self.op.direction == Direction::Reverse || direction == 1;
        for step in 0..steps {
            // The position that a row is at, while it lasts.
            let position = |row: usize| {
                let length = self
                    .lengths
                    .map_or(steps, |lengths| usize::try_from(lengths[row]).unwrap_or(0).min(steps));
                (step < length).then(|| if backwards { length - 1 - step } else { step })
            };
            let inputs = match (self.lengths, position(0)) {
                // All rows are at one position: read where they are, by the core that computed them.
                (None, Some(position)) => &projected[position * batch * width..][..batch * width],
                _ => {
                    for (row, to) in gathered.chunks_exact_mut(width).enumerate() {
                        match position(row) {
                            Some(position) => {
                                to.copy_from_slice(&projected[(position * batch + row) * width..][..width]);
                            }
                            None => to.fill(0.0),
                        }
                    }
                    &*gathered
                }
            };
            let order = if step % 2 == 0 { PanelOrder::Forwards } else { PanelOrder::Backwards };
            let reads = Reads { direction, weights, inputs, order };
            self.step(&reads, &state, &mut next, gates, reset)?;
            for row in 0..batch {
                let own = row * hidden..(row + 1) * hidden;
                match position(row) {
                    Some(position) => {
                        let to = position * stride + row * hidden;
                        y[to..to + hidden].copy_from_slice(&next.hidden[own]);
                    }
                    None => {
                        next.hidden[own.clone()].copy_from_slice(&state.hidden[own.clone()]);
                        if !state.cell.is_empty() {
                            next.cell[own.clone()].copy_from_slice(&state.cell[own]);
                        }
                    }
                }
            }
            std::mem::swap(&mut state, &mut next);
        }
        // Whoever looks for the last state knows the memory, not the number of steps.
        if steps % 2 == 1 {
            next.hidden.copy_from_slice(state.hidden);
            next.cell.copy_from_slice(state.cell);
        }
        Ok(())
    }

    /// The state after a step.
    fn step(
        &self,
        reads: &Reads<'_>,
        state: &State<'_>,
        next: &mut State<'_>,
        gates: &mut [f32],
        reset: &mut [f32],
    ) -> Result<(), OpError> {
        let Reads { direction, weights, inputs, order } = *reads;
        let (kernels, threads, weights) = (self.kernels, self.threads, &weights.gates);
        if self.op.is_usual(direction) {
            return Ok(match self.op.cell {
                Cell::Lstm => {
                    let (from, to) = ([&*state.hidden, &*state.cell], [&mut *next.hidden, &mut *next.cell]);
                    kernels.lstm_step(weights, inputs, from, to, order, threads)?
                }
                _ => kernels.gru_step(weights, inputs, state.hidden, next.hidden, order, threads)?,
            });
        }
        self.sum_gates(reads, state, gates, reset)?;
        let Layer { hidden, width, .. } = self.layer;
        for (row, gates) in gates.chunks_exact_mut(width).enumerate() {
            let own = row * hidden..(row + 1) * hidden;
            let to = &mut next.hidden[own.clone()];
            let functions = self.op.activations(direction);
            match self.op.cell {
                Cell::Lstm => {
                    let (cell, next_cell) = (&state.cell[own.clone()], &mut next.cell[own]);
                    self.lstm(direction, gates, cell, next_cell, to);
                }
                Cell::Gru { .. } => {
                    let (update, new) = gates.split_at_mut(2 * hidden);
                    self.activate(functions[1], new);
                    for ((to, &old), (&update, &new)) in
                        to.iter_mut().zip(&state.hidden[own]).zip(update.iter().zip(&*new))
                    {
                        *to = (1.0 - update) * new + update * old;
                    }
                }
                Cell::Rnn => {
                    self.activate(functions[0], gates);
                    to.copy_from_slice(gates);
                }
            }
        }
        Ok(())
    }

    /// The sums of all gates of a step; of `Gru`, the update gate and the reset gate are activated.
    fn sum_gates(
        &self,
        reads: &Reads<'_>,
        state: &State<'_>,
        gates: &mut [f32],
        reset: &mut [f32],
    ) -> Result<(), OpError> {
        let Layer { hidden, width, .. } = self.layer;
        let Reads { direction, weights, inputs, order } = *reads;
        self.kernels.gate_products(&weights.gates, state.hidden, gates, width, order, self.threads)?;
        let Cell::Gru { linear_before_reset } = self.op.cell else {
            add(gates, inputs);
            return Ok(());
        };
        let rows = || inputs.chunks_exact(width);
        for (gates, inputs) in gates.chunks_exact_mut(width).zip(rows()) {
            let (early, new) = gates.split_at_mut(2 * hidden);
            add(early, inputs);
            self.activate(self.op.activations(direction)[0], early);
            if linear_before_reset {
                multiply(new, &early[hidden..]);
                add(new, &inputs[2 * hidden..]);
            }
        }
        if let Some(last) = &weights.last {
            reset.copy_from_slice(state.hidden);
            for (state, gates) in reset.chunks_exact_mut(hidden).zip(gates.chunks_exact(width)) {
                multiply(state, &gates[hidden..]);
            }
            self.kernels.gate_products(last, reset, &mut gates[2 * hidden..], width, order, self.threads)?;
            for (gates, inputs) in gates.chunks_exact_mut(width).zip(rows()) {
                add(&mut gates[2 * hidden..], &inputs[2 * hidden..]);
            }
        }
        Ok(())
    }

    /// The next state of a row of an `Lstm`.
    fn lstm(
        &self,
        direction: usize,
        gates: &mut [f32],
        cell: &[f32],
        next_cell: &mut [f32],
        next: &mut [f32],
    ) {
        let hidden = self.layer.hidden;
        let functions = self.op.activations(direction);
        let (input, rest) = gates.split_at_mut(hidden);
        let (output, rest) = rest.split_at_mut(hidden);
        let (forget, new) = rest.split_at_mut(hidden);
        let peep = |gate: &mut [f32], cell: &[f32], part: usize| {
            if let Some(weights) = self.peephole {
                let weights = &weights[(direction * 3 + part) * hidden..][..hidden];
                gate.iter_mut()
                    .zip(cell)
                    .zip(weights)
                    .for_each(|((gate, cell), weight)| *gate += cell * weight);
            }
        };
        peep(input, cell, 0);
        peep(forget, cell, 2);
        self.activate(functions[0], input);
        self.activate(functions[0], forget);
        self.activate(functions[1], new);
        for unit in 0..hidden {
            next_cell[unit] = forget[unit] * cell[unit] + input[unit] * new[unit];
        }
        peep(output, next_cell, 1);
        self.activate(functions[0], output);
        next.copy_from_slice(next_cell);
        self.kernels.unary_in_place(functions[2], next, self.threads);
        multiply(next, output);
    }

    fn activate(&self, function: Unary, x: &mut [f32]) {
        if let Some(clip) = self.op.clip {
            x.iter_mut().for_each(|x| *x = x.max(-clip).min(clip));
        }
        self.kernels.unary_in_place(function, x, self.threads);
    }
}

fn add(to: &mut [f32], other: &[f32]) {
    to.iter_mut().zip(other).for_each(|(to, other)| *to += other);
}

fn multiply(by: &mut [f32], other: &[f32]) {
    by.iter_mut().zip(other).for_each(|(by, other)| *by *= other);
}
