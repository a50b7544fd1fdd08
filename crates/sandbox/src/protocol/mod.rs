//! The conversation between daemon and helper: messages, and the packets that carry them.
//!
//! Both ends are one binary, so the encoding (postcard) is not a stable format and has no version.

pub(crate) mod message;
pub(crate) mod packet;

#[cfg(test)]
mod tests;
