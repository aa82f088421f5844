//! The HTML pages of errors that the wire finds itself, in the shape in which libevent, and with it
//! TensorFlow Serving, sends them; and the reason phrases of status codes.
#![forbid(unsafe_code)]

use super::{headers::Headers, message::Response};

/// The page for `status`, which also asks to close the connection.
pub fn error(status: u16) -> Response {
    let reason = reason(status);
    let page = format!(
        "<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n</BODY></HTML>\n"
    );
    let mut headers = Headers::new().with("Content-Type", "text/html").with("Connection", "close");
    if matches!(status, 429 | 503) {
        headers.push("Retry-After", "1");
    }
    Response { status, headers, body: page.into(), trailers: None }
}

/// The reason phrase of a status code (RFC 9110, 15, and 6585).
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_the_shape_of_libevent() {
        let response = error(404);
        assert_eq!(response.headers.get_str("content-type"), Some("text/html"));
        assert_eq!(response.headers.get_str("connection"), Some("close"));
        assert_eq!(
            response.body.into_bytes(),
            "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
        );
        assert_eq!(error(503).headers.get_str("retry-after"), Some("1"));
    }
}
