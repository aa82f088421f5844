use super::*;
use crate::models::{Code, fakes};
use std::{
    sync::{Condvar, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Doubles its input; remembers the shapes it saw; waits for a permit before each run.
#[derive(Default)]
struct Gate {
    permits: Mutex<usize>,
    changed: Condvar,
    seen: Mutex<Vec<Vec<usize>>>,
}

impl Gate {
    fn open(&self, runs: usize) {
        *self.permits.lock().unwrap() += runs;
        self.changed.notify_all();
    }

    fn seen(&self) -> Vec<Vec<usize>> {
        self.seen.lock().unwrap().clone()
    }

    fn until_seen(&self, runs: usize) {
        let started = Instant::now();
        while self.seen().len() < runs {
            assert!(started.elapsed() < Duration::from_secs(30), "saw {:?}", self.seen());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Program for Gate {
    fn run(
        &self,
        inputs: &[Tensor],
        _: &[usize],
        _: &Patience,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), Error> {
        self.seen.lock().unwrap().push(inputs[0].shape().to_vec());
        let mut permits = self.permits.lock().unwrap();
        while *permits == 0 {
            permits = self.changed.wait(permits).unwrap();
        }
        *permits -= 1;
        drop(permits);
        let values = inputs[0].as_slice::<f32>().unwrap();
        if values.contains(&13.0) {
            return Err(Error::invalid_argument("unlucky"));
        }
        assert!(!values.contains(&666.0), "a bug of the model");
        let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
        outputs.push(Tensor::from_slice(inputs[0].shape().clone(), &doubled)?);
        Ok(())
    }
}

fn program(gate: &Arc<Gate>, parameters: BatchParameters, slots: usize) -> Arc<dyn Program> {
    counted(gate, parameters, slots, &Arc::default())
}

fn counted(
    gate: &Arc<Gate>,
    parameters: BatchParameters,
    slots: usize,
    stats: &Arc<Stats>,
) -> Arc<dyn Program> {
    let servable = fakes::running("m", 1, gate.clone());
    let scheduler = Arc::new(Scheduler::new(slots));
    batched(servable, &Arc::new(parameters), &scheduler, stats).signatures["serving_default"].program.clone()
}

fn call(program: &Arc<dyn Program>, shape: &[usize], values: &[f32]) -> Result<Vec<f32>, Error> {
    call_within(program, shape, values, None)
}

fn call_within(
    program: &Arc<dyn Program>,
    shape: &[usize],
    values: &[f32],
    limit: Option<Duration>,
) -> Result<Vec<f32>, Error> {
    let patience = Patience::until(limit.map(|limit| Instant::now() + limit));
    let mut outputs = Vec::new();
    program.run(&[Tensor::from_slice(shape, values)?], &[0], &patience, &mut outputs)?;
    assert_eq!(outputs[0].shape().to_vec(), shape);
    Ok(outputs[0].as_slice::<f32>()?.to_vec())
}

/// Calls from threads, one after the other, each given time to queue up.
fn queue(program: &Arc<dyn Program>, values: &[f32]) -> Vec<mpsc::Receiver<Result<Vec<f32>, Error>>> {
    let call_one = |value: f32| {
        let (sender, receiver) = mpsc::channel();
        let program = program.clone();
        thread::spawn(move || sender.send(call(&program, &[1], &[value])));
        thread::sleep(Duration::from_millis(20));
        receiver
    };
    values.iter().map(|value| call_one(*value)).collect()
}

fn result(receiver: &mpsc::Receiver<Result<Vec<f32>, Error>>) -> Result<Vec<f32>, Error> {
    receiver.recv_timeout(Duration::from_secs(30)).expect("no answer")
}

#[test]
fn a_lone_request_runs_at_once_and_what_waits_meanwhile_runs_together() {
    let gate = Arc::new(Gate::default());
    let parameters =
        BatchParameters { batch_timeout: Duration::from_secs(3600), ..BatchParameters::default() };
    let program = program(&gate, parameters, 1);
    let answers = queue(&program, &[1., 2., 3., 4.]);
    gate.until_seen(1);
    assert_eq!(gate.seen(), [vec![1]], "the timeout of an hour does not hold for a lone request");
    gate.open(2);
    for (answer, expected) in answers.iter().zip([2., 4., 6., 8.]) {
        assert_eq!(result(answer), Ok(vec![expected]));
    }
    assert_eq!(gate.seen(), [vec![1], vec![3]]);
}

#[test]
fn sizes_and_waits_are_counted() {
    let (gate, stats) = (Arc::new(Gate::default()), Arc::new(Stats::default()));
    let program = counted(&gate, BatchParameters::default(), 1, &stats);
    let answers = queue(&program, &[1., 2., 3., 4.]);
    gate.open(2);
    answers.iter().for_each(|answer| assert!(result(answer).is_ok()));
    let page = stats.render(&crate::models::Registry::new());
    let rows = "kinglet_batch_rows_sum{model_name=\"m\",signature_name=\"serving_default\"} 4\n\
        kinglet_batch_rows_count{model_name=\"m\",signature_name=\"serving_default\"} 2\n";
    assert!(page.contains(rows), "{page}");
    let waits =
        ":tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name=\"batch_threads\"} 4\n";
    assert!(page.contains(waits), "{page}");
    assert!(page.contains(":tensorflow:serving:batching_session:wrapped_run_count{} 2\n"), "{page}");
}

#[test]
fn who_gives_up_while_waiting_is_not_run() {
    let gate = Arc::new(Gate::default());
    let program = program(&gate, BatchParameters::default(), 1);
    let first = queue(&program, &[1.]);
    let cancelled = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let patience = Patience { deadline: None, cancelled: Some(cancelled.clone()) };
    let second = thread::spawn({
        let program = program.clone();
        move || {
            let x = Tensor::from_slice([1], &[2f32]).unwrap();
            program.run(&[x], &[0], &patience, &mut Vec::new())
        }
    });
    thread::sleep(Duration::from_millis(20));
    cancelled.store(true, Ordering::Relaxed);
    gate.open(2);
    assert!(result(&first[0]).is_ok());
    assert_eq!(second.join().unwrap().unwrap_err().code, Code::Cancelled);
    assert_eq!(gate.seen(), [vec![1]]);
}

#[test]
fn batches_are_padded_to_an_allowed_size_and_cut_at_the_largest() {
    let gate = Arc::new(Gate::default());
    let parameters =
        BatchParameters { max_batch_size: 4, allowed_batch_sizes: vec![2, 4], ..BatchParameters::default() };
    let program = program(&gate, parameters, 1);
    let answers = queue(&program, &[1., 2., 3., 4., 5., 6.]);
    gate.open(10);
    for (answer, expected) in answers.iter().zip([2., 4., 6., 8., 10., 12.]) {
        assert_eq!(result(answer), Ok(vec![expected]));
    }
    assert_eq!(gate.seen(), [vec![2], vec![4], vec![2]]);
}

#[test]
fn a_request_fails_only_by_its_own_values() {
    let gate = Arc::new(Gate::default());
    let program = program(&gate, BatchParameters::default(), 1);
    let answers = queue(&program, &[1., 2., 13., 4.]);
    gate.open(100);
    assert_eq!(result(&answers[1]), Ok(vec![4.]));
    assert_eq!(result(&answers[2]), Err(Error::invalid_argument("unlucky")));
    assert_eq!(result(&answers[3]), Ok(vec![8.]));
}

#[test]
fn a_full_queue_refuses() {
    let gate = Arc::new(Gate::default());
    let parameters =
        BatchParameters { max_batch_size: 1, max_enqueued_batches: 2, ..BatchParameters::default() };
    let program = program(&gate, parameters, 1);
    let answers = queue(&program, &[1., 2., 3., 4.]);
    let error = result(&answers[3]).unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    gate.open(3);
    assert_eq!(result(&answers[2]), Ok(vec![6.]));
}

#[test]
fn large_requests_are_split_or_refused() {
    let gate = Arc::new(Gate::default());
    gate.open(100);
    let mut parameters = BatchParameters { max_batch_size: 2, ..BatchParameters::default() };
    let values = [1., 2., 3., 4., 5.];
    let error = call(&program(&gate, parameters.clone(), 1), &[5], &values).unwrap_err();
    assert_eq!(error.message, "Task size 5 is larger than maximum input batch size 2");
    parameters.enable_large_batch_splitting = true;
    let doubled = call(&program(&gate, parameters, 1), &[5], &values).unwrap();
    assert_eq!(doubled, [2., 4., 6., 8., 10.]);
    assert_eq!(gate.seen(), [vec![2], vec![2], vec![1]]);
}

#[test]
fn shapes_do_not_mix_unless_padded() {
    let gate = Arc::new(Gate::default());
    let start = |program: &Arc<dyn Program>, width: usize| {
        let program = program.clone();
        let join = thread::spawn(move || call(&program, &[1, width], &vec![1.; width]));
        thread::sleep(Duration::from_millis(20));
        join
    };
    let apart = program(&gate, BatchParameters::default(), 1);
    let calls: Vec<_> = [1, 2, 3, 2].into_iter().map(|width| start(&apart, width)).collect();
    gate.open(100);
    for (call, width) in calls.into_iter().zip([1, 2, 3, 2]) {
        assert_eq!(call.join().unwrap(), Ok(vec![2.; width]));
    }
    assert_eq!(gate.seen(), [vec![1, 1], vec![2, 2], vec![1, 3]]);
}

#[test]
fn a_deadline_ends_the_wait() {
    let gate = Arc::new(Gate::default());
    let program = program(&gate, BatchParameters::default(), 1);
    let answers = queue(&program, &[1.]);
    let error = call_within(&program, &[1], &[2.], Some(Duration::from_millis(20))).unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded);
    gate.open(1);
    assert_eq!(result(&answers[0]), Ok(vec![2.]));
    assert_eq!(gate.seen(), [vec![1]], "the request that gave up never runs");
}

#[test]
fn a_panic_frees_the_slot_and_answers_the_others() {
    let gate = Arc::new(Gate::default());
    let program = program(&gate, BatchParameters::default(), 1);
    let answers = queue(&program, &[1., 666., 3.]);
    gate.open(100);
    assert_eq!(result(&answers[0]), Ok(vec![2.]));
    assert_eq!(result(&answers[2]).unwrap_err().code, Code::Internal);
    assert_eq!(call(&program, &[1], &[5.]), Ok(vec![10.]));
}

#[test]
fn many_threads_get_their_own_answers() {
    let gate = Arc::new(Gate::default());
    gate.open(usize::MAX / 2);
    let parameters = BatchParameters {
        max_batch_size: 8,
        batch_timeout: Duration::from_micros(200),
        max_enqueued_batches: 1000,
        ..BatchParameters::default()
    };
    let program = program(&gate, parameters, 2);
    thread::scope(|scope| {
        for client in 0..8 {
            let program = &program;
            scope.spawn(move || {
                for round in 0..200 {
                    let value = (client * 1000 + round) as f32 + 0.5;
                    let rows = 1 + round % 3;
                    let expected = vec![value * 2.0; rows];
                    assert_eq!(call(program, &[rows], &vec![value; rows]), Ok(expected));
                }
            });
        }
    });
}
