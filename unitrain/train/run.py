"""A run put together from its recipe: data read, program compiled, trainer ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from unitrain.backends.contract import Arrays, Program
from unitrain.data.prepared import Prepared
from unitrain.graph.graph import Graph
from unitrain.spans import active, span
from unitrain.spec.errors import InputError
from unitrain.spec.execution import ExecutionSpec
from unitrain.spec.schedules import PlateauSchedule
from unitrain.spec.training import TrainingSpec
from unitrain.train.checkpoint import Checkpoint
from unitrain.train.checkpoints import BackgroundWriter
from unitrain.train.distillation import Distillation
from unitrain.train.events import Observer, RunEnd, RunStart
from unitrain.train.feed import Augment, Named, in_memory
from unitrain.train.interrupt import interruptible
from unitrain.train.measures import Measures
from unitrain.train.memory import answered
from unitrain.train.plan import Batches
from unitrain.train.pruner import Pruner
from unitrain.train.recipe import LoadedRecipe
from unitrain.train.report import write_report
from unitrain.train.run_folder import MetricsLog, RunFolder
from unitrain.train.schedules import make_schedule
from unitrain.train.session import (
    Place,
    averaged_weights,
    batchable,
    count_samples,
    make_update,
    prepare_data,
    setting_notes,
    settings,
    starting_weights,
)
from unitrain.train.tracking import trackers
from unitrain.train.trainer import Trainer
from unitrain.train.tuner import Tuner
from unitrain.train.tuning import choose
from unitrain.train.tuning_cache import KnownTrials
from unitrain.train.update import AVERAGE, Update
from unitrain.weights.initialize import check_weights
from unitrain.weights.random import stream


@dataclass
class Run:
    """A run put together and ready to start: data read, program compiled, nothing written yet."""

    loaded: LoadedRecipe
    place: Place
    prepared: Prepared
    program: Program
    trainer: Trainer
    measures: Measures
    start: RunStart
    tuner: Tuner
    execution: str | None
    checkpoint: Checkpoint | None = None

    @classmethod
    def assemble(
        cls,
        loaded: LoadedRecipe,
        place: Place,
        *,
        checkpoint: Checkpoint | None = None,
        execution: ExecutionSpec | None = None,
        initial: Arrays | None = None,
        observers: Sequence[Observer] = (),
    ) -> Run:
        """Read the data, compile the program, and take up a checkpoint if there is one.

        ``execution`` and ``initial``, weights to start from, stand in the place of the recipe's.
        """
        recipe, graph = loaded.recipe, loaded.graph
        with span("prepare data"):
            prepared = prepare_data(loaded)
        _check_validation(loaded, prepared)
        data = batchable(prepared.train)
        update = make_update(loaded)
        try:
            measures = Measures.of(loaded, prepared.preprocessing)
            measures.check(graph, data)
        except InputError as error:
            raise loaded.locate(error) from None
        if checkpoint is not None:
            _check_checkpoint(graph, update, checkpoint)
        weights = checkpoint.weights if checkpoint is not None else initial or starting_weights(loaded)
        chosen, rule = settings(loaded, place), measures.rule(update)
        augment, teach = _augmentation(recipe.seed, prepared), None
        distillation = Distillation.of(loaded, place, prepared.preprocessing)
        if distillation is not None:
            rule = distillation.rule(rule)
            if augment is None and in_memory(data):
                data = distillation.taught(data)
            else:
                # Of batches that change the teacher sees what the model sees; forms cannot be tried without it.
                teach = distillation.teach
                execution = (execution or recipe.execution).model_copy(update={"mode": "fixed"})
        spec = recipe.training
        batches = Batches(len(data), spec.batch_size, spec.accumulate, spec.drop_last, spec.shuffle, recipe.seed)
        with span("choose execution"):
            tuner = Tuner(
                place.backend, graph, weights, chosen, rule, update, data, batches, _planned_steps(spec, batches)
            )
            try:
                with answered(spec):
                    choice = choose(execution or recipe.execution, tuner, KnownTrials())
            except InputError as error:
                raise loaded.locate(error) from None
        with span("build program"):
            program = place.backend.compile(graph, weights, replace(chosen, execution=choice.candidate), rule)
        if checkpoint is not None:
            program.load_slots(checkpoint.slots)
        steps = batches.updates_per_epoch
        monitored = measures.metric(getattr(recipe.schedule, "monitor", None))
        schedule = make_schedule(
            recipe.schedule,
            recipe.optimizer.lr,
            steps,
            steps * spec.epochs,
            higher_is_better=monitored is not None and monitored.higher_is_better,
        )
        trainer = Trainer(
            program,
            update,
            schedule,
            data,
            batches,
            spec,
            validate=_validation(loaded, place, program, prepared, measures),
            metrics={item.label: item.metric for item in measures.metrics},
            augment=augment,
            teach=teach,
            pruner=_pruner(loaded, steps),
            observers=observers,
        )
        start = RunStart(
            recipe.name,
            place.backend.name,
            place.device,
            spec.epochs,
            batches.batches_per_epoch,
            len(data),
            count_samples(prepared.validation),
            graph.parameter_count(trainable=True),
            (*prepared.report.lines(), *setting_notes(loaded, place), *choice.lines()),
            0 if checkpoint is None else checkpoint.state.epoch,
            spec.precision,
        )
        return cls(loaded, place, prepared, program, trainer, measures, start, tuner, choice.candidate, checkpoint)

    def train(self, folder: RunFolder) -> RunEnd:
        """Train, keep checkpoints in ``folder``, and measure the test part with the kept weights."""
        trainer = self.trainer
        keep_last = self.loaded.recipe.training.keep_last
        trainer.keeper = keeper = BackgroundWriter(lambda checkpoint: folder.keep(checkpoint, keep_last))
        if self.checkpoint is not None:
            folder.checkpoints.forget_after(self.checkpoint.state.batches)
        trainer.observers = [MetricsLog(folder), *trackers(self.loaded.recipe, folder), *trainer.observers]
        try:
            with span("display and logs"):
                for observer in trainer.observers:
                    observer.on_start(self.start)
            with interruptible() as interrupted, _watched(self):
                trainer.interrupted = interrupted
                end = trainer.run(None if self.checkpoint is None else self.checkpoint.state)
                with span("checkpoint"):
                    keeper.close()
            with span("keep and measure the result"):
                end = self._finish(folder, end)
            for observer in trainer.observers:
                observer.on_end(end)
        finally:
            for observer in trainer.observers:
                observer.close()
            # After an error that ends the run, one of writing is not worth a second message.
            with suppress(InputError):
                keeper.close()
        with span("write report"):
            _report(folder, self.prepared)
        return end

    def _finish(self, folder: RunFolder, end: RunEnd) -> RunEnd:
        """Keep the weights that the run gives; unless it broke off, measure validation and test with them."""
        weights = None if end.reason == "not finite" else averaged_weights(self.program)
        if self.trainer.state.best_step is not None:
            best = folder.checkpoints.load(self.trainer.state.best_step)
            weights = {**best.weights, **best.slots.get(AVERAGE, {})}
        if weights is not None:
            folder.keep_weights(weights)
        how = {
            "interrupted": f"go on with: unitrain fit --resume {folder.path}",
            "terminated": f"go on with: unitrain fit --resume {folder.path}",
            "not finite": "try a smaller learning rate, or clip gradients with optimizer.clip_norm",
        }.get(end.reason)
        if how is not None or weights is None:
            return replace(end, message=f"{end.message}; {how}")
        self.program.load_weights(weights)
        evaluator = self.measures.evaluator(self.loaded.recipe.training.evaluation_batch_size)
        parts = {
            part: {} if split is None else evaluator.evaluate(self.program, batchable(split))
            for part, split in (("validation", self.prepared.validation), ("test", self.prepared.test))
        }
        baseline = {
            part: evaluator.measure(split.naive, batchable(split))
            for part, split in (("validation", self.prepared.validation), ("test", self.prepared.test))
            if split is not None and set(split.naive) == set(self.loaded.losses)
        }
        return replace(end, validation=parts["validation"], test=parts["test"], baseline=baseline)


def _watched(run: Run) -> AbstractContextManager[None]:
    """Record what the program does, if anybody records; nothing is imported or exchanged otherwise."""
    recorder = active()
    if recorder is None:
        return nullcontext()
    from unitrain.train.profile import watched

    return watched(recorder, run.place.backend.name, run.program)


def _report(folder: RunFolder, prepared: Prepared) -> None:
    """Write the report where the extra for it is installed; a run is whole without one."""
    classes = next((names for names in prepared.classes.values() if names), ())
    with suppress(InputError):
        write_report(folder, [str(name) for name in classes])


def _planned_steps(spec: TrainingSpec, batches: Batches) -> int:
    """Return how many steps a run takes at most."""
    steps = batches.batches_per_epoch * spec.epochs
    return steps if spec.max_steps is None else min(steps, spec.max_steps * spec.accumulate)


def _check_validation(loaded: LoadedRecipe, prepared: Prepared) -> None:
    """Refuse a recipe that waits for validation values and has no validation part."""
    recipe = loaded.recipe
    waits = {
        ("training", "early_stopping"): recipe.training.early_stopping is not None,
        ("schedule", "type"): isinstance(recipe.schedule, PlateauSchedule),
    }
    for field, waiting in waits.items():
        if waiting and prepared.validation is None:
            error = InputError(
                "this needs a validation part of the data",
                field=field,
                hint="give one with data.split.validation",
            )
            raise loaded.locate(error)


def _check_checkpoint(graph: Graph, update: Update, checkpoint: Checkpoint) -> None:
    """See that weights and optimizer state are those of this model and optimizer."""
    problems = check_weights(graph, checkpoint.weights)
    if problems:
        raise InputError(f"the checkpoint does not fit the model: {problems[0]}")
    trainable = {name: checkpoint.weights[name].shape for name in graph.trainable}
    found = {slot: {name: array.shape for name, array in arrays.items()} for slot, arrays in checkpoint.slots.items()}
    if trainable and found != dict.fromkeys(update.slots, trainable):
        raise InputError(
            "the checkpoint's optimizer state does not fit the recipe's optimizer",
            found=", ".join(found) or "none",
            allowed=", ".join(update.slots) or "none",
            hint="a run goes on with the optimizer it was begun with",
        )


def _validation(
    loaded: LoadedRecipe, place: Place, program: Program, prepared: Prepared, measures: Measures
) -> Callable[[], dict[str, Any]] | None:
    """Return what measures the validation part, with the moving average of the weights where one is kept."""
    if prepared.validation is None:
        return None
    data = batchable(prepared.validation)
    evaluator = measures.evaluator(loaded.recipe.training.evaluation_batch_size)
    if AVERAGE not in make_update(loaded).slots:
        return lambda: evaluator.evaluate(program, data)
    averaged = place.backend.compile(loaded.graph, program.weights(), settings(loaded, place))

    def validate() -> dict[str, Any]:
        averaged.load_weights(averaged_weights(program))
        return evaluator.evaluate(averaged, data)

    return validate


def _pruner(loaded: LoadedRecipe, updates_per_epoch: int) -> Pruner | None:
    """Return what lets weights become zero while the recipe trains, or None."""
    recipe = loaded.recipe
    if recipe.pruning is None:
        return None
    updates = updates_per_epoch * recipe.training.epochs
    try:
        return Pruner(recipe.pruning, min(updates, recipe.training.max_steps or updates))
    except InputError as error:
        raise loaded.locate(error) from None


def _augmentation(seed: int, prepared: Prepared) -> Augment | None:
    """Return the augmentation of a batch, each batch with a generator of its own, or None."""
    augmenter = prepared.augmenter
    if augmenter is None:
        return None

    def augment(inputs: Named, targets: Named, batch: int) -> tuple[Named, Named]:
        with span("augment"):
            # Two generators that draw the same: a mask moves as its image does.
            changed = augmenter(inputs, stream(seed, "augment", batch))
            return changed, augmenter.moved_masks(targets, stream(seed, "augment", batch))

    return augment
