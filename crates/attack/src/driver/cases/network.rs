//! Ways to other machines, to servers of the host, and to odd protocols.

use crate::case::{Case, calls, program};

const NO_FAMILY: &str = "EAFNOSUPPORT";
const NO_PROTOCOL: &str = "EPROTONOSUPPORT";
const NO_TYPE: &str = "ESOCKTNOSUPPORT";
const NO_FLAG: &str = "EOPNOTSUPP";

pub(super) const CASES: &[Case] = &[
    program("a-server-of-the-host", &["connect", "127.0.0.1:{port}"]).prints("ECONNREFUSED"),
    program("a-server-of-the-host-by-any-address", &["connect", "0.0.0.0:{port}"])
        .prints("ECONNREFUSED"),
    program("actiond-itself", &["connect", "{server}"]).prints("ECONNREFUSED"),
    program("the-internet", &["connect", "1.1.1.1:80"]).prints("ENETUNREACH"),
    program("the-internet-by-its-new-protocol", &["connect", "[2606:4700:4700::1111]:80"])
        .prints("ENETUNREACH"),
    program("a-neighbour", &["connect", "10.0.0.1:22"]).prints("ENETUNREACH"),
    program("a-clouds-metadata", &["connect", "169.254.169.254:80"]).prints("ENETUNREACH"),
    program("an-abstract-name-of-the-host", &["connect-abstract", "{abstract}"])
        .prints("ECONNREFUSED"),
    program("a-socket-file-of-the-host", &["connect-path", "{socket}"]).prints("ENOENT"),
    calls("the-hypervisor", "socket 40 1 0").fails(NO_FAMILY),
    calls("raw-packets-of-all-interfaces", "socket 17 3 0x300").fails(NO_FAMILY),
    calls("the-kernels-ciphers", "socket 38 5 0").fails(NO_FAMILY),
    calls("the-kernels-keys", "socket 15 3 2").fails(NO_FAMILY),
    calls("bluetooth", "socket 31 3 0").fails(NO_FAMILY),
    calls("express-data-path", "socket 44 3 0").fails(NO_FAMILY),
    calls("clusters", "socket 30 1 0").fails(NO_FAMILY),
    calls("multiplexed-connections", "socket 41 5 0").fails(NO_FAMILY),
    calls("a-pair-of-an-odd-family", "socketpair 30 1 0 &8").fails(NO_FAMILY),
    calls("raw-internet-packets", "socket 2 3 255").fails("EPERM|EPROTONOSUPPORT"),
    calls("raw-icmp", "socket 2 3 1").fails("EPERM"),
    calls("sctp", "socket 2 1 132").fails(NO_PROTOCOL),
    calls("multipath-tcp", "socket 2 1 262").fails(NO_PROTOCOL),
    calls("netlink-audit", "socket 16 3 9").fails(NO_PROTOCOL),
    calls("netlink-netfilter", "socket 16 3 12").fails(NO_PROTOCOL),
    calls("netlink-diagnosis", "socket 16 3 4").fails(NO_PROTOCOL),
    calls("netlink-events", "socket 16 3 15").fails(NO_PROTOCOL),
    calls("tls-in-the-kernel", "socket 2 1 0 ; setsockopt $1 6 31 'tls' 4").fails("EPERM"),
    calls("a-filter-on-a-socket", "socket 2 2 0 ; setsockopt $1 1 26 &16 16").fails("EPERM"),
    calls("packets-of-all-interfaces-as-internet", "socket 2 10 0x300").fails(NO_TYPE),
    calls("sctp-by-the-default-protocol", "socket 2 5 0").fails(NO_TYPE),
    calls("dccp-by-the-default-protocol", "socket 2 6 0").fails(NO_TYPE),
    calls("urgent-data", "socket 2 1 0 ; sendto $1 'x' 1 1 0 0").fails(NO_FLAG),
    calls("urgent-data-in-a-message", "socket 1 1 0 ; sendmsg $1 &56 1").fails(NO_FLAG),
    calls("reading-urgent-data", "socket 1 1 0 ; recvfrom $1 &1 1 1 0 0").fails(NO_FLAG),
    calls("reading-an-urgent-message", "socket 1 1 0 ; recvmsg $1 &56 1").fails(NO_FLAG),
    calls("ipsec-over-udp", "socket 2 2 0 ; setsockopt $1 17 100 #02000000 4").fails("EPERM"),
    calls("l2tp-over-udp", "socket 10 2 0 ; setsockopt $1 17 100 #03000000 4").fails("EPERM"),
    // Labels are counted for the whole machine, and stay for a minute after their socket.
    calls("a-flow-label", "socket 10 2 0 ; setsockopt $1 41 32 &32 32").fails("EPERM"),
    calls("look-at-a-vlan", "socket 2 2 0 ; ioctl $1 0x8982 &128").fails("EPERM"),
    calls("make-a-vlan", "socket 2 2 0 ; ioctl $1 0x8983 &128").fails("EPERM"),
    calls("make-a-bridge", "socket 2 2 0 ; ioctl $1 0x89a0 'bridge'").fails("EPERM"),
    calls("take-a-bridge-away", "socket 2 2 0 ; ioctl $1 0x89a1 'bridge'").fails("EPERM"),
    calls("a-bpf-filter-on-a-socket", "socket 2 2 0 ; setsockopt $1 1 50 &4 4").fails("EPERM"),
];
