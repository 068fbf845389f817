//! Whatever is posted holds messages or is refused, and packing them again gives the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdp_core::protocol::{Body, unpack};

fuzz_target!(|data: &[u8]| {
    let Ok(messages) = unpack(data.to_vec().into()) else { return };
    let mut body = Body::default();
    messages.into_iter().for_each(|message| body.add(message).expect("what was unpacked fits"));
    assert_eq!(&body.take()[..], data);
});
