"""Changes of what a sound file holds: other names, types, shapes and values, in a container that is still sound."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import numpy as np

_DTYPES = ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", "?")
_STRANGE = ("c8", "S3", "U2", "M8[s]", "m8[s]", "O", "f4,i4", "V4", ">f4", "f2")
_VALUES = (np.nan, np.inf, -np.inf, 3e38, -1e300, 0.0, -1.0, 255.0, 1e19)


def _changed(array: np.ndarray, generator: random.Random, strange: bool = False) -> np.ndarray:
    """Change type, shape or values of an array."""
    match generator.randrange(6):
        case 0:
            kind = generator.choice(_STRANGE if strange else _DTYPES)
            with np.errstate(all="ignore"):
                return np.zeros(array.shape, kind) if strange else array.astype(kind)
        case 1:
            return array.reshape(generator.choice(((-1,), (1, *array.shape), (*array.shape, 1), (-1, 1))))
        case 2:
            return array[: generator.randrange(len(array) + 1)] if array.ndim else array
        case 3:
            return np.asfortranarray(array.T) if array.ndim > 1 else array[::-1]
        case 4:
            return np.concatenate([array] * 3) if array.ndim else np.array([array] * 3)
        case _:
            flat = array.astype(np.float64).reshape(-1).copy()
            if len(flat):
                flat[generator.randrange(len(flat))] = generator.choice(_VALUES)
            with np.errstate(all="ignore"):
                return flat.reshape(array.shape).astype(array.dtype if generator.random() < 0.7 else np.float64)


def _one(arrays: dict[str, Any], generator: random.Random, strange: bool = False) -> dict[str, Any]:
    """Change, drop, double or rename one of several arrays."""
    name = generator.choice(sorted(arrays))
    match generator.randrange(5):
        case 0:
            arrays[generator.choice(("", "../x", "a" * 5000, "x/y/z", "é"))] = arrays.pop(name)
        case 1:
            del arrays[name]
        case _:
            arrays[name] = _changed(arrays[name], generator, strange and generator.random() < 0.5)
    return arrays


def tensors(content: bytes, generator: random.Random) -> bytes:
    """Change a safetensors file."""
    from safetensors.numpy import load, save

    arrays = {name: np.ascontiguousarray(array) for name, array in _one(load(content), generator).items()}
    return bytes(save(arrays))


def checkpoint(content: bytes, generator: random.Random) -> bytes:
    """Change tensors or state of a checkpoint, with a checksum that is right."""
    from safetensors.numpy import load, save

    from unitrain.train.checkpoint import STATE_NAME, _digest

    arrays = load(content)
    length = int.from_bytes(content[:8], "little")
    state = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][STATE_NAME])["state"]
    if generator.random() < 0.3:
        arrays = {name: np.ascontiguousarray(array) for name, array in _one(arrays, generator).items()}
    else:
        strange = (-1, 0, 1, 10**6, 10**30, 0.5, float("nan"), float("inf"), None, "x", [], {}, True, {"a": [1]})
        field = generator.choice(sorted(state))
        if generator.random() < 0.15:
            del state[field]
        else:
            state[field] = generator.choice(strange)
    entry = {"state": state, "sha256": _digest(arrays, state)}
    return bytes(save(arrays, {STATE_NAME: json.dumps(entry)}))


def arrays(content: bytes, generator: random.Random) -> bytes:
    """Change an ``.npz``."""
    with np.load(io.BytesIO(content)) as archive:
        found = _one(dict(archive.items()), generator, strange=True)
    stream = io.BytesIO()
    np.savez(stream, **{name or "empty": array for name, array in found.items()})
    return stream.getvalue()


def array(content: bytes, generator: random.Random) -> bytes:
    """Change an ``.npy``."""
    stream = io.BytesIO()
    np.save(stream, _changed(np.load(io.BytesIO(content)), generator, strange=generator.random() < 0.5))
    return stream.getvalue()


def table(content: bytes, generator: random.Random) -> bytes:
    """Change a column of a Parquet file: its type, its name, its values."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    found = parquet.read_table(io.BytesIO(content))
    position = generator.randrange(found.num_columns)
    rows = found.num_rows
    columns = (
        pa.array([[1.0, 2.0]] * rows),
        pa.array([{"x": 1}] * rows),
        pa.array([None] * rows),
        pa.array([b"\xff\xfe"] * rows),
        pa.array(["x", None] * rows)[:rows],
        pa.array(range(rows), pa.timestamp("ns")),
        pa.array(range(rows), pa.decimal128(30, 2)),
        pa.array(range(rows), pa.duration("s")),
        pa.array([2**63 - 1] * rows),
        pa.array([2**64 - 1] * rows, pa.uint64()),
        pa.array([float("nan"), float("inf")] * rows)[:rows],
        pa.array([1e308, -1e308] * rows)[:rows],
        pa.array([True, False] * rows)[:rows],
        pa.array(["é\u2028", ""] * rows)[:rows].dictionary_encode(),
        pa.array([0.5] * rows, pa.float16()),
    )
    name = generator.choice((found.column_names[position], "", "../x", "a", "kind"))
    found = found.set_column(position, name, generator.choice(columns))
    if generator.random() < 0.1:
        found = found.slice(0, generator.randrange(3))
    stream = io.BytesIO()
    parquet.write_table(found, stream)
    return stream.getvalue()


def onnx(content: bytes, generator: random.Random) -> bytes:
    """Change nodes, tensors or inputs of an ONNX model."""
    from onnx import ModelProto, TensorProto, numpy_helper

    model = ModelProto.FromString(content)
    graph = model.graph
    tensor, node = generator.choice(graph.initializer), generator.choice(graph.node)
    match generator.randrange(9):
        case 0:
            tensor.dims[:] = [generator.choice((0, -1, 10**12, 3))] * len(tensor.dims)
        case 1:
            tensor.data_type = generator.choice((0, 1, 2, 7, 8, 10, 11, 16, 23, 99))
        case 2:
            changed = _changed(numpy_helper.to_array(tensor).copy(), generator)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), tensor.name))
        case 3:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", generator.choice(("../outside", "/etc/passwd", "missing", ""))
        case 4:
            node.op_type = generator.choice(
                ("Relu", "Identity", "Loop", "If", "Softmax", "Reshape", "Nothing", "MatMul")
            )
        case 5:
            node.input[0] = generator.choice(("", "nothing", tensor.name, node.output[0]))
        case 6:
            shape = graph.input[0].type.tensor_type.shape
            shape.dim[generator.randrange(len(shape.dim))].dim_value = generator.choice((0, -1, 7, 10**9))
        case 7:
            model.opset_import[0].version = generator.choice((0, 1, 7, 99, -1))
        case _:
            node.domain = "evil"
    return model.SerializeToString()
