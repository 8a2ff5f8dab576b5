"""Files as results: a picture and a sound that any program opens, drawn from a seed. Pure; used by `_kinds`."""

from __future__ import annotations

import io
import math
import struct
import wave
import zlib
from array import array
from collections.abc import Callable
from random import Random

from attrs import frozen

_SAMPLE_RATE = 16_000  # Hz
_NOTES = 4
# Five notes of an octave, of which any four in any order are a tune: semitones above the A below middle C.
_SCALE = [0, 3, 5, 7, 10]


@frozen
class File:
    """A file of a task's result. It is made when it is asked for, the same each time."""

    name: str
    content_type: str
    make: Callable[[], bytes]


def picture(width: int, height: int, seed: str) -> bytes:
    """A PNG of so many pixels: four waves that cross each other, in colours that run into each other.

    It is made row by row, in whole numbers as wide as a row: a pixel at a time would hold up the loop for a second.
    """
    chance = Random(seed)

    def wave_along(length: int) -> bytes:
        # 0 to 63 for each pixel: the sum of four is a byte without a carry into the next one.
        period, phase = chance.uniform(0.3, 1.5) * max(width, height), chance.random()
        return bytes(round(31.5 + 31.5 * math.sin(math.tau * (n / period + phase))) for n in range(length))

    across, down = int.from_bytes(wave_along(width)), wave_along(height)
    slash, backslash = wave_along(width + height), wave_along(width + height)
    ones = int.from_bytes(bytes([1]) * width)
    rows = bytearray()
    for y in range(height):
        diagonals = int.from_bytes(slash[y : y + width]) + int.from_bytes(backslash[height - y : height - y + width])
        rows += b"\0" + (across + down[y] * ones + diagonals).to_bytes(width)  # 0: the row is as it is, unfiltered
    # An image of one byte a pixel, which is an index into the colours.
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"PLTE", _colours(chance)), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def sound(seed: str) -> bytes:
    """A WAV of one second, mono, 16 bits: four notes, each of which fades."""
    chance = Random(seed)
    samples = array("h")
    length = _SAMPLE_RATE // _NOTES
    for _ in range(_NOTES):
        turn = math.tau * 220 * 2 ** (chance.choice(_SCALE) / 12 + chance.randint(0, 1)) / _SAMPLE_RATE
        overtone = chance.uniform(0.1, 0.5)
        for n in range(length):
            # From silence to silence, so that nothing clicks.
            loudness = min(n / 100, 1) * (1 - n / length) ** 2
            samples.append(round(20_000 * loudness * (math.sin(n * turn) + overtone * math.sin(2 * n * turn))))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(_SAMPLE_RATE)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def _colours(chance: Random) -> bytes:
    """256 colours, red, green and blue each, that change little from one to the next."""
    swings = [(chance.choice([1, 1, 2]), chance.random()) for _ in range(3)]
    return bytes(
        round(127.5 + 127.5 * math.sin(math.tau * (times * n / 256 + phase)))
        for n in range(256)
        for times, phase in swings
    )
