//! `--record_requests`: a sample of live calls in the format of warm-up files, so that one file serves for
//! warming up the next version, for replay and for comparing answers.

use crate::{
    api::tfs_grpc::prediction_log,
    cli::Options,
    models::{Error, Recorded, Recorder, Servable, Stats, warmup},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Bytes that a record may grow to; large requests would fill a small disk with a thousand calls.
const MAX_BYTES: u64 = 256 << 20;

/// A record that is being written.
pub(super) struct Record {
    /// Calls are wanted whose number, scrambled, is below this.
    threshold: u64,
    calls: AtomicU64,
    full: AtomicBool,
    output: Mutex<Output>,
    stats: Arc<Stats>,
}

struct Output {
    file: File,
    shown: String,
    records: usize,
    bytes: u64,
}

impl Record {
    /// The recorder that the flags ask for.
    pub(super) fn of(options: &Options, stats: &Arc<Stats>) -> Result<Option<Arc<dyn Recorder>>, Error> {
        let Some(path) = &options.record_requests else { return Ok(None) };
        Ok(Some(Arc::new(Self::open(path, options.record_sample, stats.clone())?)))
    }

    /// Goes on with an existing record; a file that is none is left alone.
    fn open(path: &Path, share: f64, stats: Arc<Stats>) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let failed = |error| Error::invalid_argument(format!("--record_requests: {shown}: {error}"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut content = Vec::new();
        (&mut file).take(MAX_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
        let bytes = content.len() as u64;
        let mut rest = &*content;
        let mut records = 0;
        while bytes <= MAX_BYTES && !rest.is_empty() {
            let Some((_, after)) = warmup::take_record(rest) else {
                return Err(Error::invalid_argument(format!(
                    "--record_requests: {shown} holds something else than recorded requests"
                )));
            };
            rest = after;
            records += 1;
        }
        let full = records >= warmup::MAX_RECORDS || bytes >= MAX_BYTES;
        log::info!(
            "recording {share} of the calls to {shown}, which holds {records} of at most {}",
            warmup::MAX_RECORDS
        );
        Ok(Self {
            // The cast saturates, so that 1 wants every call.
            threshold: (share * u64::MAX as f64) as u64,
            calls: AtomicU64::new(0),
            full: AtomicBool::new(full),
            output: Mutex::new(Output { file, shown, records, bytes }),
            stats,
        })
    }
}

impl Recorder for Record {
    fn wants(&self) -> bool {
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.threshold != 0 && scrambled(number) <= self.threshold
    }

    fn record(&self, servable: &Servable, call: &Recorded<'_>) {
        let record = warmup::record(&prediction_log(servable, call));
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let length = record.len() as u64;
        // One write per record: a server that is killed leaves whole records, or a tail that is noticed.
        let written = if output.bytes + length > MAX_BYTES {
            Ok(false)
        } else {
            output.file.write_all(&record).map(|()| true)
        };
        match written {
            Ok(true) => {
                output.records += 1;
                output.bytes += length;
                self.stats.logged(&servable.name);
                if output.records < warmup::MAX_RECORDS {
                    return;
                }
            }
            Ok(false) => {}
            Err(error) => log::error!("recording to {} ends: {error}", output.shown),
        }
        self.full.store(true, Ordering::Relaxed);
        log::info!("{} holds {} calls and is complete", output.shown, output.records);
    }
}

/// SplitMix64: numbers in a row to numbers that look random, so that no rhythm of the traffic decides.
fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_calls_is_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = |share: f64| {
            let record = Record::open(&folder.path().join("r"), share, Arc::default()).unwrap();
            (0..100_000).filter(|_| record.wants()).count()
        };
        assert_eq!(wanted(0.0), 0);
        assert_eq!(wanted(1.0), 100_000);
        assert!((800..1200).contains(&wanted(0.01)), "{}", wanted(0.01));
    }

    // SplitMix64's published first output for seed 0.
    #[test]
    fn numbers_are_scrambled_as_published() {
        assert_eq!(scrambled(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_record_goes_on_where_it_ended_and_nothing_else_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        std::fs::write(&path, warmup::record(b"").repeat(warmup::MAX_RECORDS)).unwrap();
        assert!(!Record::open(&path, 1.0, Arc::default()).unwrap().wants(), "it is full");
        std::fs::write(&path, "notes").unwrap();
        assert!(Record::open(&path, 1.0, Arc::default()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"notes");
    }
}
