"""A study, on optuna, that several workers share through a database or a journal file.

A trial whose worker stopped or died fails, and is replaced by a new trial with the same settings. Workers agree without
locks: the storage numbers trials one by one, and every worker derives the same result from the numbers.
"""

import math
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from cnnkit.core.device import mix_seed
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.experiment.sweep.space import Space
from cnnkit.experiment.sweep.storage import StudyError, one_line, open_storage

__all__ = ["PrunerName", "Study", "TakenOver", "attempts"]

PrunerName = Literal["median", "hyperband", "none"]

PRUNERS: dict[PrunerName, type[BasePruner]] = {"median": MedianPruner, "hyperband": HyperbandPruner, "none": NopPruner}
BEAT_SECONDS = 15  # between heartbeats of a worker
STALE_SECONDS = 90  # without a heartbeat, after which a worker counts as dead
IMPORTANCE_TRIALS = 10  # fewest finished trials for importances
MAX_DEATHS = 3  # of workers in the same epoch of a trial, after which it is not retried


class TakenOver(Exception):
    """Another worker considered this one dead and took over its trial."""


class Study:
    """The study `name` of `total` trials, created or joined.

    `about` holds the settings that are searched; joining a study with other settings raises UsageError.
    """

    def __init__(
        self, storage: str, name: str, total: int, seed: int, pruner: PrunerName, about: dict[str, Any]
    ) -> None:
        self.total, self.seed, self.others = total, seed, 0
        self._where, self._storage = open_storage(storage)
        self._beats: dict[int, tuple[int, float]] = {}
        with self._storage_errors():
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=PRUNERS[pruner](),
            )
            self._join(about)

    def claim(self) -> Trial | None:
        """Return the next trial for this worker, or None if none is left; `others` counts running trials."""
        with self._storage_errors():
            while True:
                current = attempts(self._study.get_trials(deepcopy=False), self.total)
                if gone := [trial for trial in current if trial.state == TrialState.RUNNING and self._is_gone(trial)]:
                    self._give_up(gone[0])
                    continue
                again = [trial for trial in current if trial.state == TrialState.FAIL and trial.user_attrs.get("again")]
                self.others = sum(trial.state == TrialState.RUNNING for trial in current)
                if not again and len(current) == self.total:
                    return None
                if trial := self._begin(again[0] if again else None):
                    return trial

    @contextmanager
    def held(self, trial: Trial) -> Iterator[None]:
        """Send heartbeats for the trial while the block runs."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(trial._trial_id, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def suggest(self, trial: Trial, space: Space) -> dict[str, Any]:
        """Return the trial's values for the space."""
        with self._storage_errors():
            return {name: dimension.suggest(trial, name) for name, dimension in space.items()}

    def note(self, trial: Trial, **attributes: Any) -> None:
        """Store attributes with the trial."""
        with self._storage_errors():
            for name, value in attributes.items():
                trial.set_user_attr(name, value)

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Report the value of an epoch, and return whether to prune the trial."""
        with self._storage_errors():
            trial.report(value, epoch)
            return trial.should_prune()

    def end(self, trial: Trial, state: TrialState, value: float | None = None, **attributes: Any) -> FrozenTrial:
        """End the trial in this state, store its attributes, and retry it if `again` is one of them that is true."""
        self.note(trial, **attributes)
        with self._storage_errors():
            ended = self._study.tell(trial, value, state, skip_if_finished=True)
        if ended.state != state:
            raise TakenOver
        return ended

    def results(self) -> list[FrozenTrial]:
        """Return the trials that count, in order."""
        with self._storage_errors():
            return attempts(self._study.get_trials(), self.total)

    def importances(self) -> dict[str, float]:
        """Return the importance of each setting, with sum 1 (PED-ANOVA; Watanabe et al., 2023); {} for few trials."""
        with self._storage_errors(), warnings.catch_warnings(action="ignore"):
            if len(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < IMPORTANCE_TRIALS:
                return {}
            found = optuna.importance.get_param_importances(
                self._study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        return {name: share for name, share in found.items() if math.isfinite(share)}

    def _join(self, about: dict[str, Any]) -> None:
        known = self._study.user_attrs.get("about")
        if known is None and self._study.get_trials(deepcopy=False):
            raise UsageError(
                f"{self._where} has a study {self._study.study_name!r} of another program: choose another --name"
            )
        if known is None:
            self._study.set_user_attr("about", about)
        elif changed := sorted(key for key in known.keys() | about.keys() if known.get(key) != about.get(key)):
            raise UsageError(
                f"the study {self._study.study_name!r} in {self._where} was started with different settings "
                f"({', '.join(changed)}); use the same ones, or another --name"
            )

    def _begin(self, before: FrozenTrial | None) -> Trial | None:
        """Start a trial, as a retry of `before` if given; return None if another worker was faster."""
        attributes: dict[str, Any] = {}
        if before:
            attributes = {name: before.user_attrs[name] for name in ("run", "deaths") if name in before.user_attrs}
            attributes |= {"of": before.number, "epochs": before.last_step or 0}
        template = optuna.create_trial(
            state=TrialState.RUNNING,
            system_attrs={"fixed_params": before.params if before else {}},
            user_attrs=attributes,
        )
        trial_id = self._storage.create_new_trial(
            self._storage.get_study_id_from_name(self._study.study_name), template
        )
        for place, trial in enumerate(attempts(self._study.get_trials(deepcopy=False), self.total)):
            if trial._trial_id == trial_id:
                # seeded by position, so that an interrupted study resumes as if uninterrupted
                self._study.sampler = TPESampler(seed=mix_seed(self.seed, place), constant_liar=True)
                return Trial(self._study, trial_id)
        self._storage.set_trial_user_attr(trial_id, "surplus", True)
        self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        return None

    def _give_up(self, trial: FrozenTrial) -> None:
        known = trial.user_attrs
        deaths = 1 + (0 if (trial.last_step or 0) > known.get("epochs", 0) else known.get("deaths", 0))
        reason = f"its worker sent no heartbeat for {STALE_SECONDS:g} seconds"
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another worker was faster
            for name, value in {"reason": reason, "deaths": deaths, "again": deaths < MAX_DEATHS}.items():
                self._storage.set_trial_user_attr(trial._trial_id, name, value)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _is_gone(self, trial: FrozenTrial) -> bool:
        """Return whether the trial's worker has been silent for STALE_SECONDS, by this worker's own clock."""
        beat, now = trial.user_attrs.get("beat", 0), time.monotonic()
        last, since = self._beats.setdefault(trial.number, (beat, now))
        if last != beat:
            self._beats[trial.number] = beat, now
        return last == beat and now - since > STALE_SECONDS

    def _beat(self, trial_id: int, done: threading.Event) -> None:
        for beat in count(1):
            if done.wait(BEAT_SECONDS):
                break
            with suppress(Exception):  # the next heartbeat may succeed
                self._storage.set_trial_user_attr(trial_id, "beat", beat)
        self._storage.remove_session()

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise TakenOver from error
        except CnnkitError:
            raise
        except Exception as error:  # of the storage or its content
            raise StudyError(
                f"the study in {self._where} cannot be used: {one_line(error)}; run the same command to resume it"
            ) from error


def attempts(trials: Sequence[FrozenTrial], total: int) -> list[FrozenTrial]:
    """Return the first `total` trials, each replaced by its latest retry.

    If two workers start a retry of the same trial at once, the first counts.
    """
    current: list[FrozenTrial] = []
    places: dict[int, int] = {}
    for trial in trials:
        before = trial.user_attrs.get("of")
        if before is None and len(current) < total and not trial.user_attrs.get("surplus"):
            places[trial.number] = len(current)
            current.append(trial)
        elif before in places:
            place = places[trial.number] = places.pop(before)
            current[place] = trial
    return current
