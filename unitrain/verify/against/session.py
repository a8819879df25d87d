"""One verification of a user's own model against a spec, from the two of them to a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.backends.foreign import Foreign, ForeignParameter, Trace
from unitrain.backends.versions import versions
from unitrain.spec.errors import InputError
from unitrain.spec.yaml import Document
from unitrain.verify.against.alignment import Alignment
from unitrain.verify.against.bindings import Bindings, canonical, with_rows
from unitrain.verify.against.comparison import Comparison
from unitrain.verify.against.judging import Judging
from unitrain.verify.against.layouts import Layout
from unitrain.verify.against.loading import user_error
from unitrain.verify.against.places import Place
from unitrain.verify.against.search import Search
from unitrain.verify.against.sections import Expected, undropped
from unitrain.verify.against.weight_map import write_map as write_weight_map
from unitrain.verify.against.weights import bind, check_bound, unfolded
from unitrain.verify.experiments.layers import output_gradients
from unitrain.verify.findings import Report
from unitrain.verify.runner import Cast
from unitrain.verify.subject import Subject

Array = npt.NDArray[Any]
Tell = Callable[[str], None]
LayoutName = Literal["auto", "nhwc", "nchw"]
LAYOUTS: tuple[LayoutName, ...] = ("auto", "nhwc", "nchw")


@dataclass(frozen=True)
class Against:
    """What came of one verification: the report, and the user's weights in canonical form."""

    report: Report
    weights: dict[str, Array]


def verify_against(
    subject: Subject,
    foreign: Foreign,
    *,
    weight_map: Document | None = None,
    write_map: Path | None = None,
    layout: LayoutName = "auto",
    expected_weights: Arrays | None = None,
    source: Path | None = None,
    tell: Tell = lambda message: None,
) -> Against:
    """Hold a user's model to a spec, with the user's weights.

    Parameters
    ----------
    subject
        The spec, its data and losses; its weights do not count.
    foreign
        The user's model.
    weight_map
        Which parameters belong together, as far as the user states it.
    write_map
        Where to write the whole map.
    layout
        How the user's model takes images: ``nhwc``, ``nchw``, or whichever it runs with.
    expected_weights
        Canonical weights that the user's are to be equal to, such as those of the run that was ported.
    source
        The user's file, whose line is named where the model raises.
    tell
        Told what is being done.

    Raises
    ------
    InputError
        The model does not run on the spec's inputs, or the weights cannot be matched.
    """
    started = time.perf_counter()
    prepared = Preparation(subject, foreign, weight_map, write_map, source, tell).prepare(layout)
    report = Report(
        subject.name,
        (foreign.label,),
        "float32",
        ("forward", "backward") if foreign.trains else ("forward",),
        subject.seed,
        _described(subject),
        layers={node.name: node.layer.type for node in subject.graph.nodes},
        devices={foreign.label: "cpu"},
        versions=versions([foreign.backend]),
        notes=prepared.notes,
    )
    report.seconds["alignment"] = time.perf_counter() - started
    judging = Judging(subject, foreign, prepared.bindings, prepared.weights, report)
    comparison = Comparison(judging, prepared.alignments, tell)
    with _timed(report, "comparison"):
        comparison.compare()
        comparison.check_parameters(prepared.theirs)
        if expected_weights is not None:
            comparison.check_weights(expected_weights)
    if report.failures:
        with _timed(report, "diagnosis"):
            report.causes = comparison.causes()
    return Against(report, prepared.weights)


def _described(subject: Subject) -> str:
    kind = "of the recipe's data" if subject.real else "drawn within the inputs' ranges"
    return f"batches of {subject.batch_size} samples, {kind}; weights of the model that is verified"


@contextmanager
def _timed(report: Report, what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    report.seconds[what] = time.perf_counter() - started


@dataclass
class Prepared:
    """The user's model, recorded and laid beside the spec."""

    bindings: Bindings
    weights: dict[str, Array]
    alignments: dict[str, Alignment]
    theirs: tuple[ForeignParameter, ...]
    notes: list[str]

    @property
    def score(self) -> tuple[int, int]:
        """How well the two fit: layers that are right, layers that were found."""
        sections = [section for alignment in self.alignments.values() for section in alignment.sections]
        return sum(section.right for section in sections), len(sections)


@dataclass
class Preparation:
    """Records the user's model, matches the weights, and aligns the layers; arguments as of `verify_against`."""

    subject: Subject
    foreign: Foreign
    weight_map: Document | None
    write_map: Path | None
    source: Path | None
    tell: Tell

    def prepare(self, layout: LayoutName) -> Prepared:
        """Try the layouts that may be meant, and return the preparation that fits best."""
        inputs = {name: np.asarray(array) for name, array in self.subject.batch(0).inputs.items()}
        errors: list[Exception] = []
        found: list[Prepared] = []
        for first in self._orders(layout):
            self.tell(f"recording the {self.foreign.label}")
            places = {
                name: Layout.channels_first(given.shape) if first and len(given.shape) > 1 else Layout.same(given.shape)
                for name, given in self.subject.graph.inputs.items()
            }
            theirs = {name: places[name].to_theirs(array) for name, array in inputs.items()}
            try:
                trace = self._record(theirs, training=False)
            except InputError:
                raise
            except Exception as error:  # whatever the user's model raises on an input it does not take
                errors.append(error)
                continue
            prepared = self._fitted(trace, inputs, theirs, places, first)
            found.append(prepared)
            sections = [section for item in prepared.alignments.values() for section in item.sections]
            if all(section.right for section in sections) and not any(a.faults for a in prepared.alignments.values()):
                break
        if not found:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            problem = user_error(errors[0], self.source, "the model does not run on the spec's inputs").problems[0]
            raise InputError.from_problems([replace(problem, found=shapes, allowed="as they are (NHWC) or as NCHW")])
        return max(found, key=lambda prepared: prepared.score)

    def _orders(self, layout: LayoutName) -> list[bool]:
        """Return whether the channel comes first, in the order in which to try."""
        if layout != "auto":
            return [layout == "nchw"]
        if not any(len(given.shape) > 1 and given.dtype == "float" for given in self.subject.graph.inputs.values()):
            return [False]
        return [False, True] if self.foreign.channels_first is False else [True, False]

    def _record(self, theirs: Mapping[str, Array], *, training: bool) -> Trace:
        names = self.foreign.input_names
        if len(theirs) > 1 and set(theirs) <= set(names):
            return self.foreign.record(theirs, training=training)
        try:
            return self.foreign.record(list(theirs.values()), training=training)
        except Exception:  # in order does not do: by name may
            if names or len(theirs) == 1:
                raise
            return self.foreign.record(theirs, training=training)

    def _fitted(
        self,
        trace: Trace,
        inputs: Mapping[str, Array],
        theirs: Mapping[str, Array],
        layouts: Mapping[str, Layout],
        first: bool,
    ) -> Prepared:
        parameters = self.foreign.parameters(trace)
        used = frozenset(name for operation in trace.operations for name in operation.parameters)
        graph = undropped(self.subject.graph)
        bindings, missing = bind(graph, parameters, used, self.weight_map)
        if self.write_map is not None:
            write_weight_map(self.write_map, bindings, missing)
        notes: list[str] = []
        stand_ins: dict[str, Array] = {}
        if not self.foreign.trains:
            bindings, stand_ins, missing = unfolded(graph, bindings, missing, parameters)
        if stand_ins:
            layers = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in stand_ins))
            notes.append(f"folded into the layers before them in their model, and so taken for the identity: {layers}")
        check_bound(graph, bindings, missing, parameters, used)
        frozen = [item.name for item in parameters if item.frozen and item.name in used]
        if frozen:
            notes.append(f"frozen in their model, and compared as if it trained them: {_first(frozen)}")
        traces = {"inference": trace}
        if trace.draws:
            raise InputError("the model draws random numbers in inference: no two runs of it are the same")
        if self.foreign.trains:
            try:
                training = self._record(theirs, training=True)
            except Exception as error:  # what runs in inference may still refuse a batch in training
                problem = user_error(error, self.source).problems[0]
                notes.append(
                    f"their model does not run in training mode, and is compared in inference: {problem.message}"
                )
            else:
                if training.draws:
                    notes.append("their model draws random numbers in training: inference alone is compared")
                else:
                    traces["training"] = training
        else:
            notes.append("an ONNX model has no gradients and no training mode: inference alone is compared")
        if self.foreign.trains and any(item.drops for item in traces.values()):
            notes.append("dropout is left out, in both models: masks of two generators are not the same")
        arrays = self.foreign.arrays()
        fixed: set[str] = set()
        while True:
            weights = {**canonical(bindings, arrays), **stand_ins}
            alignments = self._aligned(graph, weights, bindings, traces, inputs, layouts, first)
            turned = {name: rows for name, rows in alignments["inference"].rows().items() if name not in fixed}
            if not turned:
                break
            for name, rows in turned.items():
                bindings = with_rows(bindings, name, rows)
                notes.append(
                    f"their model flattens channels first: the rows of {name} are brought into the spec's order"
                )
            fixed |= turned.keys()
        constant = [
            name for name, array in weights.items() if name not in stand_ins and array.size > 1 and np.ptp(array) == 0.0
        ]
        if constant:
            notes.append(f"constant weights hide some mistakes; trained ones would show more: {_first(constant)}")
        return Prepared(bindings, weights, alignments, parameters, notes)

    def _aligned(
        self,
        graph: Any,
        weights: Arrays,
        bindings: Bindings,
        traces: Mapping[str, Trace],
        inputs: Mapping[str, Array],
        layouts: Mapping[str, Layout],
        first: bool,
    ) -> dict[str, Alignment]:
        cast = Cast.of({}, "float32", self.subject.seed)
        subject = replace(self.subject, graph=graph, weights=weights)
        gradients = output_gradients(subject, cast.reference)
        alignments = {}
        for mode, trace in traces.items():
            self.tell(f"finding the layers, {mode}")
            expected = Expected(graph, weights, cast, inputs, gradients, mode == "training")
            order = self._input_numbers(trace)
            places = {name: Place(order[name], layouts[name]) for name in graph.inputs}
            alignments[mode] = Alignment(Search(expected, self.foreign, trace, bindings, first), places).run()
        return alignments

    def _input_numbers(self, trace: Trace) -> dict[str, int]:
        """Return the number of each input: `record` was given them in the spec's order."""
        names: Sequence[str] = list(self.subject.graph.inputs)
        return dict(zip(names, trace.inputs, strict=True))


def _first(names: Sequence[str], shown: int = 4) -> str:
    """List names, the first few where there are many."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
