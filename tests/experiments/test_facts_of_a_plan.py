"""What results.json says of the machine."""

import pytest

from pcdet.cli.experiment import facts_of


@pytest.mark.parametrize("on_cores", [True, False])
def test_the_processor_and_its_precision_are_facts_of_runs_on_cores_alone(on_cores):
    """They are those of the machine that started the jobs; a GPU or a node of a cluster has others."""
    facts = facts_of(on_cores=on_cores)
    assert {"processor", "precision", "threads"} & facts.keys() == (
        {"processor", "precision", "threads"} if on_cores else set()
    )
    assert facts["versions"].keys() == {"python", "torch", "numpy"}
