"""Turns a checkpoint into a safetensors file of its weights alone, or such a file back into a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pcdet.cli.ending import run
from pcdet.config import ConfigError
from pcdet.engine.checkpoint import save_checkpoint
from pcdet.utils.checkpoint_reader import read_checkpoint
from pcdet.utils.safetensors_io import SUFFIX, write_safetensors
from pcdet.utils.weights import model_state_of

FACTS = ("version", "epoch", "it", "config")


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: export(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", required=True, help="checkpoint or safetensors file to read")
    parser.add_argument("--out", required=True, help="file to write; .safetensors or .pth, its ending says which")
    parser.add_argument("--config", help="name of the model file, kept in the metadata")
    return parser.parse_args(argv)


def export(args: argparse.Namespace) -> None:
    """Writes ``--out``."""
    out = Path(args.out)
    if out.suffix not in (SUFFIX, ".pth"):
        raise ConfigError(f"--out: {out} must end in {SUFFIX} or .pth")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out: there is no folder {out.parent}; make it first")
    state = read_checkpoint(args.ckpt)
    weights = model_state_of(state, args.ckpt)
    facts = {name: state.get(name) for name in FACTS} | ({"config": args.config} if args.config else {})
    if out.suffix == SUFFIX:
        write_safetensors(out, weights, facts)
    else:
        save_checkpoint({**facts, "model_state": dict(weights), "optimizer_state": None}, out)
    print(f"{len(weights)} tensors of {args.ckpt} written to {out}")
