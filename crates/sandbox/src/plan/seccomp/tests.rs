use sys::call::Instruction;

use super::assemble::{Part, RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, filter};
use super::interpret::{CallData, interpret};
use super::policy::{LAST_REVIEWED, POLICY, Rule, SET_UP};
use super::table::Architecture;

const ALL: [Architecture; 3] = [Architecture::X86_64, Architecture::I386, Architecture::Aarch64];

/// A part of the filter of the machine that runs programs of `architecture`.
fn filter_for(part: Part, architecture: Architecture) -> Vec<Instruction> {
    let native = match architecture {
        Architecture::Aarch64 => Architecture::Aarch64,
        Architecture::X86_64 | Architecture::I386 => Architecture::X86_64,
    };
    filter(part, native)
}

fn ask_part(part: Part, architecture: Architecture, number: u32, arguments: [u64; 6]) -> u32 {
    let data = CallData { architecture: architecture.audit_number(), number, arguments };
    interpret(&filter_for(part, architecture), &data).0
}

/// The answer of the kernel, which asks both filters and takes the stricter one (seccomp(2)).
fn ask(architecture: Architecture, number: u32, arguments: [u64; 6]) -> u32 {
    let ask = |part| ask_part(part, architecture, number, arguments);
    let (inherited, own) = (ask(Part::Inherited), ask(Part::Own));
    let strictness = |answer: u32| (answer & 0xffff_0000) as i32;
    if strictness(inherited) < strictness(own) { inherited } else { own }
}

/// The rules of both filters.
fn both() -> impl Iterator<Item = &'static (&'static str, &'static Rule)> {
    POLICY.iter().chain(SET_UP)
}

fn refused(errno: u32) -> u32 {
    RET_ERRNO | errno
}

#[test]
fn every_name_of_the_policy_is_a_system_call_and_occurs_once() {
    for (index, (name, _)) in both().enumerate() {
        assert!(ALL.iter().any(|architecture| architecture.number(name).is_some()), "{name}");
        assert!(!both().skip(index + 1).any(|(other, _)| other == name), "{name} twice");
    }
}

#[test]
fn what_is_refused_whatever_the_arguments_is_refused_on_every_architecture() {
    for architecture in ALL {
        for (name, rule) in both() {
            let (Rule::Refuse(errno), Some(number)) = (rule, architecture.number(name)) else {
                continue;
            };
            assert_eq!(
                ask(architecture, number, [0; 6]),
                refused(u32::from(*errno)),
                "{name} {architecture:?}"
            );
        }
    }
}

#[test]
fn all_other_calls_are_allowed_up_to_the_last_that_was_reviewed() {
    for architecture in ALL {
        let listed: Vec<_> = both().filter_map(|(name, _)| architecture.number(name)).collect();
        for number in (0..600).filter(|number| !listed.contains(number)) {
            let expected = if number <= LAST_REVIEWED { RET_ALLOW } else { refused(38) };
            assert_eq!(
                ask(architecture, number, [u64::MAX; 6]),
                expected,
                "{number} {architecture:?}"
            );
        }
    }
}

#[test]
fn foreign_architectures_are_out() {
    for number in [0, 1, 59, 0x4000_0000, u32::MAX] {
        let arm = CallData { architecture: 0x4000_0028, number, arguments: [0; 6] };
        for native in [Architecture::X86_64, Architecture::Aarch64] {
            for part in [Part::Inherited, Part::Own] {
                assert_eq!(interpret(&filter(part, native), &arm).0, RET_KILL_PROCESS);
            }
        }
    }
    for number in [0x4000_0000, 0x4000_0001, 0x4000_0209, u32::MAX] {
        assert_eq!(ask(Architecture::X86_64, number, [0; 6]), refused(38), "x32");
    }
}

#[track_caller]
fn check(name: &str, arguments: &[u64], expected: u32) {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    for architecture in ALL {
        let number = architecture.number(name).unwrap();
        assert_eq!(
            ask(architecture, number, all),
            expected,
            "{name}{arguments:x?} {architecture:?}"
        );
    }
}

#[test]
fn namespaces() {
    // fork, posix_spawn and pthread_create of glibc.
    check("clone", &[0x0120_0011], RET_ALLOW);
    check("clone", &[0x4111], RET_ALLOW);
    check("clone", &[0x003d_0f00], RET_ALLOW);
    for namespace in
        [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
    {
        check("clone", &[namespace | 17], refused(1));
        check("unshare", &[namespace], refused(1));
    }
    check("unshare", &[0x80], refused(1));
    check("unshare", &[0x400], RET_ALLOW);
    check("clone3", &[], refused(38));
}

#[test]
fn sockets() {
    for family in [2, 10] {
        for protocol in [0, 1, 6, 17, 58] {
            check("socket", &[family, 1, protocol], RET_ALLOW);
        }
        for protocol in [33, 115, 132, 136, 255, 256, 262] {
            check("socket", &[family, 1, protocol], refused(93));
        }
    }
    for family in [2, 10] {
        for kind in [4, 5, 6, 10, 0x8_0005, 0x80a] {
            check("socket", &[family, kind, 0], refused(94));
        }
        for kind in [1, 2, 3, 0x8_0801] {
            check("socket", &[family, kind, 0], RET_ALLOW);
        }
    }
    check("socket", &[1, 5, 0], RET_ALLOW);
    check("setsockopt", &[3, 17, 100], refused(1));
    check("setsockopt", &[3, 17, 103], RET_ALLOW);
    check("sendmsg", &[3, 0x7000, 0x4001], refused(95));
    check("sendmsg", &[3, 0x7001, 0x4000], RET_ALLOW);
    for name in ["sendto", "sendmmsg", "recvfrom", "recvmmsg"] {
        check(name, &[3, 0x7001, 1, 1], refused(95));
        check(name, &[3, 0x7001, 1, 0x4000], RET_ALLOW);
    }
    check("socket", &[1, 2, 0], RET_ALLOW);
    check("socket", &[16, 3, 0], RET_ALLOW);
    for protocol in [4, 9, 12, 16] {
        check("socket", &[16, 3, protocol], refused(93));
    }
    for family in [0, 3, 4, 5, 9, 15, 17, 21, 29, 31, 38, 40, 43, 44, 45] {
        check("socket", &[family, 1, 0], refused(97));
    }
    check("socketpair", &[1, 1, 0], RET_ALLOW);
    check("socketpair", &[2, 1, 0], refused(97));
    for option in [26, 50, 51, 52] {
        check("setsockopt", &[3, 1, option], refused(1));
        check("setsockopt", &[3, 6, option], RET_ALLOW);
    }
    check("setsockopt", &[3, 1, 2], RET_ALLOW);
    check("setsockopt", &[3, 6, 31], refused(1));
    check("setsockopt", &[3, 6, 1], RET_ALLOW);
    check("setsockopt", &[3, 41, 31], RET_ALLOW);
    check("setsockopt", &[3, 41, 32], refused(1));
    check("setsockopt", &[3, 41, 33], RET_ALLOW);
}

#[test]
fn the_limit_of_core_files_is_read_and_not_set() {
    const CORE: u64 = 4;
    const OPEN_FILES: u64 = 7;
    check("prlimit64", &[0, CORE, 0, 0x7000_0000], RET_ALLOW);
    for pointer in [0x7000_0000, 1, 1 << 32, u64::MAX] {
        check("prlimit64", &[0, CORE, pointer], refused(0));
        check("prlimit64", &[0, OPEN_FILES, pointer], RET_ALLOW);
    }
    check("setrlimit", &[CORE], refused(0));
    check("setrlimit", &[OPEN_FILES], RET_ALLOW);
}

#[test]
fn personalities_and_terminals() {
    for persona in [0, 8, 0x4_0000, 0x2_0000, 0xffff_ffff] {
        check("personality", &[persona], RET_ALLOW);
    }
    for persona in [0x40_0000, 0x44_0000, 0x10_0000, 1] {
        check("personality", &[persona], refused(1));
    }
    check("ioctl", &[0, 0x5401], RET_ALLOW);
    for command in [0x5412, 0x541c, 0x5423, 0x401c_5820, 0x8982, 0x8983, 0x89a0, 0x89a1] {
        check("ioctl", &[0, command], refused(1));
    }
    // The kernel takes a 32-bit command, so the upper half hides nothing.
    check("ioctl", &[0, 0x1_0000_5412], refused(1));
}

#[test]
fn the_helper_can_make_sandboxes_and_nothing_else_that_is_refused_to_actions() {
    for architecture in ALL {
        let ask = |name: &str| {
            let number = architecture.number(name)?;
            Some(ask_part(Part::Inherited, architecture, number, [u64::MAX; 6]))
        };
        for (name, _) in SET_UP {
            assert!(matches!(ask(name), None | Some(RET_ALLOW)), "{name} {architecture:?}");
        }
        for name in ["bpf", "ptrace", "open_by_handle_at", "init_module", "reboot", "keyctl"] {
            let is_refused = ask(name) != Some(RET_ALLOW);
            assert_eq!(is_refused, name != "ptrace", "{name} {architecture:?}");
        }
    }
}

#[test]
fn a_call_takes_few_instructions() {
    for architecture in ALL {
        let [inherited, own] =
            [Part::Inherited, Part::Own].map(|part| filter_for(part, architecture));
        assert!(inherited.len() < 240, "{architecture:?}: {}", inherited.len());
        // Each action pays for these.
        assert!(own.len() < 80, "{architecture:?}: {}", own.len());
        for number in 0..600 {
            let data = CallData {
                architecture: architecture.audit_number(),
                number,
                arguments: [u64::MAX; 6],
            };
            let steps = interpret(&inherited, &data).1 + interpret(&own, &data).1;
            assert!(steps <= 34, "{number} takes {steps}");
        }
    }
}
