//! The filter, as the kernel applies it.

use sandbox::ExitStatus;

use crate::raw_program::{RawProgram, results};
use crate::support::Action;

const EPERM: i64 = -1;
const ENOSYS: i64 = -38;

fn run(program: RawProgram) -> (ExitStatus, Vec<i64>) {
    let outcome = Action::new(&["./raw"]).file("raw", 0o755, &program.build()).run();
    (outcome.exit.status, results(&outcome.stdout_bytes))
}

#[track_caller]
fn check(calls: &[(libc::c_long, &[u64], i64)]) {
    let program = calls.iter().fold(RawProgram::new(), |program, (number, arguments, _)| {
        program.call(*number as u64, arguments)
    });
    let (status, found) = run(program);
    assert_eq!(status, ExitStatus::Code(0));
    let expected: Vec<i64> = calls.iter().map(|(_, _, expected)| *expected).collect();
    assert_eq!(found, expected, "{calls:?}");
}

#[test]
fn what_no_build_needs_is_refused() {
    check(&[
        (libc::SYS_mount, &[], EPERM),
        (libc::SYS_umount2, &[], EPERM),
        (libc::SYS_pivot_root, &[], EPERM),
        (libc::SYS_chroot, &[], EPERM),
        (libc::SYS_open_tree, &[], EPERM),
        (libc::SYS_move_mount, &[], EPERM),
        (libc::SYS_fsopen, &[], EPERM),
        (libc::SYS_fsconfig, &[], EPERM),
        (libc::SYS_fsmount, &[], EPERM),
        (libc::SYS_fspick, &[], EPERM),
        (libc::SYS_mount_setattr, &[], EPERM),
        (libc::SYS_setns, &[], EPERM),
        (libc::SYS_bpf, &[], EPERM),
        (libc::SYS_perf_event_open, &[], EPERM),
        (libc::SYS_io_uring_setup, &[], ENOSYS),
        (libc::SYS_io_uring_enter, &[], ENOSYS),
        (libc::SYS_io_uring_register, &[], ENOSYS),
        (libc::SYS_userfaultfd, &[], EPERM),
        (libc::SYS_add_key, &[], ENOSYS),
        (libc::SYS_request_key, &[], ENOSYS),
        (libc::SYS_keyctl, &[], ENOSYS),
        (libc::SYS_open_by_handle_at, &[], EPERM),
        (libc::SYS_fanotify_init, &[], EPERM),
        (libc::SYS_kexec_load, &[], EPERM),
        (libc::SYS_init_module, &[], EPERM),
        (libc::SYS_finit_module, &[], EPERM),
        (libc::SYS_delete_module, &[], EPERM),
        (libc::SYS_reboot, &[], EPERM),
        (libc::SYS_swapon, &[], EPERM),
        (libc::SYS_acct, &[], EPERM),
        (libc::SYS_quotactl, &[], EPERM),
        (libc::SYS_syslog, &[], EPERM),
        (libc::SYS_sethostname, &[], EPERM),
        (libc::SYS_settimeofday, &[], EPERM),
        (libc::SYS_clock_settime, &[], EPERM),
        (libc::SYS_clone3, &[], ENOSYS),
    ]);
}

#[test]
fn namespaces_are_refused_by_their_flags() {
    for flag in
        [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000_u64]
    {
        check(&[
            (libc::SYS_unshare, &[flag], EPERM),
            (libc::SYS_clone, &[flag | 17], EPERM),
            // The kernel looks at the lower half of the flags only.
            (libc::SYS_clone, &[flag | 17 | 1 << 32], EPERM),
        ]);
    }
    check(&[(libc::SYS_unshare, &[0x400], 0)]);
}

#[test]
fn sockets_of_odd_families_are_refused() {
    const EAFNOSUPPORT: i64 = -97;
    const EPROTONOSUPPORT: i64 = -93;
    const RAW: u64 = 3;
    check(&[
        (libc::SYS_socket, &[1, 1, 0], 3),
        (libc::SYS_socket, &[16, RAW, 0], 4),
        (libc::SYS_socket, &[16, RAW, 12], EPROTONOSUPPORT),
        (libc::SYS_socket, &[16, RAW, 4], EPROTONOSUPPORT),
        (libc::SYS_socket, &[17, RAW, 0], EAFNOSUPPORT),
        (libc::SYS_socket, &[38, 5, 0], EAFNOSUPPORT),
        (libc::SYS_socket, &[40, 1, 0], EAFNOSUPPORT),
        (libc::SYS_socket, &[31, 1, 0], EAFNOSUPPORT),
        (libc::SYS_socket, &[2, 1, 132], EPROTONOSUPPORT),
        (libc::SYS_socket, &[2, 1, 262], EPROTONOSUPPORT),
        // Allowed by the filter, refused by the kernel.
        (libc::SYS_socket, &[2, RAW, 1], EPERM),
    ]);
}

#[test]
fn identities_can_not_be_changed() {
    // An identity that its namespace does not know is not even valid.
    const EINVAL: i64 = -22;
    check(&[
        (libc::SYS_setuid, &[0], EPERM),
        (libc::SYS_setgid, &[0], EPERM),
        (libc::SYS_setresuid, &[0, 0, 0], EPERM),
        (libc::SYS_setfsuid, &[0], 65534),
        (libc::SYS_setfsuid, &[65534], 65534),
        (libc::SYS_setuid, &[1000], EINVAL),
        (libc::SYS_setuid, &[65534], 0),
        (libc::SYS_setgroups, &[0, 0], EPERM),
    ]);
}

#[test]
fn pid_1_can_not_be_traced_but_children_can() {
    const ATTACH: u64 = 16;
    const SEIZE: u64 = 0x4206;
    check(&[
        (libc::SYS_ptrace, &[ATTACH, 1], EPERM),
        (libc::SYS_ptrace, &[SEIZE, 1], EPERM),
        (libc::SYS_process_vm_readv, &[1], 0),
        (libc::SYS_kill, &[1, 9], EPERM),
        (libc::SYS_ptrace, &[0], 0),
    ]);
}

#[test]
fn personalities_and_terminals_are_limited() {
    const EBADF: i64 = -9;
    check(&[
        (libc::SYS_personality, &[0xffff_ffff], 0),
        (libc::SYS_personality, &[0x40_0000], EPERM),
        (libc::SYS_personality, &[0x4_0000], 0),
        (libc::SYS_ioctl, &[99, 0x5412], EPERM),
        (libc::SYS_ioctl, &[99, 0x5401], EBADF),
    ]);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_32_bit_table_is_no_way_around() {
    let program = RawProgram::new()
        .call_i386(20, &[]) // getpid
        .call_i386(21, &[]) // mount
        .call_i386(52, &[]) // umount2
        .call_i386(22, &[]) // umount
        .call_i386(102, &[1, 0]) // socketcall
        .call_i386(359, &[38, 5, 0]) // socket
        .call_i386(310, &[0x1000_0000]) // unshare
        .call_i386(357, &[]) // bpf
        .call_i386(425, &[]); // io_uring_setup
    match run(program) {
        (ExitStatus::Signal(11), _) => eprintln!("skipped: this kernel runs no 32-bit programs"),
        found => assert_eq!(
            found,
            (ExitStatus::Code(0), vec![2, EPERM, EPERM, EPERM, ENOSYS, -97, EPERM, EPERM, ENOSYS])
        ),
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_x32_table_is_no_way_around() {
    const X32: libc::c_long = 0x4000_0000;
    check(&[(X32 | libc::SYS_getpid, &[], ENOSYS), (X32 | libc::SYS_mount, &[], ENOSYS)]);
}

#[test]
fn new_calls_and_shared_quotas_are_absent() {
    const EOPNOTSUPP: i64 = -95;
    const ESOCKTNOSUPPORT: i64 = -94;
    check(&[
        (470, &[], ENOSYS),
        (600, &[], ENOSYS),
        (libc::SYS_io_setup, &[], ENOSYS),
        (libc::SYS_sync, &[], 0),
        (libc::SYS_socket, &[2, 5, 0], ESOCKTNOSUPPORT),
        (libc::SYS_socket, &[2, 10, 0], ESOCKTNOSUPPORT),
        (libc::SYS_sendto, &[1, 0, 0, 1], EOPNOTSUPP),
        (libc::SYS_ioctl, &[0, 0x5423], EPERM),
    ]);
    Action::sh("grep -c ' devpts .*max=64' /proc/mounts").run().expect_stdout("1");
}

/// PTRACE_TRACEME makes PID 1 the tracer, which is told of every signal before it is delivered.
#[test]
fn a_traced_action_is_not_taken_for_dead() {
    const SIGWINCH: u64 = 28;
    check(&[(libc::SYS_ptrace, &[0], 0), (libc::SYS_kill, &[0, SIGWINCH], 0)]);
}

/// F_SETFL changes the open file description, which actions of a helper used to share.
#[test]
fn standard_input_is_opened_anew() {
    const F_GETFL: u64 = 3;
    const F_SETFL: u64 = 4;
    const O_NONBLOCK: u64 = 0x800;
    let pool = sandbox::Pool::new(crate::support::config());
    for _ in 0..3 {
        let mut sandbox = pool.acquire(&crate::support::TOOLS).unwrap();
        let program = RawProgram::new()
            .call(libc::SYS_fcntl as u64, &[0, F_GETFL])
            .call(libc::SYS_fcntl as u64, &[0, F_SETFL, O_NONBLOCK])
            .build();
        let action = Action::new(&["./raw"]).file("raw", 0o755, &program);
        let found = results(&action.run_in(&mut sandbox).unwrap().stdout_bytes);
        assert_eq!(found[0] as u64 & O_NONBLOCK, 0);
        assert_eq!(found[1], 0);
        pool.release(sandbox);
    }
}
