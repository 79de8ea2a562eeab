//! The two messages of gRPC's health service: a name, and one number.

use bytes::{BufMut, Bytes, BytesMut};

use crate::probe::ProbeError;

/// `HealthCheckResponse.ServingStatus.SERVING`.
pub(super) const SERVING: u64 = 1;

/// Field 1, a text: `HealthCheckRequest.service`.
const SERVICE: u8 = 1 << 3 | 2;
/// Field 1, a number: `HealthCheckResponse.status`.
const STATUS: u64 = 1 << 3;

/// `HealthCheckRequest { service }`, in the frame of gRPC.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    // What is empty is left away.
    if !service.is_empty() {
        message.put_u8(SERVICE);
        put_number(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0); // Not compressed.
    frame.put_u32(u32::try_from(message.len()).expect("a name has less than 4 GiB"));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_number(to: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        to.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8(number as u8);
}

/// The status in the one frame that a body is.
pub(super) fn serving(body: &[u8]) -> Result<u64, ProbeError> {
    let message = message(body).map_err(ProbeError::no_grpc)?;
    status(message).ok_or_else(|| ProbeError::no_grpc("its message is broken"))
}

/// `HealthCheckRequest.service` in the one frame that a body is: no text if it is left away, nothing if it cannot be read.
pub(crate) fn service(body: &[u8]) -> Option<&str> {
    let mut message = message(body).ok()?;
    let mut service: &[u8] = &[];
    while !message.is_empty() {
        let key = number(&mut message)?;
        match key & 7 {
            0 => drop(number(&mut message)?),
            1 => skip(&mut message, 8)?,
            2 => {
                let length = number(&mut message)?;
                let text = message;
                skip(&mut message, length)?;
                if key == u64::from(SERVICE) {
                    service = &text[..text.len() - message.len()];
                }
            }
            5 => skip(&mut message, 4)?,
            _ => return None,
        }
    }
    std::str::from_utf8(service).ok()
}

/// The message in the one frame that a body is.
fn message(body: &[u8]) -> Result<&[u8], &'static str> {
    let Some(([compressed, length @ ..], message)) = body.split_first_chunk::<5>() else {
        return Err("it has no message");
    };
    if *compressed != 0 {
        return Err("it is compressed");
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err("its length is another");
    }
    Ok(message)
}

/// `HealthCheckResponse.status`: zero if it is left away, the last if it is repeated. Fields of later versions are skipped.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = number(&mut message)?;
        match key & 7 {
            0 => {
                let value = number(&mut message)?;
                if key == STATUS {
                    status = value;
                }
            }
            1 => skip(&mut message, 8)?,
            2 => {
                let length = number(&mut message)?;
                skip(&mut message, length)?;
            }
            5 => skip(&mut message, 4)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Takes a number of at most ten bytes, seven bits each.
fn number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn skip(from: &mut &[u8], bytes: u64) -> Option<()> {
    *from = from.get(usize::try_from(bytes).ok()?..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::any, proptest};

    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 0, message.len() as u8], message].concat()
    }

    #[test]
    fn a_name_is_sent_as_protobuf_writes_it() {
        assert_eq!(request(""), &[0; 5][..]);
        assert_eq!(request("shop"), &b"\0\0\0\0\x06\x0a\x04shop"[..]);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], *b"\0\0\0\x01\x2f\x0a\xac\x02");
        assert_eq!(long.len(), 5 + 303);
    }

    #[test]
    fn a_status_is_found_among_fields_of_later_versions() {
        for (message, status) in [
            (&b""[..], 0),
            (b"\x08\x01", 1),
            (b"\x08\x02", 2),
            (b"\x08\x03", 3),
            (b"\x08\x02\x08\x01", 1),
            (b"\x12\x02hi\x08\x01\x1d1234\x2112345678\x10\x07", 1),
            (b"\x08\x81\x80\x00", 1),
            (b"\x08\xac\x02", 300),
        ] {
            assert_eq!(serving(&frame(message)).unwrap(), status, "{message:?}");
        }
    }

    #[test]
    fn what_is_no_status_is_said_to_be_none() {
        for (body, why) in [
            (b"".to_vec(), "no message"),
            (b"\0\0\0\0".to_vec(), "no message"),
            (b"\x01\0\0\0\x02\x08\x01".to_vec(), "compressed"),
            (b"\0\0\0\0\x03\x08\x01".to_vec(), "length"),
            (b"\0\0\0\0\x01\x08\x01".to_vec(), "length"),
            (frame(b"\x08"), "broken"),
            (frame(b"\x08\x81"), "broken"),
            (frame(b"\x12\x05hi"), "broken"),
            (frame(b"\x0b"), "broken"),
            (frame(&[0xff; 20]), "broken"),
        ] {
            let error = serving(&body).unwrap_err();
            assert!(error.to_string().contains(why), "{body:?}: {error}");
            assert!(!error.is_definite());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_too_much(body in vec(any::<u8>(), 0..64)) {
            let _ = serving(&body);
            let _ = serving(&frame(&body));
        }
    }
}
