"""ResNet, ViT, GPT-2 and BERT as `transformers` has them: our outputs and gradients are theirs, on every backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from models.foreign_peers import INFERENCE, TRAINING, Array, Arrays, Theirs, drawn_images, drawn_upstream, mistakes, zoo

SIZES = {"vocabulary": 11, "length": 6, "width": 8, "heads": 2, "depth": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def transformers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        import transformers  # takes seconds

        transformers.logging.set_verbosity_error()
        yield transformers


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Give a model weights and running statistics that float32 holds and of which none is constant."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(t for t in model.buffers() if t.is_floating_point())):
            tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator))
    return model


def theirs(
    model: torch.nn.Module,
    inputs: Arrays,
    given: Mapping[str, Array],
    canonical: Callable[[Arrays], Arrays],
    *logits: int,
) -> Theirs:
    """Run a model of theirs on ``given``, which are our ``inputs`` as it takes them; a sample has ``logits``."""
    weights = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    upstream = drawn_upstream(len(next(iter(inputs.values()))), *logits)
    both = []
    for dtype in (torch.float32, torch.float64):
        model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        model.to(dtype).zero_grad()
        tensors = {
            name: torch.tensor(array, dtype=dtype if array.dtype.kind == "f" else None) for name, array in given.items()
        }
        with torch.no_grad():
            inference = model.eval()(**tensors).logits
        training = model.train()(**tensors).logits
        training.backward(torch.tensor(upstream, dtype=dtype))
        gradients = {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}
        outputs = {TRAINING: training.detach().numpy(), INFERENCE: inference.numpy()}
        both.append(outputs | canonical(gradients))
    return Theirs(canonical(weights), inputs, upstream, both[1], both[0])


def renamed(arrays: Arrays, names: Mapping[str, str]) -> Arrays:
    """Bring arrays of torch into canonical names and layouts; ``names`` are patterns of theirs and what ours are."""
    found = {}
    for name, array in arrays.items():
        for pattern, ours in names.items():
            if match := re.fullmatch(pattern, name):
                key = match.expand(ours)
                if array.ndim == 4:  # (out, in, height, width)
                    array = array.transpose(2, 3, 1, 0)
                elif array.ndim == 2 and not key.endswith(".table"):  # (out, in)
                    array = array.T
                found[key] = array
    return found


# A linear layer or a norm of torch: what follows ``weight`` and ``bias`` in our names.
def dense(theirs: str, ours: str, kernel: str = "kernel") -> dict[str, str]:
    return {rf"{theirs}\.weight": rf"{ours}.{kernel}", rf"{theirs}\.bias": rf"{ours}.bias"}


def norm(theirs: str, ours: str) -> dict[str, str]:
    return dense(theirs, ours, "scale")


def projections(theirs: str, names: Mapping[str, str]) -> dict[str, str]:
    """Name the four products of attention."""
    return {
        rf"{theirs}\.{part}\.{kind}": rf"layers.\1.attention.{ours}{ending}"
        for part, ours in names.items()
        for kind, ending in (("weight", ""), ("bias", "_bias"))
    }


def test_resnet(transformers):
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8, 16, 32], depths=[2, 2, 2, 2], layer_type="basic", num_labels=3
    )
    graph = zoo("resnet18", size=64, filters=4, classes=3)

    def canonical(arrays: Arrays) -> Arrays:
        places = {(0, 0): "stage1.0", (0, 1): "stage1.1"}
        places |= {(stage, 0): f"down{stage + 1}" for stage in (1, 2, 3)}
        places |= {(stage, 1): f"stage{stage + 1}" for stage in (1, 2, 3)}
        parts = {r"resnet\.embedder\.embedder": "stem"}
        for (stage, layer), ours in places.items():
            block = rf"resnet\.encoder\.stages\.{stage}\.layers\.{layer}"
            parts |= {rf"{block}\.layer\.0": f"{ours}.first", rf"{block}\.layer\.1": f"{ours}.second"}
            parts[rf"{block}\.shortcut"] = f"{ours}.shortcut"
        names = dense(r"classifier\.1", "logits")
        for part, ours in parts.items():
            names[rf"{part}\.convolution\.weight"] = f"{ours}.conv.kernel"
            names |= norm(rf"{part}\.normalization", f"{ours}.norm")
            names[rf"{part}\.normalization\.running_mean"] = f"{ours}.norm.running_mean"
            names[rf"{part}\.normalization\.running_var"] = f"{ours}.norm.running_variance"
        return renamed(arrays, names)

    torch.manual_seed(0)
    model = shaken(transformers.ResNetForImageClassification(config))
    inputs = drawn_images(graph, 4)
    # With images that lie channels last torch 2.13 writes past its memory on processors without AVX-512: oneDNN's
    # gradient of a strided 1 x 1 convolution of fewer than 8 channels.
    given = {"pixel_values": np.ascontiguousarray(inputs["image"].transpose(0, 3, 1, 2))}
    assert not mistakes(graph, theirs(model, inputs, given, canonical, 3), float32=[TRAINING, INFERENCE])


@pytest.mark.parametrize("epsilon", [1e-6, 2e-6])
def test_vit(transformers, epsilon):
    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=16, patch_size=8,
        num_labels=4, layer_norm_eps=epsilon,
    )  # fmt: skip
    graph = zoo("vit_tiny", size=16, patch=8, width=12, heads=3, depth=2, classes=4)
    layer = r"vit\.layers\.(\d)"
    names = {
        r"vit\.embeddings\.cls_token": "class_token.token",
        r"vit\.embeddings\.position_embeddings": "position.table",
        **dense(r"vit\.embeddings\.patch_embeddings\.projection", "patches"),
        **norm(rf"{layer}\.layernorm_before", r"layers.\1.norm1"),
        **projections(
            rf"{layer}\.attention", {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
        ),
        **norm(rf"{layer}\.layernorm_after", r"layers.\1.norm2"),
        **dense(rf"{layer}\.mlp\.fc1", r"layers.\1.widen"),
        **dense(rf"{layer}\.mlp\.fc2", r"layers.\1.narrow"),
        **norm(r"vit\.layernorm", "norm"),
        **dense("classifier", "logits"),
    }

    def canonical(arrays: Arrays) -> Arrays:
        found = renamed(arrays, names)
        # Theirs are ``[1, 1, width]`` and ``[1, token, width]``.
        return found | {
            "class_token.token": found["class_token.token"][0, 0],
            "position.table": found["position.table"][0],
        }

    torch.manual_seed(0)
    model = shaken(transformers.ViTForImageClassification(config))
    inputs = drawn_images(graph, 5)
    given = {"pixel_values": inputs["image"].transpose(0, 3, 1, 2)}
    peer = theirs(model, inputs, given, canonical, 4)
    if epsilon == 1e-6:
        assert not mistakes(graph, peer)
    else:  # what is judged here does see so small a difference
        found = mistakes(graph, peer, backends=["numpy"])
        assert all(f"{name} of numpy in float64" in found for name in (TRAINING, INFERENCE, "patches.kernel"))


def test_gpt2(transformers):
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=6, n_embd=8, n_layer=2, n_head=2, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    layer = r"transformer\.h\.(\d)"
    names = {
        r"transformer\.wte\.weight": "embedding.table",
        r"transformer\.wpe\.weight": "position.table",
        **norm(rf"{layer}\.ln_1", r"layers.\1.norm1"),
        **norm(rf"{layer}\.ln_2", r"layers.\1.norm2"),
        **dense(rf"{layer}\.mlp\.c_fc", r"layers.\1.widen"),
        **dense(rf"{layer}\.mlp\.c_proj", r"layers.\1.narrow"),
        **projections(rf"{layer}\.attn", {"query": "query", "key": "key", "value": "value", "c_proj": "output"}),
        **norm(r"transformer\.ln_f", "norm"),
    }

    def canonical(arrays: Arrays) -> Arrays:
        unpacked = {}
        for name, array in arrays.items():
            # Their linear layers are (in, out), and the three of attention stand in one: q, k, v.
            turned = array.T if re.search(r"\.c_\w+\.weight", name) else array
            if ".c_attn." in name:
                for part, piece in zip(("query", "key", "value"), np.split(turned, 3), strict=True):
                    unpacked[name.replace("c_attn", part)] = piece
            else:
                unpacked[name] = turned
        return renamed(unpacked, names)

    torch.manual_seed(0)
    model = shaken(transformers.GPT2LMHeadModel(config))
    tokens = np.random.default_rng(6).integers(0, 11, (4, 6))
    inputs = {"tokens": tokens.astype(np.int32)}
    assert not mistakes(zoo("gpt_mini", **SIZES), theirs(model, inputs, {"input_ids": tokens}, canonical, 6, 11))


def test_bert(transformers):
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=6, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    layer = r"bert\.encoder\.layer\.(\d)"
    names = {
        r"bert\.embeddings\.word_embeddings\.weight": "embedding.table",
        r"bert\.embeddings\.position_embeddings\.weight": "position.table",
        **norm(r"bert\.embeddings\.LayerNorm", "norm"),
        **projections(
            rf"{layer}\.attention",
            {r"self\.query": "query", r"self\.key": "key", r"self\.value": "value", r"output\.dense": "output"},
        ),
        **norm(rf"{layer}\.attention\.output\.LayerNorm", r"layers.\1.norm1"),
        **dense(rf"{layer}\.intermediate\.dense", r"layers.\1.widen"),
        **dense(rf"{layer}\.output\.dense", r"layers.\1.narrow"),
        **norm(rf"{layer}\.output\.LayerNorm", r"layers.\1.norm2"),
        **dense(r"bert\.pooler\.dense", "pooler"),
        **dense("classifier", "logits"),
    }
    torch.manual_seed(0)
    model = shaken(transformers.BertForSequenceClassification(config))
    # Theirs adds what kind of sentence a token is of; here all are of a kind that is 0.
    kinds = model.bert.embeddings.token_type_embeddings.weight
    with torch.no_grad():
        kinds.zero_()
    tokens = np.random.default_rng(6).integers(1, 11, (4, 6))
    tokens[1, 4:] = tokens[2, 1:] = 0
    given = {"input_ids": tokens, "attention_mask": (tokens != 0).astype(np.int64)}
    graph = zoo("bert_mini", **SIZES, classes=3)
    inputs = {"tokens": tokens.astype(np.int32)}
    assert not mistakes(graph, theirs(model, inputs, given, lambda arrays: renamed(arrays, names), 3))
