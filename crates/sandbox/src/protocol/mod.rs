//! What daemon and helper say to each other, and how it travels.

pub(crate) mod message;
pub(crate) mod packet;
mod wire;
