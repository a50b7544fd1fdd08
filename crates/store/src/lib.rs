//! The content-addressed store and the action cache on a directory.
