//! Who runs when: slots, lanes of waiting batches, and the hand-over of a batch to its first request.

use super::BatchParameters;
use crate::{
    models::{Code, Error, Patience},
    tensor::{DType, Shape, Tensor},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Slots and waiting batches of all models.
pub struct Scheduler {
    slots: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    lanes: HashMap<LaneKey, VecDeque<Batch>>,
    /// A lane for each waiting batch, oldest first.
    order: VecDeque<LaneKey>,
}

/// Requests of one lane may share a batch.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    pub(super) id: u64,
    pub(super) wanted: Vec<usize>,
    pub(super) shapes: Vec<(DType, Shape)>,
}

struct Batch {
    rows: usize,
    tasks: Vec<Arc<Task>>,
    /// When its first request stops waiting for company.
    due: Instant,
}

/// One request.
pub(super) struct Task {
    pub(super) inputs: Vec<Tensor>,
    pub(super) rows: usize,
    pub(super) patience: Patience,
    /// When it began to wait.
    pub(super) queued: Instant,
    stage: Mutex<Stage>,
    changed: Condvar,
}

enum Stage {
    Waiting,
    /// It is to run this batch, itself included.
    Lead(Vec<Arc<Task>>),
    Done(Result<Vec<Tensor>, Error>),
    /// Nobody waits for the result any more, or it is being worked on by its own thread.
    Taken,
}

type RunBatch<'a> = dyn Fn(&[&Task]) -> Vec<Result<Vec<Tensor>, Error>> + 'a;

impl Task {
    pub(super) fn new(inputs: Vec<Tensor>, rows: usize, patience: &Patience) -> Self {
        let (patience, queued) = (patience.clone(), Instant::now());
        Self { inputs, rows, patience, queued, stage: Mutex::new(Stage::Waiting), changed: Condvar::new() }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nobody waits for its result any more, if that is so.
    fn given_up(&self) -> Option<Error> {
        let error = self.patience.check().err()?;
        Some(match error.code {
            Code::DeadlineExceeded => {
                Error::deadline_exceeded("The deadline passed while waiting for a batch")
            }
            _ => error,
        })
    }

    /// Takes the task out of waiting; false when it has been given up.
    fn claim(&self) -> bool {
        let mut stage = self.stage();
        let waiting = matches!(*stage, Stage::Waiting);
        if waiting {
            *stage = Stage::Taken;
        }
        waiting
    }

    fn finish(&self, result: Result<Vec<Tensor>, Error>) {
        *self.stage() = Stage::Done(result);
        self.changed.notify_one();
    }
}

impl Scheduler {
    /// A scheduler that runs so many batches at the same time, at least one.
    pub fn new(slots: usize) -> Self {
        Self { slots: slots.max(1), state: Mutex::default() }
    }

    /// Runs a task, alone or in a batch, on this thread or on that of another request of its lane.
    pub(super) fn run(
        &self,
        parameters: &BatchParameters,
        key: LaneKey,
        task: Task,
        run_batch: &RunBatch<'_>,
    ) -> Result<Vec<Tensor>, Error> {
        let task = Arc::new(task);
        let mut state = self.lock();
        let wait_for_company = !parameters.batch_timeout.is_zero() && state.running > 0;
        if state.running < self.slots && state.order.is_empty() && !wait_for_company {
            state.running += 1;
            drop(state);
            task.claim();
            return self.lead(vec![task], run_batch);
        }
        let due = Instant::now() + parameters.batch_timeout;
        self.enqueue(&mut state, parameters, &key, &task, due)?;
        // A batch that has just become full need not wait for its time.
        let full = |batch: &Batch| batch.rows >= parameters.largest_batch();
        if state.running < self.slots && state.lanes.get(&key).and_then(VecDeque::front).is_some_and(full) {
            self.dispatch(&mut state);
        }
        drop(state);
        self.wait(&key, task, due, run_batch)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(
        &self,
        state: &mut State,
        parameters: &BatchParameters,
        key: &LaneKey,
        task: &Arc<Task>,
        due: Instant,
    ) -> Result<(), Error> {
        let State { lanes, order, .. } = state;
        let waiting = order.iter().filter(|other| other.id == key.id).count();
        let lane = lanes.entry(key.clone()).or_default();
        match lane.back_mut().filter(|batch| batch.rows + task.rows <= parameters.largest_batch()) {
            Some(open) => {
                open.rows += task.rows;
                open.tasks.push(task.clone());
            }
            None if waiting >= parameters.max_enqueued_batches => {
                if lane.is_empty() {
                    lanes.remove(key);
                }
                return Err(Error::unavailable(
                    "The batch scheduling queue to which this task was submitted is full",
                ));
            }
            None => {
                lane.push_back(Batch { rows: task.rows, tasks: vec![task.clone()], due });
                order.push_back(key.clone());
            }
        }
        Ok(())
    }

    fn wait(
        &self,
        key: &LaneKey,
        task: Arc<Task>,
        due: Instant,
        run_batch: &RunBatch<'_>,
    ) -> Result<Vec<Tensor>, Error> {
        let mut pushed = false;
        loop {
            let mut stage = task.stage();
            match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Done(result) => return result,
                Stage::Lead(tasks) => {
                    drop(stage);
                    return self.lead(tasks, run_batch);
                }
                Stage::Waiting => match task.given_up() {
                    Some(error) => return Err(error),
                    None => *stage = Stage::Waiting,
                },
                // Another request's thread runs it.
                Stage::Taken => {}
            }
            let wake = match (pushed, task.patience.deadline) {
                (false, Some(deadline)) => Some(due.min(deadline)),
                (false, None) => Some(due),
                (true, deadline) => deadline,
            };
            let running_elsewhere = matches!(*stage, Stage::Taken);
            let Some(wake) = wake.filter(|_| !running_elsewhere) else {
                drop(task.changed.wait(stage).unwrap_or_else(PoisonError::into_inner));
                continue;
            };
            let left = wake.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                drop(task.changed.wait_timeout(stage, left).unwrap_or_else(PoisonError::into_inner));
            } else if !pushed {
                drop(stage);
                pushed = true;
                self.dispatch_due(key);
            }
        }
    }

    /// Starts the lane's oldest batch if its time has come and a slot is free.
    fn dispatch_due(&self, key: &LaneKey) {
        let mut state = self.lock();
        let now = Instant::now();
        let due = state.lanes.get(key).and_then(VecDeque::front).is_some_and(|batch| batch.due <= now);
        if due && state.running < self.slots {
            self.dispatch(&mut state);
        }
    }

    /// Hands the oldest batches to their first requests while slots are free.
    fn dispatch(&self, state: &mut State) {
        while state.running < self.slots {
            let Some(key) = state.order.pop_front() else { return };
            let Some(lane) = state.lanes.get_mut(&key) else { continue };
            let batch = lane.pop_front();
            if lane.is_empty() {
                state.lanes.remove(&key);
            }
            let tasks = batch.map(|batch| batch.tasks).unwrap_or_default();
            let tasks: Vec<Arc<Task>> = tasks.into_iter().filter(|task| task.claim()).collect();
            if let Some(leader) = tasks.first().cloned() {
                state.running += 1;
                *leader.stage() = Stage::Lead(tasks);
                leader.changed.notify_one();
            }
        }
    }

    /// Runs a batch on this thread, whose own task is the first, and answers the others.
    fn lead(&self, tasks: Vec<Arc<Task>>, run_batch: &RunBatch<'_>) -> Result<Vec<Tensor>, Error> {
        let own = tasks.first().cloned();
        let mut lead = Lead { scheduler: self, tasks: tasks.into() };
        // Time may have run out while the batch waited.
        lead.tasks.retain(|task| {
            let given_up = task.given_up();
            let stays = given_up.is_none();
            if let Some(error) = given_up {
                task.finish(Err(error));
            }
            stays
        });
        if !lead.tasks.is_empty() {
            let batch: Vec<&Task> = lead.tasks.iter().map(|task| &**task).collect();
            for result in run_batch(&batch) {
                if let Some(task) = lead.tasks.pop_front() {
                    task.finish(result);
                }
            }
        }
        drop(lead);
        let stage = own.map(|task| std::mem::replace(&mut *task.stage(), Stage::Taken));
        match stage {
            Some(Stage::Done(result)) => result,
            _ => Err(Error::internal("the batch ended without a result")),
        }
    }
}

/// Frees the slot, and answers tasks that a panic left without a result.
struct Lead<'a> {
    scheduler: &'a Scheduler,
    tasks: VecDeque<Arc<Task>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.finish(Err(Error::internal("the batch ended without a result")));
        }
        let mut state = self.scheduler.lock();
        state.running = state.running.saturating_sub(1);
        self.scheduler.dispatch(&mut state);
    }
}
