"""`unitrain prune`: from a trained run to one of a smaller model, fine-tuned if asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends import load_backend
from unitrain.backends.contract import Batchable, Settings
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.data.preprocess import Preprocessing
from unitrain.graph.graph import Graph
from unitrain.graph.passes import Array, Weights
from unitrain.graph.passes.fold import fold_batch_norm
from unitrain.graph.passes.importance import Importance
from unitrain.graph.passes.magnitude import Pattern, magnitude_masks, sparsity_of
from unitrain.graph.passes.magnitude import Scope as WeightScope
from unitrain.graph.passes.prune_channels import Group, Scope, prune_channels
from unitrain.graph.respell import spec_of
from unitrain.spec.errors import InputError
from unitrain.spec.pruning import PruningSpec
from unitrain.train.distillation import taught_by
from unitrain.train.events import Observer, RunEnd
from unitrain.train.fit import fit, starting_from, write_description
from unitrain.train.measures import Measures
from unitrain.train.plan import Batches
from unitrain.train.recipe import LoadedRecipe
from unitrain.train.run_folder import RunFolder
from unitrain.train.session import Place, batchable, load_run, prepare_data, settings
from unitrain.weights.store import load_weights


@dataclass(frozen=True)
class PruneOptions:
    """What is done to a model, in this order.

    Parameters
    ----------
    structured
        Fraction of the channels that go; None for none.
    multiple, importance, scope
        As in `prune_channels`.
    batches
        Training batches for the importance ``taylor``.
    sparsity, pattern, weight_scope
        As in `prune_magnitude`; None for neither.
    fold
        Whether batch norm is folded in the end.
    """

    structured: float | None = None
    multiple: int = 16
    importance: Importance = "l1"
    scope: Scope = "group"
    batches: int = 8
    sparsity: float | None = None
    pattern: Pattern | None = None
    weight_scope: WeightScope = "layer"
    fold: bool = False


@dataclass(frozen=True)
class Cost:
    """What a model costs: numbers in its trainable parameters, those that are not 0, multiply-accumulates a sample."""

    parameters: int
    nonzero: int
    macs: int

    @classmethod
    def of(cls, graph: Graph, weights: Weights) -> Cost:
        """Count."""
        trained = [weights[name] for name in graph.trainable]
        return cls(
            sum(array.size for array in trained), sum(int(np.count_nonzero(array)) for array in trained), graph.macs
        )


@dataclass(frozen=True)
class PruneResult:
    """What came of it.

    Parameters
    ----------
    folder
        The run folder of the smaller model.
    before, after
        What the model costs.
    groups
        Channels that were chosen from.
    sparsities
        Fraction of zeros in each kernel, where single weights were pruned.
    notes
        What was left, and why.
    part
        The part of the data that was measured, or empty.
    values
        What was measured: of the model as it was, ``pruned``, and ``fine-tuned``.
    end
        How fine-tuning ended, if it was asked for.
    """

    folder: RunFolder
    before: Cost
    after: Cost
    groups: tuple[Group, ...]
    sparsities: dict[str, float]
    notes: tuple[str, ...]
    part: str = ""
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: RunEnd | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return JSON values."""
        plain = {name: value for name, value in asdict(self).items() if name not in ("folder", "end")}
        return {"run_folder": str(self.folder.path), **plain, "end": self.end and self.end.reason}


def prune_run(
    run: str | Path,
    options: PruneOptions,
    *,
    finetune: int | None = None,
    distill: bool = False,
    lr: float | None = None,
    backend: str | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    observers: Sequence[Observer] = (),
) -> PruneResult:
    """Prune the model of a run, and leave a run folder that can be measured, exported and trained on like any other.

    Parameters
    ----------
    run
        The run folder of the trained model.
    options
        What is done.
    finetune
        Epochs of training behind it; None for none. Weights that have become zero stay zero.
    distill
        Whether the run's own model teaches, with the temperature and share that the recipe or an override says.
    lr
        Its learning rate; by default the run's, with its schedule over the new epochs: what has lost half of its
        channels has to learn anew, and a small rate stops short (Renda et al. 2020, learning-rate rewinding).
    backend, device, out, overrides, observers
        As in `fit`.

    Raises
    ------
    InputError
        The folder is no run, an option is wrong, or nothing is to be done.
    """
    if options.structured is None and options.sparsity is None and options.pattern is None and not options.fold:
        raise InputError("nothing is to be done", allowed="--structured, --sparsity, --pattern or --fold")
    if distill and finetune is None:
        raise InputError("a teacher teaches in fine-tuning", found="--distill", hint="--finetune EPOCHS")
    source = RunFolder.open(Path(run))
    loaded = load_run(source, overrides)
    place = Place.choose(loaded, backend, device, training=finetune is not None)
    kept = load_weights(source.weights, loaded.graph)
    before, notes = Cost.of(loaded.graph, kept), list[str]()
    graph, groups = loaded.graph, tuple[Group, ...]()
    weights: dict[str, Array] = dict(kept)
    if options.structured is not None:
        gradients = list(loss_gradients(loaded, weights, options.batches)) if options.importance == "taylor" else ()
        pruned = prune_channels(
            graph, weights, options.structured, options.multiple, options.importance, options.scope, gradients
        )
        graph, weights, groups = pruned.graph, pruned.weights, pruned.groups
        notes += pruned.notes
    sparse = options.sparsity is not None or options.pattern is not None
    if sparse:
        masks, left = magnitude_masks(graph, weights, options.sparsity or 0.0, options.weight_scope, options.pattern)
        weights = {name: array * masks[name] if name in masks else array for name, array in weights.items()}
        notes += left
    if options.fold:
        folded = fold_batch_norm(graph, weights)
        graph, weights = folded.graph, folded.weights
        notes += folded.notes
    smaller = _with_model(loaded, graph, finetune, lr, sparse)
    if distill:
        spec = taught_by(source.path, smaller.recipe.distillation)
        smaller = replace(smaller, recipe=smaller.recipe.model_copy(update={"distillation": spec}))
    measured = _Measured.of(source, loaded, place)
    values = {
        "before": measured(loaded, kept),
        "pruned": measured(smaller, weights),
    }
    end = None
    if finetune is None:
        folder = _keep(smaller, place, measured, weights, out, values["pruned"])
    else:
        result = fit(
            smaller, backend=place.backend.name, device=place.device, out=out, observers=observers, initial=weights
        )
        folder, end = result.folder, result.end
        values["fine-tuned"] = dict(end.test or end.validation)
        weights = load_weights(folder.weights, graph) if folder.weights.is_file() else weights
    return PruneResult(
        folder,
        before,
        Cost.of(graph, weights),
        groups,
        sparsity_of(graph, weights) if sparse else {},
        (*notes, *measured.notes),
        measured.part,
        {name: found for name, found in values.items() if found},
        end,
    )


def loss_gradients(loaded: LoadedRecipe, weights: Weights, batches: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield the gradients of a recipe's loss by the parameters for some training batches, as inference computes.

    On NumPy in float32, so that what is pruned does not depend on the backend.
    """
    prepared = prepare_data(loaded)
    data = batchable(prepared.train)
    spec, recipe = loaded.recipe.training, loaded.recipe
    cut = Batches(len(data), spec.batch_size, shuffle=True, seed=recipe.seed)
    program = load_backend("numpy").compile(loaded.graph, weights, Settings(seed=recipe.seed))
    losses, xp = Measures.of(loaded, prepared.preprocessing).losses, NumpyNamespace()
    order = cut.order(0)
    for batch in range(min(batches, cut.batches_per_epoch)):
        rows = order[batch * spec.batch_size : (batch + 1) * spec.batch_size]
        inputs = {name: array[rows] for name, array in data.inputs.items()}
        weight = None if data.weight is None else data.weight[rows]
        outputs, by_output = program.predict(inputs), {}
        for name, predicted in outputs.items():
            by_output[name] = np.zeros_like(predicted)
            if name in losses:
                factor, loss = losses[name]
                given = (xp, predicted, data.targets[name][rows], weight)
                _, denominator = loss.terms(*given)
                if denominator != 0:
                    by_output[name] = factor * loss.gradient(*given) / denominator
        yield program.differentiate(inputs, by_output, training=False)[2]


def _with_model(
    loaded: LoadedRecipe, graph: Graph, finetune: int | None, lr: float | None, sparse: bool
) -> LoadedRecipe:
    """Return the recipe with the smaller model, and with what fine-tuning changes."""
    recipe, spec = loaded.recipe, spec_of(graph)
    about = {"description": loaded.model.description, "source": loaded.model.source}
    model = spec.model_copy(update={**about, "name": loaded.model.name})
    changes: dict[str, Any] = {"model": model, "initial_weights": None}
    if sparse or recipe.pruning is not None:
        changes["pruning"] = PruningSpec()
    if finetune is not None:
        if finetune < 1:
            raise InputError("fine-tuning takes an epoch or more", field=("finetune",), found=str(finetune))
        if lr is not None and lr <= 0.0:
            raise InputError("a learning rate is positive", field=("lr",), found=str(lr))
        if lr is not None:
            changes["optimizer"] = recipe.optimizer.model_copy(update={"lr": lr})
        changes["training"] = recipe.training.model_copy(update={"epochs": finetune, "max_steps": None})
    return replace(loaded, recipe=recipe.model_copy(update=changes), model=model, graph=graph, document=None)


@dataclass(frozen=True)
class _Measured:
    """Measures models on a run's test data, else its validation data, if they are there."""

    place: Place
    preprocessing: Preprocessing
    part: str
    data: Batchable | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, source: RunFolder, loaded: LoadedRecipe, place: Place) -> _Measured:
        """Read the data; that it cannot be read is a note."""
        preprocessing = Preprocessing.from_plain(source.read_json(source.preprocessing))
        try:
            prepared = prepare_data(loaded, preprocessing)
        except InputError as error:
            return cls(place, preprocessing, "", None, (f"nothing is measured: {error.problems[0].message}",))
        for part, split in (("test", prepared.test), ("validation", prepared.validation)):
            if split is not None and len(split):
                return cls(place, preprocessing, part, batchable(split), ())
        return cls(place, preprocessing, "", None, ("nothing is measured: the data has no test or validation part",))

    def __call__(self, loaded: LoadedRecipe, weights: Weights) -> dict[str, Any]:
        """Return loss and metrics."""
        if self.data is None:
            return {}
        program = self.place.backend.compile(loaded.graph, weights, settings(loaded, self.place))
        measures = Measures.of(loaded, self.preprocessing)
        return measures.evaluator(loaded.recipe.training.evaluation_batch_size).evaluate(program, self.data)


def _keep(
    loaded: LoadedRecipe,
    place: Place,
    measured: _Measured,
    weights: Weights,
    out: str | Path | None,
    values: dict[str, Any],
) -> RunFolder:
    """Write the run folder of a model that is not trained any further."""
    folder = RunFolder.create(None if out is None else Path(out), loaded.recipe.name, place.backend.name)
    with folder.locked():
        write_description(folder, starting_from(folder.initial, weights, loaded), place, measured.preprocessing)
        folder.keep_weights(weights)
        parts = {part: values if part == measured.part else {} for part in ("validation", "test")}
        end = RunEnd("pruned", "pruned, not trained since", 0, 0, 0.0, None, parts["validation"], parts["test"])
        folder.write_json(folder.result, asdict(end))
    return folder
