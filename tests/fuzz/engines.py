"""Where inputs come from: mutated bytes, coverage-guided bytes (atheris), structure (hypothesis), random cases."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz.mutate import MAX_SIZE, mutated
from fuzz.outcome import Outcome
from fuzz.target import Target

MAX_CORPUS = 300  # files of which mutations are made
EXAMPLES = 200  # of hypothesis, between two seeds
CRASHES_OF_LIBFUZZER = ("segv", "bus", "abrt", "ill", "fpe", "int", "term", "xfsz", "usr1", "usr2")


def engines_of(target: Target, *, atheris: bool | None = None) -> list[str]:
    """The engines that suit a target; atheris in place of our own mutations where it is installed."""
    names = []
    if target.seeds is not None:
        names.append("atheris" if (has_atheris() if atheris is None else atheris) else "bytes")
    if target.structure is not None:
        names.append("hypothesis")
    if target.draw is not None:
        names.append("random")
    return names


def has_atheris() -> bool:
    """Whether coverage can guide the bytes on this version of Python."""
    return importlib.util.find_spec("atheris") is not None


def _tried_seeds(target: Target, tester: Callable) -> list[Outcome]:
    """What comes of the seeds, which are tried first: without one that is accepted, an engine shows nothing."""
    return [tester(data) for data in (target.seeds() if target.seeds is not None else ())]


def run_bytes(target: Target, tester: Callable, seed: str, folder: Path) -> None:
    """Mutates the target's seeds; what gives a new kind of outcome is mutated further."""
    rng = random.Random(seed)
    corpus = list(target.seeds())
    seen = {outcome.shape for outcome in _tried_seeds(target, tester)}
    while True:
        data = mutated(rng, corpus, target.tokens)
        shape = tester(data).shape
        if shape not in seen:
            seen.add(shape)
            corpus.append(data)
            if len(corpus) > MAX_CORPUS:
                del corpus[rng.randrange(len(corpus))]


def warm_up() -> None:
    """Does once what hypothesis would do again in every child: a quarter of a second each."""
    import hypothesis

    @hypothesis.settings(database=None, max_examples=5, deadline=None)
    @hypothesis.given(hypothesis.strategies.text() | hypothesis.strategies.floats())
    def examine(data):
        pass

    examine()


def run_hypothesis(target: Target, tester: Callable, seed: str, folder: Path) -> None:
    """Draws structured inputs, with a new seed every so often."""
    import hypothesis

    _tried_seeds(target, tester)
    strategy = target.structure()
    settings = hypothesis.settings(
        database=None,
        max_examples=EXAMPLES,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    rng = random.Random(seed)
    while True:

        @hypothesis.seed(rng.getrandbits(64))
        @settings
        @hypothesis.given(strategy)
        def examine(data):
            tester(data)

        examine()


def run_random(target: Target, tester: Callable, seed: str, folder: Path) -> None:
    """Draws one case after the other."""
    rng = random.Random(seed)
    while True:
        tester(target.draw(rng))


def run_atheris(target: Target, tester: Callable, seed: str, folder: Path) -> None:
    """Lets libFuzzer mutate the seeds, guided by the lines of Python that they reach."""
    import atheris

    _tried_seeds(target, tester)
    for function in _functions(target.modules):
        atheris.instrument_func(function)
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, data in enumerate(target.seeds()):
        (corpus / f"seed{i}").write_bytes(data)
    words = folder / "words"
    words.write_text("".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in token)}"\n' for token in target.tokens))
    options = [f"-handle_{name}=0" for name in CRASHES_OF_LIBFUZZER]
    options += [f"-seed={random.Random(seed).getrandbits(31) + 1}", f"-max_len={MAX_SIZE}", "-rss_limit_mb=0"]
    options += ["-timeout=1000000", f"-dict={words}", "-verbosity=0", "-reload=0", "-len_control=20"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: tester(data) and None)
    atheris.Fuzz()


def _functions(prefixes) -> Iterator[types.FunctionType]:
    """Functions and methods of the loaded modules under these prefixes, each once."""
    seen = set()
    for name, module in list(sys.modules.items()):
        if module is None or not any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes):
            continue
        owners = [module, *(v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name)]
        for value in (value for owner in owners for value in list(vars(owner).values())):
            value = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(value, types.FunctionType) and value.__module__ == name and value.__code__ not in seen:
                seen.add(value.__code__)
                yield value


SEEDED = ("bytes", "atheris", "hypothesis")  # the engines that begin with the seeds
ENGINES = {"bytes": run_bytes, "atheris": run_atheris, "hypothesis": run_hypothesis, "random": run_random}


def leave(code: int = 0) -> None:
    """Ends a child at once, with what it has written flushed: libFuzzer and Python would add to the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
