"""The study of a search: Optuna's trials, in the sweep's folder or wherever several machines reach them.

A trial says whose it is (user attributes): `sweep` and `folder`, the name and path
of the sweep's folder, `member`, the point's name, and, once it ended, `status`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.monitor import Monitor
from dlx.runs.lock import owner_is_alive
from dlx.sweeps.samplers import make_pruner, make_sampler
from dlx.sweeps.space import Choices, Dimension
from dlx.sweeps.storage import NoStudy, StudyError, clear, open_storage

if TYPE_CHECKING:
    import optuna

FEW_TRIALS = 4  # with fewer, nothing can be said of what is important


class Study:
    """A study in its storage, seen from one sweep. Raises StudyError, with one line, where the storage fails.

    where: the storage, as messages name it. goal: min or max.
    """

    def __init__(self, study: optuna.Study, where: str, sweep: Path) -> None:
        self.study, self.where = study, where
        self.owner = {"sweep": sweep.name, "folder": str(sweep.resolve())}

    @classmethod
    def create(cls, storage: str, where: str, name: str, sweep: Path, *, metric: str, pruner: str) -> Study:
        """A new study, or the one of that name which other sweeps share."""
        optuna = _optuna()
        directions = {"min": "minimize", "max": "maximize"}
        with clear(where):
            study = optuna.create_study(
                storage=open_storage(storage),
                study_name=name,
                direction=directions[Monitor.parse(metric).goal],
                sampler=optuna.samplers.RandomSampler(),
                pruner=make_pruner(pruner),
                load_if_exists=True,
            )
            study.set_user_attr("metric", metric)
        return cls(study, where, sweep)

    @classmethod
    def load(cls, storage: str, where: str, name: str, sweep: Path, *, pruner: str = "none") -> Study:
        """A study that is there."""
        optuna = _optuna()
        with clear(where):
            try:
                study = optuna.load_study(
                    storage=open_storage(storage, is_there=True),
                    study_name=name,
                    sampler=optuna.samplers.RandomSampler(),
                    pruner=make_pruner(pruner),
                )
            except KeyError:
                raise NoStudy(f"{where}: has no study {name}") from None
        return cls(study, where, sweep)

    def check(self, dimensions: Sequence[Dimension], metric: str) -> None:
        """Raises StudyError where the trials that are there search something else. Bounds may differ."""
        import optuna

        name = self.study.study_name
        with clear(self.where):
            trials, theirs = self.study.get_trials(deepcopy=False), self.study.user_attrs.get("metric")
        if theirs != metric:
            raise StudyError(f"--study {name}: is about {theirs or 'something else'}, not {metric}; name another")
        own = {dimension.key: dimension.distribution for dimension in dimensions}
        for key, distribution in {key: d for trial in trials for key, d in trial.distributions.items()}.items():
            if key not in own:
                raise StudyError(f"--study {name}: searches {key}, which is not here; name another")
            try:
                optuna.distributions.check_distribution_compatibility(distribution, own[key])
            except ValueError:
                raise StudyError(
                    f"--study {name}: searches {key} in {distribution}, which {own[key]} does not go with; name another"
                ) from None

    def fail_lost(self) -> None:
        """Trials whose owner is gone do not stay "running": this sweep's (whoever calls this owns it now), and those
        of other sweeps whose folders are seen from here. Heartbeats of Optuna's own are for databases only."""
        import optuna

        running = (optuna.trial.TrialState.RUNNING,)
        with clear(self.where):
            for trial in self.study.get_trials(deepcopy=False, states=running):
                folder = trial.user_attrs.get("folder")
                is_own = trial.user_attrs.get("sweep") == self.owner["sweep"]
                if is_own or (folder and Path(folder).is_dir() and not owner_is_alive(Path(folder))):
                    self._end(trial.number, "lost")

    def ask(self, dimensions: Sequence[Dimension], sampler: str, seed: int) -> tuple[int, dict[str, Any]]:
        """A new trial's number, and its values by key.

        Each trial has a sampler of its own, seeded by its number: a resumed search does not draw again what was drawn,
        and machines that share a study draw different things.
        """
        import optuna

        with clear(self.where):
            begun = self._begin({}, {}, {})
            self.study.sampler = make_sampler(sampler, seed, begun.number)
            trial = optuna.trial.Trial(self.study, begun._trial_id)
            values: dict[str, Any] = {}
            for dimension in dimensions:
                key = dimension.key
                if isinstance(dimension, Choices):
                    values[key] = trial.suggest_categorical(key, dimension.texts)
                elif dimension.whole:
                    low, high, step = int(dimension.low), int(dimension.high), int(dimension.step) or 1
                    values[key] = trial.suggest_int(key, low, high, step=step, log=dimension.log)
                else:
                    value = trial.suggest_float(
                        key, dimension.low, dimension.high, step=dimension.step or None, log=dimension.log
                    )
                    values[key] = dimension.exact(value)
        return begun.number, values

    def name(self, number: int, member: str) -> None:
        """Says whose a trial is, so that the member's own process finds it."""
        import optuna

        with clear(self.where):
            optuna.trial.Trial(self.study, self._trial(number)._trial_id).set_user_attr("member", member)

    def again(self, member: str) -> int | None:
        """A new trial for a member whose last one was cut off or failed, with the same values; None where it has ended
        (or never was)."""
        import optuna

        states = optuna.trial.TrialState
        with clear(self.where):
            last = self._last(member)
            if last is None or last.state in (states.COMPLETE, states.PRUNED):
                return None
            if last.user_attrs.get("status") == "diverged":
                return None
            return self._begin({"member": member}, last.params, last.distributions).number

    def tell(self, number: int, status: str, value: float | None) -> None:
        """How a trial ended. value: of a finished one; None or no number: it failed."""
        import optuna

        with clear(self.where):
            trial = self._trial(number)
            if trial.state == optuna.trial.TrialState.RUNNING:
                self._end(number, status, value)
                return
            # Another machine took this sweep for dead: the trial is told anew.
            again = self._begin({"member": trial.user_attrs.get("member")}, trial.params, trial.distributions)
            self._end(again.number, status, value)

    def report(self, member: str, values: Mapping[int, float]) -> bool:
        """What a running member has reached, by the number of the validation. Returns whether others did better."""
        import optuna

        with clear(self.where):
            last = self._last(member)
            if last is None or last.state != optuna.trial.TrialState.RUNNING:
                return False
            trial = optuna.trial.Trial(self.study, last._trial_id)
            for step, value in values.items():
                if step not in last.intermediate_values:
                    trial.report(value, step)
            return bool(trial.should_prune())

    def importance(self) -> dict[str, float]:
        """The share of each key in what the trials' values differ by, the largest first; empty where too little is
        known. By fANOVA (Hutter et al. 2014): of 20 random trials of a function that one key decides to 95 %, it finds
        95 to 98 %, Optuna's default (PED-ANOVA) 40 to 96 %."""
        import optuna

        with clear(self.where):
            done = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
            if len(done) < FEW_TRIALS or len(done[0].params) < 2:
                return {}
            try:
                evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
                shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
                return {key: round(float(share), 4) for key, share in shares.items()} if len(shares) > 1 else {}
            except (ValueError, RuntimeError):  # all values are the same
                return {}

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        with clear(self.where):
            return self.study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> optuna.trial.FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _last(self, member: str) -> optuna.trial.FrozenTrial | None:
        own = {"sweep": self.owner["sweep"], "member": member}
        found = [t for t in self.study.get_trials(deepcopy=False) if own.items() <= t.user_attrs.items()]
        return found[-1] if found else None

    def _begin(self, attributes: Mapping[str, Any], values: Any, distributions: Any) -> optuna.trial.FrozenTrial:
        """A running trial that has its owner from the first moment: `Study.ask` would give it one later, and may take a
        trial that waits for somebody else."""
        import optuna

        state = optuna.trial.TrialState.RUNNING
        token = secrets.token_hex(8)
        attributes = {**self.owner, **attributes, "token": token}
        trial = optuna.trial.create_trial(
            state=state, params=dict(values), distributions=dict(distributions), user_attrs=attributes
        )
        self.study.add_trial(trial)
        running = self.study.get_trials(deepcopy=False, states=(state,))
        return next(trial for trial in running if trial.user_attrs.get("token") == token)

    def _end(self, number: int, status: str, value: float | None = None) -> None:
        import optuna

        states = optuna.trial.TrialState
        state = {"finished": states.COMPLETE, "pruned": states.PRUNED}.get(status, states.FAIL)
        if state == states.COMPLETE and (value is None or value != value):
            state = states.FAIL
        optuna.trial.Trial(self.study, self._trial(number)._trial_id).set_user_attr("status", status)
        self.study.tell(number, value if state == states.COMPLETE else None, state, skip_if_finished=True)


def _optuna() -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # It says at each search by gp that it is slower without greenlet.
    logging.getLogger("optuna._gp.batched_lbfgsb").setLevel(logging.ERROR)
    return optuna
