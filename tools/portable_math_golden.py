#!/usr/bin/env python3
"""Prints the hash that engine/sampler_test.cc expects of PortableExp and PortableLog: the same double
arithmetic, written a second time in Python (IEEE doubles, no contraction)."""
import struct

LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
SQRT2 = float.fromhex("0x1.6a09e667f3bcdp+0")


def bits(x):
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def from_bits(b):
    return struct.unpack("<d", struct.pack("<Q", b))[0]


def portable_exp(x):
    n = int(x * LOG2_E - 0.5)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    total = 1.0
    for k in range(13, 0, -1):
        total = 1.0 + total * r / k
    return total * from_bits((n + 1023) << 52)


def portable_log(x):
    b = bits(x)
    e = (b >> 52) - 1023
    m = from_bits((b & 0xFFFFFFFFFFFFF) | (1023 << 52))
    if m > SQRT2:
        m *= 0.5
        e += 1
    s = (m - 1.0) / (m + 1.0)
    s2 = s * s
    total = 0.0
    for k in range(23, 0, -2):
        total = 1.0 / k + total * s2
    return e * LN2_HIGH + (2.0 * s * total + e * LN2_LOW)


mix = 0
for i in range(1000):
    for value in (portable_exp(-0.037 * i), portable_log(1 + 0.37 * i)):
        mix = ((mix ^ bits(value)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
print(mix)
