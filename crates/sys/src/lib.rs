//! The only home of unsafe code: Linux system calls that std and rustix lack.

pub mod loop_device;
pub mod mount;
