"""The fuzzer of the codec: `python -m tests.fuzz.codec -max_total_time=600` (other libFuzzer options work too).

Needs Atheris (the dependency group `fuzz`). What it learns is kept in `.fuzz/corpus` and used the next time; an input
that broke a promise is kept in `.fuzz` by its hash: pass its path as an argument to see it break again.
"""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path

from tests.fuzz.corpus import write_seeds
from tests.fuzz.mutations import TOKENS, reshaped

HOME = Path(".fuzz")


def main() -> None:
    """Fuzz until the time is over or a promise is broken."""
    atheris = importlib.import_module("atheris")
    # What the fuzzer steers by has to be imported under its eyes, and so not at the top of this module.
    with atheris.instrument_imports(include=["distribute_async", "cattrs", "email"]):
        try_one = importlib.import_module("tests.fuzz.oracle").try_one

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        # Bytes changed at random are hardly ever JSON: half of the changes are of the JSON itself.
        chance = random.Random(seed)
        changed = reshaped(chance, data) if chance.random() < 0.5 else data
        return changed if changed != data and len(changed) <= most else bytes(atheris.Mutate(data, most))

    corpus, words = HOME / "corpus", HOME / "words"
    write_seeds(corpus)
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in TOKENS))
    inputs = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    options = [f"-artifact_prefix={HOME}/", f"-dict={words}", "-max_len=16384", "-timeout=20"]
    atheris.Setup([*sys.argv, *options, *([] if inputs else [str(corpus)])], try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
