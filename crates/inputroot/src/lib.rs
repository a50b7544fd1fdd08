//! Makes an input tree appear at a directory.
