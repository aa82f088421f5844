//! The one error that surfaces see: a canonical code and a message for a person.

use std::{borrow::Cow, fmt};

/// The canonical status codes, shared by gRPC and TensorFlow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// No error.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// Nothing more is known.
    Unknown = 2,
    /// The request is wrong whatever the state of the server.
    InvalidArgument = 3,
    /// Time ran out.
    DeadlineExceeded = 4,
    /// The thing named does not exist.
    NotFound = 5,
    /// The thing named exists already.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit or quota is used up.
    ResourceExhausted = 8,
    /// The state of the server does not allow it.
    FailedPrecondition = 9,
    /// A concurrent change got in the way.
    Aborted = 10,
    /// A position beyond the valid range.
    OutOfRange = 11,
    /// Not supported.
    Unimplemented = 12,
    /// A bug or a broken invariant.
    Internal = 13,
    /// Not now; try again.
    Unavailable = 14,
    /// Stored data is lost or corrupt.
    DataLoss = 15,
    /// The caller did not prove who it is.
    Unauthenticated = 16,
}

impl Code {
    /// Every code, by number.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The name in upper case with underscores, as in `INVALID_ARGUMENT`.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The HTTP status that TensorFlow Serving answers for this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Code::Ok => 200,
            Code::Cancelled => 499,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::DeadlineExceeded => 504,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::PermissionDenied => 403,
            Code::ResourceExhausted => 429,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::Unauthenticated => 401,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }
}

/// A failed request or load: the code decides the status, the message says what is wrong and
/// what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// What is wrong; shown to the caller.
    pub message: Cow<'static, str>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                Self { code: Code::$code, message: message.into() }
            })*
        }
    };
}

constructors! {
    /// The request is wrong.
    invalid_argument => InvalidArgument,
    /// The thing named does not exist.
    not_found => NotFound,
    /// The thing to be made exists.
    already_exists => AlreadyExists,
    /// The caller may not, or what it asks for may not be used.
    permission_denied => PermissionDenied,
    /// The server's state does not allow it.
    failed_precondition => FailedPrecondition,
    /// Not supported.
    unimplemented => Unimplemented,
    /// A bug.
    internal => Internal,
    /// Not now.
    unavailable => Unavailable,
    /// A limit is reached.
    resource_exhausted => ResourceExhausted,
    /// Time ran out.
    deadline_exceeded => DeadlineExceeded,
    /// The caller gave up.
    cancelled => Cancelled,
    /// Stored data is corrupt.
    data_loss => DataLoss,
}

/// `INVALID_ARGUMENT: text`, as TensorFlow writes a status.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbered_as_in_grpc() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number, "{}", code.name());
        }
    }
}
