//! Seals of files in memory.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::SealFlags;
use rustix::io::Errno;

/// The tries to seal a file. The kernel waits up to 150 ms in each.
const TRIES: u32 = 30;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// fcntl(2) with F_ADD_SEALS. For F_SEAL_WRITE the kernel refuses a file with a page that something else refers to, which
/// could be a write under way. That is so for a moment when the kernel moves pages, or looks which ones are used.
/// So this tries for some seconds.
///
/// # Errors
/// `EBUSY` if the file has a writer all the time, and those of fcntl(2).
pub fn add_seals(memfd: impl AsFd, seals: SealFlags) -> Result<(), Errno> {
    for _ in 1..TRIES {
        match rustix::fs::fcntl_add_seals(&memfd, seals) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            sealed => return sealed,
        }
    }
    rustix::fs::fcntl_add_seals(&memfd, seals)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::MemfdFlags;
    use rustix::pipe::SpliceFlags;

    use super::*;

    /// A file of one page, and a pipe that refers to it.
    fn page_in_a_pipe() -> (OwnedFd, OwnedFd) {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create(c"page", flags).unwrap();
        assert_eq!(rustix::io::write(&memfd, &[1; 4096]), Ok(4096));
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut offset = 0;
        let spliced = rustix::pipe::splice(
            &memfd,
            Some(&mut offset),
            &writer,
            None,
            4096,
            SpliceFlags::empty(),
        );
        assert_eq!(spliced, Ok(4096));
        (memfd, reader)
    }

    #[test]
    fn a_page_that_is_busy_for_a_moment_delays_the_seal() {
        let (memfd, reader) = page_in_a_pipe();
        assert_eq!(rustix::fs::fcntl_add_seals(&memfd, SealFlags::WRITE), Err(Errno::BUSY));
        let freed = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            drop(reader);
        });
        assert_eq!(add_seals(&memfd, SealFlags::WRITE), Ok(()));
        freed.join().unwrap();
        assert_eq!(rustix::fs::fcntl_get_seals(&memfd), Ok(SealFlags::WRITE));
    }

    #[test]
    fn other_errors_come_at_once() {
        let memfd = rustix::fs::memfd_create(c"unsealable", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(add_seals(&memfd, SealFlags::WRITE), Err(Errno::PERM));
    }
}
