"""A slice of the fuzzing that needs no fuzzer: its seeds, and some thousand seeded mutations of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.corpus import packed, seeds, unpacked, write_seeds
from tests.fuzz.mutations import garbled, reshaped
from tests.fuzz.oracle import try_one


def test_the_seeds_hold() -> None:
    """All that holds of any answer holds of those that the fuzzing begins with."""
    for seed in seeds():
        try_one(seed)


@pytest.mark.parametrize("mutated", [garbled, reshaped])
def test_random_changes_hold(mutated: Callable[[random.Random, bytes], bytes]) -> None:
    """All that holds of any answer holds after random changes of it, the same ones in each run."""
    chance, known = random.Random(2611), seeds()
    for _ in range(5_000):
        data = mutated(chance, chance.choice(known))
        try:
            try_one(data)
        except Exception as error:
            raise AssertionError(f"broken by {data!r}") from error


def test_an_input_is_an_answer() -> None:
    """An answer survives the form that the fuzzer changes, and any bytes are an answer in it."""
    headers = {"retry-after": "7", "x-request-id": "a: b"}
    assert unpacked(packed(503, headers, b"a\n\nb")) == (503, headers, b"a\n\nb")
    assert unpacked(b"") == (200, {}, b"")
    assert unpacked(b"9x9\n:\n\n") == (99, {"": ""}, b"")


def test_the_seeds_are_written(tmp_path: Path) -> None:
    """The fuzzer finds the seeds as files."""
    write_seeds(tmp_path / "corpus")
    assert {file.read_bytes() for file in (tmp_path / "corpus").iterdir()} == set(seeds())
