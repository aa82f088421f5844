//! `BatchingParameters`, the text format of `--batching_parameters_file` and `batching_params.pbtxt`.

use crate::models::{
    Error,
    textproto::{Fields, ParseError, parse},
};
use std::{path::Path, thread, time::Duration};

/// How requests are batched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchParameters {
    /// Rows of the largest request, and of a batch unless `max_execution_batch_size` is smaller.
    pub max_batch_size: usize,
    /// How long a batch that is not full waits for more, while other requests are running.
    pub batch_timeout: Duration,
    /// Batches that may wait per signature; more are refused.
    pub max_enqueued_batches: usize,
    /// Batches that run at the same time, over all models.
    pub num_batch_threads: usize,
    /// Sizes that batches are padded to, in rising order; empty for any.
    pub allowed_batch_sizes: Vec<usize>,
    /// Inputs that differ in other dimensions than the first are padded to the largest.
    pub pad_variable_length_inputs: bool,
    /// Requests above the size of a batch are split.
    pub enable_large_batch_splitting: bool,
    /// Rows of the largest batch.
    pub max_execution_batch_size: usize,
}

impl Default for BatchParameters {
    /// TensorFlow Serving's defaults.
    fn default() -> Self {
        Self {
            max_batch_size: 1000,
            batch_timeout: Duration::ZERO,
            max_enqueued_batches: 10,
            num_batch_threads: thread::available_parallelism().map_or(1, usize::from),
            allowed_batch_sizes: Vec::new(),
            pad_variable_length_inputs: false,
            enable_large_batch_splitting: false,
            max_execution_batch_size: 1000,
        }
    }
}

impl BatchParameters {
    /// Defaults for a device that computes one large batch at a time: the size of a batch is one of few, since memory is
    /// planned for each, and a batch waits a moment for others.
    pub fn for_device() -> Self {
        Self {
            max_batch_size: 64,
            batch_timeout: Duration::from_millis(1),
            max_enqueued_batches: 100,
            num_batch_threads: 1,
            allowed_batch_sizes: vec![1, 2, 4, 8, 16, 32, 64],
            enable_large_batch_splitting: true,
            max_execution_batch_size: 64,
            ..Self::default()
        }
    }

    /// Reads a file; values that it does not set have their defaults.
    ///
    /// `INVALID_ARGUMENT` with the line of a mistake, or with what does not fit together.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|error| {
            Error::not_found(format!("Cannot read the batching parameters {}: {error}", path.display()))
        })?;
        Self::from_content(&text, path)
    }

    /// As [`BatchParameters::from_file`], for a file that has been read; `path` is its place in errors.
    pub fn from_content(text: &[u8], path: &Path) -> Result<Self, Error> {
        Self::from_text(text).map_err(|error| Error {
            message: format!("Invalid protobuf file: '{}': {}", path.display(), error.message).into(),
            ..error
        })
    }

    fn from_text(text: &[u8]) -> Result<Self, Error> {
        let parameters = Self::parse(text).map_err(|error| Error::invalid_argument(error.to_string()))?;
        parameters.check()?;
        Ok(parameters)
    }

    fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let mut fields = Fields::new(parse(text)?, "tensorflow.serving.BatchingParameters");
        let defaults = Self::default();
        let max_batch_size = wrapped(&mut fields, "max_batch_size", 1)?.unwrap_or(defaults.max_batch_size);
        let timeout = wrapped(&mut fields, "batch_timeout_micros", 0)?.unwrap_or(0);
        let splitting = wrapped_boolean(&mut fields, "enable_large_batch_splitting")?.unwrap_or(false);
        let allowed = fields.integers("allowed_batch_sizes")?;
        let parameters = Self {
            max_batch_size,
            batch_timeout: Duration::from_micros(timeout as u64),
            max_enqueued_batches: wrapped(&mut fields, "max_enqueued_batches", 1)?
                .unwrap_or(defaults.max_enqueued_batches),
            num_batch_threads: wrapped(&mut fields, "num_batch_threads", 1)?
                .unwrap_or(defaults.num_batch_threads),
            // A size below 1 is refused by `check`, because it breaks the rising order.
            allowed_batch_sizes: allowed.into_iter().map(|size| usize::try_from(size).unwrap_or(0)).collect(),
            pad_variable_length_inputs: fields.boolean("pad_variable_length_inputs")?.unwrap_or(false),
            enable_large_batch_splitting: splitting,
            max_execution_batch_size: wrapped(&mut fields, "max_execution_batch_size", 1)?
                .unwrap_or(max_batch_size),
        };
        // They tune TensorFlow Serving's own threads and priorities.
        for name in [
            "thread_pool_name",
            "mixed_priority_batching_policy",
            "enable_priority_aware_batch_scheduler",
            "num_warmup_batch_threads",
        ] {
            fields.ignore(name);
        }
        fields.finish()?;
        Ok(parameters)
    }

    /// Rows of the largest batch that is run.
    pub(super) fn largest_batch(&self) -> usize {
        if self.enable_large_batch_splitting {
            self.max_execution_batch_size.min(self.max_batch_size)
        } else {
            self.max_batch_size
        }
    }

    /// The allowed size that a batch of so many rows is padded to.
    pub(super) fn padded(&self, rows: usize) -> usize {
        self.allowed_batch_sizes.iter().copied().find(|size| *size >= rows).unwrap_or(rows)
    }

    fn check(&self) -> Result<(), Error> {
        if self.enable_large_batch_splitting && self.max_execution_batch_size > self.max_batch_size {
            return Err(Error::invalid_argument(format!(
                "max_execution_batch_size must not exceed max_batch_size; got {} and {}",
                self.max_execution_batch_size, self.max_batch_size
            )));
        }
        let Some(&last) = self.allowed_batch_sizes.last() else { return Ok(()) };
        let rising = self.allowed_batch_sizes.is_sorted_by(|a, b| a < b);
        if !rising || self.allowed_batch_sizes.first() == Some(&0) {
            return Err(Error::invalid_argument(
                "allowed_batch_sizes entries must be monotonically increasing",
            ));
        }
        let expected = self.largest_batch();
        if last != expected {
            return Err(Error::invalid_argument(format!(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was {last}; expected \
                 {expected}"
            )));
        }
        Ok(())
    }
}

/// A wrapper message such as `google.protobuf.Int64Value`: `name { value: 8 }`.
fn wrapped(fields: &mut Fields, name: &str, least: i64) -> Result<Option<usize>, ParseError> {
    let Some((mut wrapper, line)) = fields.message(name, "google.protobuf.Int64Value")? else {
        return Ok(None);
    };
    let value = wrapper.integer("value")?.unwrap_or(0);
    wrapper.finish()?;
    match usize::try_from(value) {
        Ok(size) if value >= least => Ok(Some(size)),
        _ => Err(ParseError { line, message: format!("{name} must be at least {least}; got {value}") }),
    }
}

fn wrapped_boolean(fields: &mut Fields, name: &str) -> Result<Option<bool>, ParseError> {
    let Some((mut wrapper, _)) = fields.message(name, "google.protobuf.BoolValue")? else {
        return Ok(None);
    };
    let value = wrapper.boolean("value")?;
    wrapper.finish()?;
    Ok(Some(value.unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_upstream_s_documentation() {
        let text = b"max_batch_size { value: 128 }\nbatch_timeout_micros { value: 500 }\n\
            max_enqueued_batches { value: 1000000 }\nnum_batch_threads { value: 8 }\n\
            allowed_batch_sizes: 32 allowed_batch_sizes: [64, 128]\nthread_pool_name { value: 'pool' }\n\
            pad_variable_length_inputs: true";
        let read = BatchParameters::from_text(text).unwrap();
        assert_eq!(
            read,
            BatchParameters {
                max_batch_size: 128,
                batch_timeout: Duration::from_micros(500),
                max_enqueued_batches: 1_000_000,
                num_batch_threads: 8,
                allowed_batch_sizes: vec![32, 64, 128],
                pad_variable_length_inputs: true,
                enable_large_batch_splitting: false,
                max_execution_batch_size: 128,
            }
        );
        assert_eq!([1, 32, 33, 128].map(|rows| read.padded(rows)), [32, 32, 64, 128]);
        assert_eq!(BatchParameters::from_text(b"").unwrap(), BatchParameters::default());
    }

    #[test]
    fn what_does_not_fit_together() {
        let text =
            |source: &str| BatchParameters::from_text(source.as_bytes()).unwrap_err().message.into_owned();
        assert_eq!(
            text("max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]"),
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8"
        );
        assert!(text("max_batch_size { value: 4 } allowed_batch_sizes: [4, 2]").contains("increasing"));
        assert!(text("max_batch_size { value: 4 } allowed_batch_sizes: [-1, 4]").contains("increasing"));
        assert_eq!(text("\nmax_batch_size { value: 0 }"), "line 2: max_batch_size must be at least 1; got 0");
        assert_eq!(
            text("max_batch: 1"),
            "line 1: Message type \"tensorflow.serving.BatchingParameters\" has no field named \"max_batch\"."
        );
        let split = "enable_large_batch_splitting { value: true } max_batch_size { value: 8 } ";
        assert!(
            BatchParameters::from_text(
                format!("{split} max_execution_batch_size {{ value: 4 }} allowed_batch_sizes: 4").as_bytes()
            )
            .is_ok()
        );
    }
}
