//! Real actions in real sandboxes: what they find, and above all what they cannot
//! do. Needs root; that is checked once, loudly, and not skipped over.

mod environment;
mod escape;
mod failures;
mod filter;
mod input_roots;
mod leftovers;
mod lifecycle;
mod limits;
mod raw_program;
mod support;
#[path = "../../../inputroot/tests/support/tree.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod tree_fixture;
mod whole_root;
