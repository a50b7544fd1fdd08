//! The only home of unsafe code: Linux system calls that std and rustix lack.

pub mod allocator;
pub mod ext4;
pub mod loop_device;
pub mod mount;
pub mod mount_tree;

pub mod call;
mod clone;
pub mod init;
pub mod landlock;
pub mod memfd;
pub mod proc_file;
pub mod process;
mod stack;
pub mod strings;
mod syscall;
pub mod user_namespace;
pub mod vsock;
