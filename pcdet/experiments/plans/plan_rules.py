"""Rules of a plan that its trainings would break silently, or its results in the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

# Flags of a training that the plan writes itself; another value among FLAGS would come last, and count for every run.
WRITTEN_FLAGS = ("--cfg_file", "--output_dir", "--epochs", "--seed", "--ckpt_save_interval", "--teacher_ckpt")
REFUSED_FLAGS = {
    "--ckpt": "every run would go on from one checkpoint",
    "--skip_eval": "no run would have a score",
    "--set": "costs would be measured without it, and flags behind it would be lost; set it in the model files",
}
# Form of the tables -> the key that it needs.
NEEDED = {"ablation": "PARTS", "sensitivity": "SETTINGS"}
TIMES = "_s"  # how keys of results.json end that are times


def flag_problems(flags: Sequence[str]) -> list[str]:
    """Flags, shortened as argparse takes them or not, that a plan cannot have."""
    refused = {**dict.fromkeys(WRITTEN_FLAGS, "the plan writes this itself"), **REFUSED_FLAGS}
    problems = []
    for flag in flags:
        name = flag.partition("=")[0]
        wrong = [full for full in refused if name.startswith("--") and full.startswith(name)]
        problems += [f"FLAGS: {flag} is not for plans: {refused[full]}; remove it" for full in wrong[:1]]
    return problems


def result_problems(names: Mapping[str, Collection[str]], table: str, given: Mapping[str, Collection]) -> list[str]:
    """What the results could not be written with, after all trainings.

    Args:
        names: of what is trained, by their key in the plan.
        table: the form of the tables.
        given: what the plan gives for forms that need more, by its key.
    """
    problems = [
        f"{key}.{name}: a name must not end in {TIMES}, which marks times in results.json; use another name"
        for key, group in names.items()
        for name in group
        if name.endswith(TIMES)
    ]
    needed = NEEDED.get(table)
    if needed and not given[needed]:
        problems.append(f"{needed}: TABLE: {table} needs it, for a row a method; add it, or take another TABLE")
    return problems
