//! Unsafe code: system calls with any arguments, and forks.
//!
//! Sound only because this program does nothing else: it is single-threaded where
//! it forks, and no memory that the compiler knows of is named in a script but
//! buffers that were leaked for it.
#![expect(unsafe_code, reason = "an attacker makes calls that no library offers")]

/// Makes the call, and gives its result or errno.
pub(crate) fn call(number: libc::c_long, arguments: [i64; 6]) -> Result<i64, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: pointers among the arguments are null or to leaked memory of which
    // nobody else has a reference; see the module's documentation.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value == -1 { Err(last_errno()) } else { Ok(value) }
}

/// Makes a call by the table of 32-bit programs, all arguments zero but the first.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_i386(number: u32, argument: u32) -> i32 {
    let value: i32;
    // SAFETY: rbx belongs to the compiler and is exchanged and put back; no
    // argument is a pointer, and the kernel keeps all registers but rax and, on
    // this path, r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {argument:r}",
            "int 0x80",
            "xchg rbx, {argument:r}",
            argument = inout(reg) u64::from(argument) => _,
            inlateout("eax") number as i32 => value,
            in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    value
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Has an epoll set watch a file for input.
pub(crate) fn epoll_add(set: i64, watched: i64) -> Result<(), i32> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    let event = (&raw mut event) as i64;
    call(libc::SYS_epoll_ctl, [set, libc::EPOLL_CTL_ADD.into(), watched, event, 0, 0]).map(|_| ())
}

/// A timer that ends this process when it expires, and never does.
pub(crate) fn timer() -> Result<i64, i32> {
    let mut id = 0_i32;
    let id = (&raw mut id) as i64;
    call(libc::SYS_timer_create, [libc::CLOCK_MONOTONIC.into(), 0, id, 0, 0, 0])
}

/// Raises the bound on open files as far as that is allowed.
pub(crate) fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// fork(2): 0 in the child.
pub(crate) fn fork() -> Result<i32, i32> {
    // SAFETY: there is one thread, so the child finds no lock taken.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        pid => Ok(pid),
    }
}

/// Ends this process without running anything more of it.
pub(crate) fn exit_now() -> ! {
    // SAFETY: has no conditions.
    unsafe { libc::_exit(0) }
}

/// A session of its own.
pub(crate) fn setsid() {
    // SAFETY: has no conditions.
    unsafe { libc::setsid() };
}

/// Ignores every signal that can be ignored.
pub(crate) fn ignore_all_signals() {
    (1..=64).for_each(ignore);
}

/// Ignores a signal.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN runs no code; impossible signals are refused.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sends a signal.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), i32> {
    // SAFETY: has no conditions.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Waits for a signal, again and again.
pub(crate) fn pause_forever() -> ! {
    loop {
        // SAFETY: has no conditions.
        unsafe { libc::pause() };
    }
}

/// vfork(2) whose child never ends: the parent waits in the kernel, and only
/// SIGKILL reaches it.
pub(crate) fn vfork_forever() -> ! {
    const FLAGS: libc::c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    extern "C" fn child(_: *mut libc::c_void) -> libc::c_int {
        pause_forever()
    }
    let stack = vec![0_u8; 64 << 10].leak();
    // SAFETY: the stack is the child's alone and stays for ever; the child
    // touches no memory but it.
    unsafe { libc::clone(child, stack.as_mut_ptr_range().end.cast(), FLAGS, std::ptr::null_mut()) };
    pause_forever()
}

/// Sends a descriptor over a socket.
pub(crate) fn send_descriptor(socket: i32, descriptor: i32) -> Result<(), i32> {
    let mut byte = [0_u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: sizes of a payload of four bytes; no conditions.
    let (space, length) = unsafe { (libc::CMSG_SPACE(4), libc::CMSG_LEN(4)) };
    let mut control = vec![0_u64; (space as usize).div_ceil(8)];
    // SAFETY: a msghdr of zeros is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    // SAFETY: the control buffer is aligned and large enough for one header and
    // one descriptor, so the first header is in it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = length as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(descriptor);
    }
    // SAFETY: all that the message points to lives until the call is over.
    if unsafe { libc::sendmsg(socket, &raw const message, 0) } < 0 {
        return Err(last_errno());
    }
    Ok(())
}
