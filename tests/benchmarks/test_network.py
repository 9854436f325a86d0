"""Addresses in the output of strace."""

from __future__ import annotations

from benchmarks.network import outside

INSIDE = """\
12 connect(3, {sa_family=AF_UNIX, sun_path="/run/nscd"}, 110) = -1 ENOENT (No such file or directory)
12 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
12 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), \
inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = 0
12 sendto(4, "\\24\\0", 20, 0, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 20
12 sendto(5, "x", 1, MSG_NOSIGNAL, NULL, 0) = 1
12 read(3, "connect to 192.0.2.1", 20) = 20
"""
OUTSIDE = """\
12 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16) = 0
12 sendto(3, "q", 1, 0, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), \
inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = 1
"""


def test_only_addresses_of_other_machines_are_reported() -> None:
    assert outside(INSIDE.splitlines()) == (5, [])
    assert outside(OUTSIDE.splitlines()) == (2, OUTSIDE.splitlines())
