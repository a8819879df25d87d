"""Attention."""

from __future__ import annotations

import numpy as np
from onnx_cases.node_case import NodeCase, NotApplicable, Outputs


def attention(case: NodeCase) -> Outputs:
    """Keys and values side by side are what the layer reads as ``key_value``; its kernels choose their channels."""
    names = {"q_num_heads", "kv_num_heads", "is_causal"}
    if (
        case.attributes.keys() - names
        or len(case.outputs) > 1
        or any(case.given(place) is not None for place in (4, 5, 6))
    ):
        raise NotApplicable("scale, softcap, past or other outputs: ours has none")
    if case.given(3) is not None:
        raise NotApplicable("a mask for each pair: ours is one of keys")
    q, k, v = (case.numbers(place) for place in range(3))
    whole = np.ndim(case.outputs[0]) == 4
    if whole:
        heads, groups = q.shape[1], k.shape[1]
        q, k, v = (x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1) for x in (q, k, v))
    else:
        heads, groups = case.attributes["q_num_heads"], case.attributes["kv_num_heads"]
    if k.shape[-1] != v.shape[-1]:
        raise NotApplicable("values of another width than keys")
    width, small = q.shape[-1], k.shape[-1]
    both = np.eye(2 * small, dtype=q.dtype)
    fields = {
        "type": "attention",
        "heads": heads,
        "key_value_heads": groups,
        "causal": bool(case.attributes.get("is_causal", 0)),
        "use_bias": False,
        "key_value": "x1",
    }
    eye = np.eye(width, dtype=q.dtype)
    kernels = {"query": eye, "output": eye, "key": both[:, :small], "value": both[:, small:]}
    y = case.apply(fields, q, np.concatenate([k, v], axis=-1), **kernels).output
    return [y.reshape(len(y), y.shape[1], heads, -1).swapaxes(1, 2) if whole else y]
