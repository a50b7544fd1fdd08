//! Fixtures for tests: a real daemon, and a client that reads as a sentence.
//!
//! A test file is a table of cases, each of which starts the real binary on a
//! free port with a root directory of its own, and drives it through gRPC:
//!
//! ```ignore
//! testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
//!     an_output_comes_back,
//! }
//!
//! async fn an_output_comes_back(kit: Kit) -> Outcome {
//!     let daemon = kit.daemon().host_rootfs().start().await?;
//!     let run = daemon.client().action("cp in out").input("in", "hi").output("out").run().await?;
//!     assert_eq!(run.file("out").await?, "hi");
//!     Ok(())
//! }
//! ```
//!
//! The kit knows the wire, not the server: it builds messages as a client does,
//! and can build wrong ones.
//!
//! - [`elf`]: a program for actions that have nothing but their inputs.
//! - [`harness`]: cases that can say why they can't run here.
//! - [`daemon`]: the daemon as a child process.
//! - [`vm`]: the same cases against a VM.
//! - [`client`]: connections, blobs, actions.
//! - [`compressor`]: blobs in compressed form.
//! - [`tree`]: input trees as messages.
//! - [`action`]: an action, word by word.
//! - [`run`]: what came of an action.
//! - [`pki`]: certificates of one test.
//! - [`tls`]: clients that speak TLS.
//! - [`tls_front`]: TLS before a server that speaks without.
//! - [`launch`]: an address that a server keeps while it is down, daemons that an ordinary user starts, and servers of
//!   others with a bound on their memory.
//! - [`gate`]: actions that run until the test ends them.
//! - [`upstream`]: what the tests of caches below the store share.
//! - [`wait`]: waits for a state.

pub mod action;
mod bounds;
pub mod client;
mod compressor;
pub mod daemon;
pub mod elf;
pub mod gate;
pub mod harness;
mod outcome;
pub mod pki;
pub mod run;
pub mod tls;
pub mod tls_front;
pub mod tree;
pub mod upstream;
pub mod vm;
pub mod wait;

pub use action::Action;
pub use bounds::expect_bounds;
pub use client::Client;
pub use compressor::Compressor;
pub use daemon::{Daemon, DaemonBuilder};
pub use gate::Gate;
pub use harness::Kit;
pub use launch::{ORDINARY_USER, ReservedAddress, StartAs, bounded};
pub use model::proto::{asset, google};
pub use model::{BlobHasher, Digest, DigestFunction, DigestFunctions, proto};
pub use outcome::{Outcome, skip};
pub use run::Run;
pub use tree::Tree;
pub use wait::{eventually, eventually_async};
