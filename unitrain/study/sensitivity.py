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
    """Restore the operators that suffer most to float, twice as many each time, until the rest is not inferior.

    Raises
    ------
    InputError
        There is nothing to restore, or all has to be restored.
    """
    ranked = rank(workshop)
    count = 0
    while count < len(ranked):
        names = tuple(item.node for item in ranked[:count])
        workshop.progress.tell(f"{count} operators restored")
        built = workshop.static(Static(exclude=names))
        if accepted(_selection(workshop, built)):
            if count == 0:
                raise InputError("nothing has to be restored: int8 keeps its quality on the selection samples")
            said = f"mixed: {count} of {len(ranked)} products stay in float: {', '.join(names)}"
            return Built(built.model, notes=(*built.notes, said))
        count = max(1, 2 * count)
    raise InputError(f"int8 is inferior until all {len(ranked)} products are restored")


def _selection(workshop: Workshop, built: Built) -> Quality:
    samples = workshop.subject.samples.selection
    exact = workshop.outputs(workshop.floats["float"], samples)
    found = workshop.outputs(built.model, samples)
    generator = stream(workshop.seed, "study", "bootstrap", "mixed")
    return judge(workshop.subject.task, samples, found, exact, workshop.options.margin, generator)
