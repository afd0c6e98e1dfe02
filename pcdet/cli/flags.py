"""Flags that several commands have."""

from __future__ import annotations

import argparse

from pcdet.engine.dist import LAUNCHERS
from pcdet.engine.precision import AMP_DTYPES


def common_parser(description: str) -> argparse.ArgumentParser:
    """Flags of training and testing alike."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cfg_file", required=True, help="model file, such as cfgs/kitti_models/pointpillar.yaml")
    add("--batch_size", type=int, help="samples over all processes; OPTIMIZATION.BATCH_SIZE_PER_GPU each if left out")
    add("--workers", type=int, default=4, help="loader processes per process")
    add("--extra_tag", default="default", help="last part of the output folder")
    add(
        "--output_dir",
        help="output folder, taken as it is; if left out, output/<group>/<config>/<extra_tag> in the repository, or in "
        "the working directory of an installed package, and plain/ in it for train.py on a file with a KD block",
    )
    add("--ckpt", help="checkpoint to start from")
    add("--pretrained_model", help="weights; test.py lays them over --ckpt")
    add("--launcher", choices=LAUNCHERS, default="none")
    add("--tcp_port", type=int, default=18888, help="slurm only; torchrun finds its own")
    add("--local_rank", "--local-rank", type=int, help="for old launchers; the environment counts")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, help="CPU threads per process; one where several processes run, else all CPUs")
    add_precision_flags(parser)
    add("--start_epoch", type=int, default=0, help="evaluate no earlier epoch")
    add("--max_waiting_mins", type=float, default=0, help="wait this long for further checkpoints before ending")
    add("--save_to_file", action="store_true", help="write one result file a frame")
    return parser


def add_precision_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that :meth:`Precision.choose` follows."""
    add = parser.add_argument
    add("--use_amp", action="store_true", help="mixed precision, where the machine has arithmetic for it")
    auto = "auto: fp16 on a GPU, bf16 on a CPU that has instructions for it, else float32"
    add("--amp_dtype", choices=AMP_DTYPES, default="auto", help=f"type of --use_amp; {auto}; bf16 insists")
    add("--channels_last", action="store_true", help="channels-last feature maps, whatever the precision")


def add_set_flag(parser: argparse.ArgumentParser) -> None:
    """``--set`` takes the rest of the line, so it is added last."""
    parser.add_argument("--set", dest="set_cfgs", nargs=argparse.REMAINDER, help="KEY.SUB value ...; must come last")
