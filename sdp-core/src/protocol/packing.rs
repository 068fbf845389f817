//! Messages in the body of an HTTP request or answer.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{CodecError, MAX_FRAME_BYTES, WireMessage};

/// The largest body of messages: one message of the largest size fits, whatever it is.
pub const MAX_BODY_BYTES: usize = MAX_FRAME_BYTES + HEAD_BYTES;

/// A message's kind and length stand before it.
const HEAD_BYTES: usize = 5;
const TEXT: u8 = b't';
const BINARY: u8 = b'b';

/// Messages one after the other: of each its kind (`t` for text, `b` for binary), its length as four
/// bytes, most significant first, and its content.
#[derive(Debug, Default)]
pub struct Body {
    bytes: BytesMut,
}

impl Body {
    /// Whether there is no message in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a message, or gives it back when there is no room for it. An empty body has room for any
    /// frame.
    ///
    /// # Errors
    /// The message.
    pub fn add(&mut self, message: WireMessage) -> Result<(), WireMessage> {
        let (kind, content) = match &message {
            WireMessage::Text(text) => (TEXT, text.as_bytes()),
            WireMessage::Binary(bytes) => (BINARY, &bytes[..]),
        };
        let fits = self.bytes.len() + HEAD_BYTES + content.len() <= MAX_BODY_BYTES;
        match u32::try_from(content.len()) {
            Ok(length) if fits => {
                self.bytes.reserve(HEAD_BYTES + content.len());
                self.bytes.put_u8(kind);
                self.bytes.put_u32(length);
                self.bytes.put_slice(content);
                Ok(())
            }
            _ => Err(message),
        }
    }

    /// The bytes; it is empty afterwards.
    pub fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

/// The messages of a body.
///
/// # Errors
/// [`CodecError::Body`] when it is not what [`Body`] writes.
pub fn unpack(mut body: Bytes) -> Result<Vec<WireMessage>, CodecError> {
    let mut messages = Vec::new();
    while body.has_remaining() {
        let torn = || CodecError::Body("it ends within a message".into());
        let kind = body.try_get_u8().map_err(|_| torn())?;
        let length = body.try_get_u32().map_err(|_| torn())? as usize;
        if length > body.len() {
            return Err(torn());
        }
        let content = body.split_to(length);
        messages.push(match kind {
            TEXT => {
                let text = String::from_utf8(content.into());
                WireMessage::Text(text.map_err(|_| CodecError::Body("a text message is not UTF-8".into()))?)
            }
            BINARY => WireMessage::Binary(content),
            kind => return Err(CodecError::Body(format!("a message of the unknown kind {kind}"))),
        });
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = WireMessage> {
        prop_oneof![
            ".{0,40}".prop_map(WireMessage::Text),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| WireMessage::Binary(bytes.into())),
        ]
    }

    fn packed(messages: &[WireMessage]) -> Bytes {
        let mut body = Body::default();
        messages.iter().for_each(|message| body.add(message.clone()).unwrap());
        body.take()
    }

    #[test]
    fn a_body_is_written_byte_for_byte_so() {
        let messages = [WireMessage::Text("{}".into()), WireMessage::Binary(Bytes::from_static(b"x"))];
        assert_eq!(&packed(&messages)[..], b"t\0\0\0\x02{}b\0\0\0\x01x");
    }

    #[test]
    fn a_body_takes_one_message_of_any_size_and_no_more_than_its_limit() {
        let mut body = Body::default();
        let largest = WireMessage::Text("x".repeat(MAX_FRAME_BYTES));
        body.add(largest.clone()).unwrap();
        assert_eq!(body.add(WireMessage::Text(String::new())), Err(WireMessage::Text(String::new())));
        assert_eq!(unpack(body.take()).unwrap(), [largest]);
        assert!(body.is_empty() && body.add(WireMessage::Text(String::new())).is_ok());
        assert!(Body::default().add(WireMessage::Text("x".repeat(MAX_FRAME_BYTES + 1))).is_err());
    }

    #[test]
    fn a_body_that_is_none_is_refused() {
        for body in [&b"t"[..], b"t\0\0\0", b"t\0\0\0\x02{", b"x\0\0\0\0", b"t\0\0\0\x01\xff", b"b\xff\xff\xff\xffx"] {
            assert!(unpack(Bytes::copy_from_slice(body)).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages in proptest::collection::vec(message(), 0..8)) {
            prop_assert_eq!(unpack(packed(&messages)).unwrap(), messages);
        }

        #[test]
        fn a_torn_body_gives_its_whole_messages_or_is_refused(
            messages in proptest::collection::vec(message(), 1..4), cut in any::<prop::sample::Index>()
        ) {
            let body = packed(&messages);
            if let Ok(some) = unpack(body.slice(..cut.index(body.len()))) {
                prop_assert!(messages.starts_with(&some));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(bytes.into());
        }
    }
}
