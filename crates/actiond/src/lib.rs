//! What the binaries share: flags and wiring.
