"""Mixed precision: which operators suffer from int8, and the fewest that must stay float."""

from __future__ import annotations

from unitrain.backends.onnx.anatomy import product_nodes
from unitrain.backends.onnx.posttraining import Static
from unitrain.spec.errors import InputError
from unitrain.study.quality import Quality, judge
from unitrain.study.recommend import accepted
from unitrain.study.results import Sensitivity
from unitrain.study.splits import limited
from unitrain.study.statistics import signal_to_noise
from unitrain.study.workshop import Built, Workshop
from unitrain.weights.random import stream

# Selection samples on which single operators are compared; all of them judge the whole.
_SAMPLES = 128


def rank(workshop: Workshop) -> list[Sensitivity]:
    """Quantise each product alone; return what each does to the output, the worst first.

    The measure is the signal to noise against the float model on selection samples.
    """
    if workshop.subject.speed_only:
        raise InputError("inputs are random: there is no quality by which operators could be ranked")
    if workshop.sensitivity:
        return workshop.sensitivity
    workshop.static(Static())  # finds the ranges of all tensors, which single operators then use
    samples = limited(workshop.subject.samples.selection, _SAMPLES)
    output = workshop.subject.task.output
    exact = workshop.outputs(workshop.floats["float"], samples)[output]
    nodes = product_nodes(workshop.prepared().model)
    found = []
    told = workshop.progress.within("ranking operators", len(nodes))
    for number, (name, kind) in enumerate(nodes):
        built = workshop.static(Static(only=(name,)))
        values = workshop.outputs(built.model, samples)[output]
        noise = signal_to_noise(exact.astype(float), values.astype(float))
        found.append(Sensitivity(name, kind, noise))
        told(number + 1)
    workshop.sensitivity += sorted(found, key=lambda item: item.signal_to_noise)
    return workshop.sensitivity


def mixed(workshop: Workshop) -> Built:
    """Restore the operators that suffer most to float, the fewest with which the rest is not inferior.

    Twice as many are tried each time until there are enough, then the counts between by halves.

    Raises
    ------
    InputError
        There is nothing to restore, or all has to be restored.
    """
    ranked = rank(workshop)

    def tried(count: int) -> Built | None:
        workshop.progress.tell(f"mixed, {count} operators restored")
        built = workshop.static(Static(exclude=tuple(item.node for item in ranked[:count])))
        return built if accepted(_selection(workshop, built)) else None

    if tried(0) is not None:
        raise InputError("nothing has to be restored: int8 keeps its quality on the selection samples")
    few, enough, best = 0, 1, None
    while enough < len(ranked) and (best := tried(enough)) is None:
        few, enough = enough, 2 * enough
    if best is None and (enough := len(ranked) - 1) > few:
        best = tried(enough)
    if best is None:
        raise InputError(f"int8 is inferior until all {len(ranked)} products are restored")
    while enough - few > 1:
        middle = (few + enough) // 2
        built = tried(middle)
        if built is None:
            few = middle
        else:
            enough, best = middle, built
    names = ", ".join(item.node for item in ranked[:enough])
    said = f"mixed: {enough} of {len(ranked)} products stay in float: {names}"
    return Built(best.model, notes=(*best.notes, said))


def _selection(workshop: Workshop, built: Built) -> Quality:
    samples = workshop.subject.samples.selection
    exact = workshop.outputs(workshop.floats["float"], samples)
    found = workshop.outputs(built.model, samples)
    generator = stream(workshop.seed, "study", "bootstrap", "mixed")
    return judge(workshop.subject.task, samples, found, exact, workshop.options.margin, generator)
