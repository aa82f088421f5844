//! Warm-up requests: `assets.extra/tf_serving_warmup_requests` in a version's folder, run before the version
//! answers, so that the first client does not wait for plans and packed weights.
//!
//! The file is TensorFlow's record format: length (u64), masked CRC-32C of it, data, masked CRC-32C of that;
//! all little endian. Each record is a `PredictionLog`.

use super::Error;
use crate::{
    formats::Files,
    proto::tensorflow::serving::{PredictionLog, prediction_log::LogType},
    tensor::{Buffer, Bytes},
};
use prost::Message;
use std::path::Path;

/// Where the requests are, below a version's folder.
pub const WARMUP_FILE: &str = "assets.extra/tf_serving_warmup_requests";

/// Records above this number are refused.
pub const MAX_RECORDS: usize = 1000;

/// The requests of a version; none when it has no such file.
///
/// `DATA_LOSS` for a file that is not in the record format, `INVALID_ARGUMENT` for too many records or one
/// that is no `PredictionLog`.
pub fn requests(version: &Files) -> Result<Vec<LogType>, Error> {
    let path = version.place(Path::new(WARMUP_FILE));
    match version.find(Path::new(WARMUP_FILE)) {
        Ok(Some(file)) => decode(file.as_bytes(), &path),
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(Error::data_loss(format!("{}: {error}", path.display()))),
    }
}

/// The requests of any file of records.
///
/// As [`requests`]; `NOT_FOUND` when there is no such file.
pub fn read(path: &Path) -> Result<Vec<LogType>, Error> {
    let file =
        Buffer::map_file(path).map_err(|error| Error::not_found(format!("{}: {error}", path.display())))?;
    decode(file.as_bytes(), path)
}

fn decode(mut file: &[u8], path: &Path) -> Result<Vec<LogType>, Error> {
    let mut requests = Vec::new();
    while !file.is_empty() {
        let Some((record, rest)) = take_record(file) else {
            return Err(Error::data_loss(format!(
                "{}: record {} is damaged. Please verify your warmup data is in TFRecord format.",
                path.display(),
                requests.len()
            )));
        };
        file = rest;
        if requests.len() == MAX_RECORDS {
            return Err(Error::invalid_argument(format!(
                "Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {}",
                path.display()
            )));
        }
        let log = PredictionLog::decode(Bytes::copy_from_slice(record)).map_err(|error| {
            Error::invalid_argument(format!(
                "Failed to parse warmup record: {} from {}",
                error,
                path.display()
            ))
        })?;
        match log.log_type {
            Some(LogType::PredictStreamedLog(_)) | None => {
                return Err(Error::unimplemented(
                    "Unsupported log_type for warmup: streamed, session run or none",
                ));
            }
            Some(request) => requests.push(request),
        }
    }
    Ok(requests)
}

/// Data framed as a record.
pub fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 16);
    bytes.extend(length);
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked_crc(data).to_le_bytes());
    bytes
}

/// The first record and what follows it; `None` for a length or checksum that does not hold.
pub fn take_record(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (length_sum, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(length) != u32::from_le_bytes(*length_sum) {
        return None;
    }
    let (record, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    (masked_crc(record) == u32::from_le_bytes(*sum)).then_some((record, rest))
}

/// A checksum that stays useful when it is part of checked data itself (TensorFlow's `crc32c.h`).
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tensorflow::serving::{PredictLog, PredictRequest, PredictStreamedLog};
    use proptest::prelude::*;

    fn log(log_type: LogType) -> Vec<u8> {
        PredictionLog { log_metadata: None, log_type: Some(log_type) }.encode_to_vec()
    }

    fn predict() -> LogType {
        LogType::PredictLog(PredictLog { request: Some(PredictRequest::default()), response: None })
    }

    fn read(file: &[u8]) -> Result<Vec<LogType>, Error> {
        decode(file, Path::new("/w"))
    }

    #[test]
    fn the_checksum_is_tensorflow_s() {
        // 0xe3069283 is the check value of CRC-32C; the mask is that of crc32c.h.
        let crc = 0xe306_9283_u32;
        assert_eq!(masked_crc(b"123456789"), crc.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn records_in_order() {
        let file = [record(&log(predict())), record(&log(predict()))].concat();
        assert_eq!(read(&file).unwrap().len(), 2);
        assert_eq!(read(b"").unwrap().len(), 0);
        assert!(requests(&Files::of_folder("/nonexistent")).unwrap().is_empty());
    }

    #[test]
    fn what_is_refused() {
        let mut damaged = record(&log(predict()));
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(
            read(&damaged)
                .unwrap_err()
                .message
                .ends_with("Please verify your warmup data is in TFRecord format.")
        );
        assert!(read(&record(b"\xff")).unwrap_err().message.starts_with("Failed to parse warmup record: "));
        let streamed = LogType::PredictStreamedLog(PredictStreamedLog::default());
        assert_eq!(read(&record(&log(streamed))).unwrap_err().code, crate::models::Code::Unimplemented);
        let many = record(&log(predict())).repeat(MAX_RECORDS + 1);
        assert_eq!(
            read(&many).unwrap_err().message,
            "Number of warmup records exceeds the maximum (1000) at /w"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(file in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&file);
        }

        #[test]
        fn any_record_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&record(&data));
        }
    }
}
