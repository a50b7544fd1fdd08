//! The packets between daemon and helper, for fuzz targets and nothing else.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::message::{Request, Response};
use crate::protocol::packet;

/// Reads a packet as helper and as daemon do, and checks that what is understood comes back as it was.
///
/// # Panics
/// When it does not.
pub fn read_packet(bytes: &[u8]) {
    there_and_back::<Request>(bytes);
    there_and_back::<Response>(bytes);
}

fn there_and_back<M: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = packet::decode_inline::<M>(bytes) else { return };
    let again = packet::encode_inline(&message).expect("what was decoded can be encoded");
    assert_eq!(packet::decode_inline::<M>(&again).ok().as_ref(), Some(&message));
}
