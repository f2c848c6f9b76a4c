//! A record as librdkafka has it, and the bytes that the digest of a segment is taken over.
//!
//! rdkafka's own way to the headers panics at a name that is not UTF-8; anybody who may write to the topic could end the
//! verification with that. So the headers are read from librdkafka itself.
#![expect(unsafe_code, reason = "librdkafka's headers, see above")]

use std::ffi::{CStr, c_void};
use std::{ptr, slice};

use rdkafka::Message as _;
use rdkafka::bindings as native;
use rdkafka::message::BorrowedMessage;

/// Name and content of a header.
pub(super) type Header = (String, Option<Vec<u8>>);

/// The headers in the order they were sent. Names that are not UTF-8 have U+FFFD in place of what is not.
pub(super) fn headers_of(message: &BorrowedMessage<'_>) -> Vec<Header> {
    const NO_ERROR: native::rd_kafka_resp_err_t = native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut headers = ptr::null_mut();
    // SAFETY: a live message, and a valid place for the result, which stays the message's.
    if unsafe { native::rd_kafka_message_headers(message.ptr(), &raw mut headers) } != NO_ERROR {
        return Vec::new();
    }
    let header = |index| {
        let (mut name, mut content, mut size): (_, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
        // SAFETY: live headers and valid places for the result. Name (NUL-terminated) and content (null, or so many
        // bytes) belong to the headers, which live as long as the message; both are copied.
        unsafe {
            let error = native::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut content, &raw mut size);
            (error == NO_ERROR).then(|| {
                let content = (!content.is_null()).then(|| slice::from_raw_parts(content.cast::<u8>(), size).to_vec());
                (CStr::from_ptr(name).to_string_lossy().into_owned(), content)
            })
        }
    };
    (0..).map_while(header).collect()
}

/// The record timestamp in milliseconds; -1 where the record has none.
pub(super) fn timestamp_of(message: &BorrowedMessage<'_>) -> i64 {
    message.timestamp().to_millis().unwrap_or(-1)
}

/// The bytes of one record that go into the digest, little endian: offset (8), timestamp (8), length of the key (4, -1
/// for none), of the value (4, -1 for none) and of the headers (4), then key, value and headers; of each header the
/// length of its name (4), the name, the length of its content (4, -1 for none) and the content.
pub(super) fn digested(
    out: &mut Vec<u8>,
    (offset, timestamp_ms): (i64, i64),
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header],
) {
    let mut framed = Vec::new();
    for (name, content) in headers {
        framed.extend((name.len() as u32).to_le_bytes());
        framed.extend(name.as_bytes());
        framed.extend(length(content.as_deref()).to_le_bytes());
        framed.extend(content.as_deref().unwrap_or_default());
    }
    out.clear();
    out.extend(offset.to_le_bytes());
    out.extend(timestamp_ms.to_le_bytes());
    out.extend(length(key).to_le_bytes());
    out.extend(length(value).to_le_bytes());
    out.extend((framed.len() as u32).to_le_bytes());
    out.extend(key.unwrap_or_default());
    out.extend(value.unwrap_or_default());
    out.extend(framed);
}

fn length(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |bytes| bytes.len() as i32)
}

#[cfg(test)]
mod tests {
    use kappa_core::digest::LogDigest;
    use kappa_core::record::LogBatch;
    use xxhash_rust::xxh3::Xxh3;

    use super::*;

    /// Offset, key, value, headers.
    type Record = (i64, Option<&'static [u8]>, Option<&'static [u8]>, Vec<Header>);

    #[test]
    fn the_digest_is_the_pipelines() {
        let records: [Record; 3] = [
            (7, Some(b"key"), Some(b"value"), vec![("trace".to_owned(), Some(vec![1, 2])), ("none".to_owned(), None)]),
            (9, None, None, Vec::new()),
            (10, Some(b""), Some(b""), vec![("größe".to_owned(), Some(Vec::new()))]),
        ];
        let (mut batch, mut digest) = (LogBatch::default(), Xxh3::new());
        let mut bytes = Vec::new();
        for (offset, key, value, headers) in &records {
            let borrowed = headers.iter().map(|(name, content)| (name.as_str(), content.as_deref()));
            batch.push(*offset, 1_000 + offset, *key, *value, borrowed);
            digested(&mut bytes, (*offset, 1_000 + offset), *key, *value, headers);
            digest.update(&bytes);
        }
        let mut theirs = LogDigest::new();
        theirs.update(&batch, 0..3);
        assert_eq!(format!("{:032x}", digest.digest128()), theirs.finish());
    }
}
