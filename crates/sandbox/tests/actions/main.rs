//! Real actions in real sandboxes: what they find, and above all what they cannot
//! do. Needs root; that is checked once, loudly, and not skipped over.

mod environment;
mod escape;
mod failures;
mod filter;
mod leftovers;
mod lifecycle;
mod limits;
mod raw_program;
mod support;
