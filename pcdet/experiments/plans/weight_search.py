"""The search for a method's weight: trials of an Optuna study in a file, so that a killed plan goes on with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


class WeightSearch:
    """One study for each method, all in one journal.

    Every factor of the plan is tried once, so that all methods get the same search. What a killed plan had begun is
    taken up again.

    Args:
        journal: the file.
        factors: what is tried.
    """

    def __init__(self, journal: Path, factors: Sequence[float]):
        import optuna  # takes a second to import, which only plans should pay

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal.parent.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        self._optuna, self._storage = optuna, optuna.storages.JournalStorage(backend)
        self.factors = list(factors)

    def ask(self, name: str) -> dict[float, int]:
        """Factor -> number of its trial, for all factors; trials that are running or done keep theirs."""
        study = self._study(name)
        for factor in self.factors:
            study.enqueue_trial({"factor": factor}, skip_if_exists=True)
        distribution = self._optuna.distributions.CategoricalDistribution(self.factors)
        waiting = self._optuna.trial.TrialState.WAITING
        for _ in study.get_trials(deepcopy=False, states=(waiting,)):
            study.ask({"factor": distribution})  # begins the first that waits
        # What was asked for, not "params": those are written a moment later, and a kill may lie between the two.
        trials = study.get_trials(deepcopy=False)
        numbers = {trial.system_attrs["fixed_params"]["factor"]: trial.number for trial in trials}
        return {factor: numbers[factor] for factor in self.factors}

    def tell(self, name: str, values: Mapping[float, float]) -> float:
        """Takes the value of every factor, and returns the best factor; of equal ones the smaller.

        The journal keeps the first value that it was told of a trial.
        """
        study, numbers = self._study(name), self.ask(name)
        finished = {t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()}
        for factor, number in numbers.items():
            if number not in finished:
                study.tell(number, values[factor])
        return min(self.factors, key=lambda factor: (-values[factor], factor))

    def _study(self, name: str):
        # A study's choices cannot change: other factors are another study.
        name = f"{name}, factors {', '.join(f'{factor:.6g}' for factor in self.factors)}"
        return self._optuna.create_study(
            storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
        )
