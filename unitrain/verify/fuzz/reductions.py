"""The ways in which a model or its training is made simpler; what comes out need not be valid, and is checked later.

All work on plain values, as YAML has them, and change nothing of what they are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.expressions import substitute
from unitrain.spec.model import STEP_TYPES
from unitrain.verify.fuzz.fields import options

Plain = dict[str, Any]
# What a name stands for: shape without the batch, and ``float`` or ``integer``.
Shapes = Mapping[str, tuple[list[int], str]]

TRAINING = ("loss", "optimizer", "schedule", "training")


def simpler_training(case: Plain) -> Iterator[Plain]:
    """Train as by default, in all or in one respect; then without one option after another."""
    yield {key: value for key, value in case.items() if key not in TRAINING}
    for name in TRAINING:
        if name in case:
            yield {key: value for key, value in case.items() if key != name}
    for name in TRAINING:
        for simpler in _without_leaves(case.get(name)):
            yield {**case, name: simpler}
        for simpler in _smaller(case.get(name)):
            yield {**case, name: simpler}
    if case.get("seed"):
        yield {key: value for key, value in case.items() if key != "seed"}


def flat_model(graph: Graph) -> Plain:
    """Write a resolved model without blocks, sharing and arguments; every layer then has weights of its own."""
    names = {node.name: node.name.replace(".", "_") for node in graph.nodes}
    layers = []
    for node in graph.nodes:
        fields = {key: value for key, value in node.layer.to_plain().items() if key not in ("name", "inputs")}
        # The activation that a layer names is a node of its own.
        fields.pop("activation", None)
        reads = [names.get(name, name) for name in node.inputs]
        sides = node.layer.sides(reads)
        main = reads[: len(reads) - sum(map(len, sides.values()))]
        sides_read = {field: list(given) for field, given in sides.items()}
        # Every layer has weights of its own: a tied one too.
        fields = {key: value for key, value in fields.items() if key not in node.layer.ties.values()}
        layers.append({**fields, **sides_read, "name": names[node.name], "inputs": main})
    inputs = {name: given.to_plain() for name, given in graph.inputs.items()}
    return {"inputs": inputs, "layers": layers, "outputs": [names[node] for node in graph.outputs.values()]}


def windows(model: Plain, shapes: Shapes) -> Iterator[Plain]:
    """Keep a run of layers, one first, then two, and so on; what they read from outside becomes an input."""
    layers = _named(model)
    for count in range(1, len(layers)):
        for start in range(len(layers) - count + 1):
            kept = _cut(model, layers, layers[start : start + count], shapes)
            if kept is not None:
                yield kept


def _cut(model: Plain, every: list[Plain], kept: list[Plain], shapes: Shapes) -> Plain | None:
    """Return a model of some layers; None where the shape of what they read is not known."""
    inside = {layer["name"] for layer in kept}
    originals = {layer["name"]: layer for layer in every}
    inputs: Plain = {}
    layers = []
    for layer in kept:
        if layer["type"] == "shared" and layer["layer"] not in inside:
            layer = _called(originals[layer["layer"]], layer)
        entries: dict[str, str] = {}
        for name in names_read(layer):
            if _base(name) in inside:
                continue
            if name not in shapes:
                return None
            shape, dtype = shapes[name]
            known = model["inputs"].get(name)
            entry = name.replace(".", "_") if known is not None else f"{name.replace('.', '_')}_value"
            given = {"shape": shape} if dtype == "float" else {"shape": shape, "dtype": dtype}
            inputs[entry] = known if known is not None else given
            entries[name] = entry
        layers.append(_reading(layer, entries))
    return _ended({**model, "inputs": inputs, "layers": layers})


def fewer_outputs(model: Plain, outputs: tuple[str, ...]) -> Iterator[Plain]:
    """Keep one output, or leave one out, with the layers that nothing needs any more."""
    if len(outputs) > 1:
        for chosen in [*((name,) for name in outputs), *(tuple(n for n in outputs if n != name) for name in outputs)]:
            yield _pruned(model, chosen)


def fewer_layers(model: Plain) -> Iterator[Plain]:
    """Leave out one layer; those who read it read one of its inputs."""
    layers = _named(model)
    for index, layer in enumerate(layers):
        for instead in dict.fromkeys(layer["inputs"]):
            rest = [
                _reading(other, {name: instead for name in names_read(other) if _base(name) == layer["name"]})
                for other in layers[:index] + layers[index + 1 :]
            ]
            if rest:
                yield _ended(_with_used_inputs({**model, "layers": rest}))
    for index, layer in enumerate(layers):
        for place in range(len(layer["inputs"]) if len(layer["inputs"]) > 2 else 0):
            fewer = {**layer, "inputs": layer["inputs"][:place] + layer["inputs"][place + 1 :]}
            yield _ended({**model, "layers": [*layers[:index], fewer, *layers[index + 1 :]]})
    for name, block in model.get("blocks", {}).items():
        inside = {"inputs": {given: {} for given in _inputs(block)}, "layers": block["layers"]}
        for simpler in fewer_layers(inside | ({"outputs": block["outputs"]} if "outputs" in block else {})):
            changed = {**block, "layers": simpler["layers"], "outputs": simpler["outputs"]}
            yield {**model, "blocks": {**model["blocks"], name: changed}}


def simpler_fields(model: Plain) -> Iterator[Plain]:
    """Leave out what is optional: all of it in a layer, then one field after another; in blocks and inputs too."""
    for place, layer in enumerate(model["layers"]):
        needed = _required(layer)
        if len(needed) < len(layer):
            yield _with_layer(model, place, needed)
        for simpler in _without_leaves(layer, keep=("type", "name", "inputs")):
            yield _with_layer(model, place, simpler)
            if "inputs" in model and len(names_read(simpler)) < len(names_read(layer)):
                # A side input that is left out leaves an input without a reader, or a layer.
                named = _named(_with_layer(model, place, simpler))
                yield _ended(_with_used_inputs({**model, "layers": named}))
        for name, choices in options(STEP_TYPES[layer["type"]]).items():
            if isinstance(layer.get(name), (list, dict)):
                # `same` is shorter than amounts.
                words = [choice.word for choice in choices if choice.word is not None]
                yield from (_with_layer(model, place, {**layer, name: word}) for word in words)
    for name, given in model["inputs"].items():
        for simpler in _without_leaves(given):
            yield {**model, "inputs": {**model["inputs"], name: simpler}}
    for name, block in model.get("blocks", {}).items():
        for simpler in simpler_fields({"inputs": {}, "layers": block["layers"]}):
            yield {**model, "blocks": {**model["blocks"], name: {**block, "layers": simpler["layers"]}}}
    for name in ("name", "description", "source"):
        if name in model:
            yield {key: value for key, value in model.items() if key != name}


def smaller_numbers(model: Plain) -> Iterator[Plain]:
    """Make extents of inputs and numbers in layers smaller, one at a time, by much before by little."""
    for name, given in model["inputs"].items():
        for shape in _smaller(given["shape"]):
            if 0 not in shape:
                yield {**model, "inputs": {**model["inputs"], name: {**given, "shape": shape}}}
    for place, layer in enumerate(model["layers"]):
        if layer["type"] == "reshape" and layer["shape"] != [-1]:
            yield _with_layer(model, place, {**layer, "shape": [-1]})
        numbers = {key: value for key, value in layer.items() if key not in ("type", "name", "inputs")}
        for simpler in _smaller(numbers):
            yield _with_layer(model, place, {**layer, **simpler})
    # An extent wherever it stands, where a layer binds it: that of a sequence and of its mask.
    for extent in sorted({extent for given in model["inputs"].values() for extent in given["shape"]}):
        for smaller in _smaller(extent):
            if smaller:
                yield {
                    **model,
                    "inputs": {
                        name: {**given, "shape": [smaller if found == extent else found for found in given["shape"]]}
                        for name, given in model["inputs"].items()
                    },
                }
    # Two extents at once, where a merge or a reshape binds them.
    for first, one in model["inputs"].items():
        for second, other in model["inputs"].items():
            if first < second and one["shape"] == other["shape"]:
                for shape in _smaller(one["shape"]):
                    both = {first: {**one, "shape": shape}, second: {**other, "shape": shape}}
                    yield {**model, "inputs": {**model["inputs"], **both}}


def without_arguments(model: Plain) -> Iterator[Plain]:
    """Write out what arguments stand for: the model's own, and those of blocks that are used once."""
    try:
        if model.get("arguments"):
            rest = {key: value for key, value in model.items() if key != "arguments"}
            yield substitute(rest, model["arguments"])
        for name, block in model.get("blocks", {}).items():
            calls = [place for place, layer in enumerate(model["layers"]) if layer.get("block") == name]
            if block.get("arguments") and len(calls) == 1:
                call = model["layers"][calls[0]]
                layers = substitute(block["layers"], {**block["arguments"], **call.get("arguments", {})})
                plain = {key: value for key, value in block.items() if key != "arguments"} | {"layers": layers}
                bare = {key: value for key, value in call.items() if key != "arguments"}
                yield _with_layer({**model, "blocks": {**model["blocks"], name: plain}}, calls[0], bare)
    except InputError:
        # Arguments of the model inside a block, or the number of a repeat: they have to stay.
        return


def without_names(model: Plain) -> Iterator[Plain]:
    """Leave out the names and inputs of a plain chain; call a single input ``input``."""
    layers = _named(model)
    outputs = model.get("outputs") or [layers[-1]["name"]]
    names = [layer["name"] for layer in layers]
    chain = all(layer["inputs"] == [name] for layer, name in zip(layers[1:], names, strict=False))
    sides = {name for layer in layers for name in names_read(layer)[len(layer["inputs"]) :]}
    if (
        chain
        and not sides & set(names)
        and outputs == names[-1:]
        and len(model["inputs"]) == 1
        and layers[0]["inputs"] == list(model["inputs"])
    ):
        bare = [{key: value for key, value in layer.items() if key not in ("name", "inputs")} for layer in layers]
        yield {**{key: value for key, value in model.items() if key != "outputs"}, "layers": bare}
    short = {name: f"input_{place}" for place, name in enumerate(model["inputs"], start=1)}
    short = dict.fromkeys(short, "input") if len(short) == 1 else short
    yield {
        **model,
        "inputs": {short[name]: given for name, given in model["inputs"].items()},
        "layers": [
            {**layer, **{key: _as_written(layer[key], short) for key in _naming(layer)}} for layer in model["layers"]
        ],
    }


def _as_written(names: Any, short: Mapping[str, str]) -> Any:
    return short.get(names, names) if isinstance(names, str) else [short.get(name, name) for name in names]


def _named(model: Plain) -> list[Plain]:
    """Return the layers of a model with names and inputs written out."""
    layers: list[Plain] = []
    counts: dict[str, int] = {}
    before = list(model["inputs"])[:1]
    for layer in model["layers"]:
        kind = layer["type"]
        counts[kind] = counts.get(kind, 0) + 1
        name = layer.get("name") or f"{kind}_{counts[kind]}"
        layer = {**layer, "name": name, "inputs": layer.get("inputs") or before}
        layers.append(layer | {key: _names(layer[key]) for key in _naming(layer)})
        before = [name]
    return layers


def _ended(model: Plain) -> Plain:
    """Let a model end with what nothing reads, and with those of its outputs that are still there."""
    layers = model["layers"]
    read = {_base(name) for layer in layers for name in names_read(layer)}
    named = {layer["name"] for layer in layers}
    kept = [name for name in model.get("outputs") or [] if _base(name) in named]
    ends = {_base(name) for name in kept}
    outputs = [*kept, *(layer["name"] for layer in layers if layer["name"] not in read | ends)]
    used = {layer.get("block") for layer in layers}
    blocks = {name: block for name, block in model.get("blocks", {}).items() if name in used or len(used) > 1}
    rest = {key: value for key, value in model.items() if key not in ("outputs", "blocks")}
    return {**rest, **({"blocks": blocks} if blocks else {}), "outputs": outputs}


def _pruned(model: Plain, outputs: tuple[str, ...]) -> Plain:
    """Keep the layers and inputs that some outputs need."""
    layers = _named(model)
    needed = {_base(name) for name in outputs}
    kept: list[Plain] = []
    for layer in reversed(layers):
        if layer["name"] in needed:
            kept.insert(0, layer)
            needed |= {_base(name) for name in names_read(layer)}
            if layer["type"] == "shared":
                # The layer that owns the weights must be listed, and so is kept with what it needs.
                needed.add(layer["layer"])
    inputs = {name: given for name, given in model["inputs"].items() if name in needed}
    return {**model, "inputs": inputs, "layers": kept, "outputs": list(outputs)}


def _with_used_inputs(model: Plain) -> Plain:
    """Leave out the inputs that no layer reads."""
    used = {name for layer in model["layers"] for name in names_read(layer)}
    return {**model, "inputs": {name: given for name, given in model["inputs"].items() if name in used}}


def names_read(layer: Plain) -> list[str]:
    """Return the names of all that a layer is written to read, its side inputs last."""
    return [name for key in _naming(layer) for name in _names(layer[key])]


def _naming(layer: Plain) -> list[str]:
    """Return the fields of a layer that name what it reads."""
    fields = ("inputs", *STEP_TYPES[layer["type"]].side_inputs)
    return [field for field in fields if layer.get(field) is not None]


def _reading(layer: Plain, instead: Mapping[str, str]) -> Plain:
    """Let a layer read other values."""
    return layer | {key: [instead.get(name, name) for name in layer[key]] for key in _naming(layer)}


def _called(original: Plain, call: Plain) -> Plain:
    """Return a layer as one that shares its weights applies it, whose inputs end with the side inputs."""
    main = len(original["inputs"])
    layer, rest = {**original, "name": call["name"], "inputs": call["inputs"][:main]}, call["inputs"][main:]
    for key in _naming(original)[1:]:
        layer[key], rest = rest[: len(original[key])], rest[len(original[key]) :]
    return layer


def _names(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _base(name: str) -> str:
    """Return the layer of ``block.output``."""
    return name.partition(".")[0]


def _inputs(block: Plain) -> list[str]:
    return _names(block.get("inputs", ["input"]))


def _required(layer: Plain) -> Plain:
    fields = STEP_TYPES[layer["type"]].model_fields
    return {
        key: value for key, value in layer.items() if key in ("type", "name", "inputs") or fields[key].is_required()
    }


def _with_layer(model: Plain, place: int, layer: Plain) -> Plain:
    return {**model, "layers": [*model["layers"][:place], layer, *model["layers"][place + 1 :]]}


def _without_leaves(value: Any, keep: tuple[str, ...] = ("type",)) -> Iterator[Any]:
    """Leave out one key of a mapping, at any depth; a mapping of one kind becomes that word's defaults first."""
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key not in keep:
            yield {name: other for name, other in value.items() if name != key}
        for simpler in _without_leaves(item):
            yield {**value, key: simpler}


def _smaller(value: Any) -> Iterator[Any]:
    """Make one number smaller, at any depth: to 0 or 1 first, then by half, then by one."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        for simpler in dict.fromkeys((0, 1, value // 2, value - 1)):
            if abs(simpler) < abs(value):
                yield simpler
    elif isinstance(value, list):
        numbers = [item for item in value if isinstance(item, int)]
        if len(numbers) == len(value) > 1:
            yield from ([simpler] * len(value) for simpler in (1, 2) if sum(value) > simpler * len(value))
        for place, item in enumerate(value):
            for simpler in _smaller(item):
                yield [*value[:place], simpler, *value[place + 1 :]]
    elif isinstance(value, dict):
        for key, item in value.items():
            for simpler in _smaller(item):
                yield {**value, key: simpler}
