"""A slow and lossy network inside of one network namespace, where the kernel may have no netem.

A TUN device has the address HERE. Packets to THERE come to this program, which drops some, keeps the others for a while,
and gives them back with source and destination exchanged. So a connection to THERE reaches the server that listens on the same
port of HERE, and each of its packets travels once through the delay and the loss, in both directions. Exchanged addresses leave
all checksums right.
"""

import argparse
import collections
import fcntl
import os
import random
import struct
import subprocess
import threading
import time

HERE, THERE = "192.0.2.1", "192.0.2.2"
DEVICE = "slow"

# From linux/if_tun.h.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

# Packets that are under way, as of a router: what comes beyond is lost.
UNDER_WAY_MAX = 10_000


def device():
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    for words in (f"addr add {HERE}/24 dev {DEVICE}", f"link set {DEVICE} up txqueuelen 10000"):
        subprocess.run(["ip", *words.split()], check=True)
    return tun


def exchanged(packet):
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--round-trip-ms", type=float, required=True)
    parser.add_argument("--loss-percent", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    delay, loss = arguments.round_trip_ms / 2000, arguments.loss_percent / 100
    tun, lots = device(), random.Random(arguments.seed)
    under_way, arrived = collections.deque(), threading.Semaphore(0)

    def deliver():
        while True:
            arrived.acquire()
            due, packet = under_way.popleft()
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            os.write(tun, packet)

    threading.Thread(target=deliver, daemon=True).start()
    print("ready", flush=True)
    while True:
        packet = os.read(tun, 65536)
        # IPv4 only: the device also says hello in IPv6.
        if packet[0] >> 4 != 4 or lots.random() < loss or len(under_way) >= UNDER_WAY_MAX:
            continue
        under_way.append((time.monotonic() + delay, exchanged(packet)))
        arrived.release()


main()
