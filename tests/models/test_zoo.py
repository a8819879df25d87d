"""The models that come with unitrain: parameter counts as published, and the small ones verified on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from unitrain.cli.main import app
from unitrain.graph.resolve import resolve
from unitrain.spec.base import validate
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import read_yaml

ROOT = Path(__file__).parents[2]
SIZES = yaml.safe_load((ROOT / "scripts/zoo.yaml").read_text(encoding="utf-8"))

# Trainable parameters with the arguments as they stand; where each is published.
COUNTS = {
    "vgg11": 132_863_336,  # torchvision, VGG11_Weights.IMAGENET1K_V1
    "resnet18": 11_689_512,  # torchvision, ResNet18_Weights
    "resnet50": 25_557_032,  # torchvision, ResNet50_Weights
    "mobilenet_v2": 3_504_872,  # torchvision, MobileNet_V2_Weights
    "densenet121": 7_978_856,  # torchvision, DenseNet121_Weights
    "mlp_mixer": 18_528_264,  # timm, mixer_s16_224
    "vit_tiny": 5_717_416,  # timm, vit_tiny_patch16_224
    "efficientnet_b0": 5_288_548,  # torchvision, EfficientNet_B0_Weights
    "mobilenet_v3_small": 2_542_856,  # torchvision, MobileNet_V3_Small_Weights
    "convnext_tiny": 28_589_128,  # torchvision, ConvNeXt_Tiny_Weights
    "lenet5": 61_706,  # LeCun et al. 1998 in the fully connected form: 156 + 2,416 + 48,120 + 10,164 + 850
}


# Running means and variances, which are no parameters that train; keras.applications counts them as such that do not.
RUNNING = {
    "vgg11": 0,
    "resnet18": 9_600,  # torchvision, numbers in buffers but for num_batches_tracked
    "resnet50": 53_120,  # keras.applications.ResNet50, non-trainable
    "mobilenet_v2": 34_112,  # keras.applications.MobileNetV2, non-trainable
    "densenet121": 83_648,  # keras.applications.DenseNet121, non-trainable
    "efficientnet_b0": 42_016,  # keras.applications.EfficientNetB0: 42,023 with 7 of its normalization of inputs
    "vit_tiny": 0,
}


def load(name):
    return validate(ModelSpec, read_yaml(ROOT / f"models/{name}.yaml"))


def test_every_model_is_verified_somewhere():
    listed = [name for part in SIZES.values() for name in part]
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "models").glob("*.yaml"))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_published(name):
    assert resolve(load(name)).parameter_count(True) == COUNTS[name]


@pytest.mark.parametrize("name", RUNNING)
def test_running_statistics_stand_apart(name):
    graph = resolve(load(name))
    assert graph.parameter_count(False) == RUNNING[name]


def test_resnet50_with_biases_has_the_parameters_of_keras():
    graph = resolve(load("resnet50"), {"bias": True})
    # keras.applications.ResNet50: 25,636,712, of which 53,120 do not train.
    assert graph.parameter_count(True) + graph.parameter_count(False) == 25_636_712


def test_gpt_has_the_parameters_of_gpt2_small():
    arguments = {"vocabulary": 50257, "length": 1024, "width": 768, "heads": 12, "depth": 12}
    assert resolve(load("gpt_mini"), arguments).parameter_count(True) == 124_439_808


def test_the_page_lists_every_model_with_its_counts():
    page = (ROOT / "docs/zoo.md").read_text(encoding="utf-8")
    for path in (ROOT / "models").glob("*.yaml"):
        graph = resolve(load(path.stem))
        assert f"| `{path.stem}` | {graph.parameter_count(True):,} | {graph.parameter_count(False):,} |" in page


@pytest.mark.parametrize("name", [name for part in SIZES.values() for name in part])
def test_it_says_what_it_is_and_takes_its_small_size(name):
    spec = load(name)
    assert spec.name == name
    assert spec.description
    assert spec.source
    small = next(part[name] for part in SIZES.values() if name in part)
    assert resolve(spec, small).parameter_count(True) <= 200_000


@pytest.mark.parametrize("name", SIZES["quick"])
def test_it_computes_the_same_everywhere(name):
    options = [word for argument, value in SIZES["quick"][name].items() for word in ("--set", f"{argument}={value}")]
    done = CliRunner().invoke(
        app, ["verify", str(ROOT / f"models/{name}.yaml"), "--level", "forward,backward,step", *options]
    )
    assert done.exit_code == 0, done.output
