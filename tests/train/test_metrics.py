"""Metrics against scikit-learn on made-up data with ties and sample weights, and streaming against whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn import metrics as sklearn

from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.torch.namespace import TorchNamespace
from unitrain.spec import metrics as specs
from unitrain.spec.base import Spec
from unitrain.spec.errors import InputError
from unitrain.spec.losses import BinaryCrossEntropy, CrossEntropy, KlDivergence, MeanSquaredError
from unitrain.spec.recipe import OutputLoss
from unitrain.train.binding import bind_metrics, metric_labels
from unitrain.train.metrics import Units, make_metric

Array = npt.NDArray[Any]
Sample = tuple[Array, Array, Array | None]

NUMPY = NumpyNamespace()
quick = settings(max_examples=60, deadline=None)


@st.composite
def classified(draw: st.DrawFn, low: int = 2, high: int = 5) -> Sample:
    """Logits ``[batch, class]`` with many ties, class numbers (some classes may be missing), sample weights."""
    classes, count = draw(st.integers(low, high)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    present = draw(st.integers(1, classes))
    logits = rng.integers(-3, 4, (count, classes)) / 2.0
    weight = rng.integers(1, 5, count) / 2.0 if draw(st.booleans()) else None
    return logits, rng.integers(0, present, count).astype(np.int32), weight


@st.composite
def measured(draw: st.DrawFn, width: int = 3) -> Sample:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(2, 30))
    weight = rng.uniform(0.1, 2.0, count) if draw(st.booleans()) else None
    return rng.normal(size=(count, width)), rng.normal(size=(count, width)), weight


def measure(spec: specs.Metric, sample: Sample, ignore_index: int | None = None) -> Any:
    return make_metric(spec, ignore_index).evaluate(*sample)


@quick
@given(sample=classified())
def test_accuracy_and_confusion(sample: Sample) -> None:
    logits, target, weight = sample
    chosen = logits.argmax(axis=1)
    expected = sklearn.accuracy_score(target, chosen, sample_weight=weight)
    assert measure(specs.Accuracy(), sample) == pytest.approx(expected)
    matrix = sklearn.confusion_matrix(target, chosen, labels=range(logits.shape[1]), sample_weight=weight)
    np.testing.assert_allclose(measure(specs.ConfusionMatrix(), sample), matrix)


@quick
@given(sample=classified())
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy(sample: Sample) -> None:
    logits, target, weight = sample
    expected = sklearn.balanced_accuracy_score(target, logits.argmax(axis=1), sample_weight=weight)
    assert measure(specs.BalancedAccuracy(), sample) == pytest.approx(expected)


@quick
@given(sample=classified(low=3), k=st.integers(1, 6))
def test_top_k_counts_the_first_of_equal_logits(sample: Sample, k: int) -> None:
    """Of equal logits the classes with the smaller number win: the order of a stable sort."""
    logits, target, weight = sample
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    expected = np.average((order == target[:, None]).any(axis=1), weights=weight)
    assert measure(specs.TopK(k=k), sample) == pytest.approx(expected)
    if k == 1:
        assert measure(specs.Accuracy(), sample) == measure(specs.TopK(k=1), sample)


@quick
@given(sample=classified(low=3), k=st.integers(1, 2))
def test_top_k_without_ties_is_sklearn(sample: Sample, k: int) -> None:
    logits, target, weight = sample
    apart = logits + 1e-3 * np.arange(logits.shape[1])
    expected = sklearn.top_k_accuracy_score(target, apart, k=k, labels=range(logits.shape[1]), sample_weight=weight)
    assert measure(specs.TopK(k=k), (apart, target, weight)) == pytest.approx(expected)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@quick
@given(sample=classified())
def test_precision_recall_f1_over_all_classes(average: specs.Average, sample: Sample) -> None:
    """All classes count in ``macro``, also those that never occur: with 0."""
    logits, target, weight = sample
    expected = sklearn.precision_recall_fscore_support(
        target,
        logits.argmax(axis=1),
        labels=range(logits.shape[1]),
        average=average,
        sample_weight=weight,
        zero_division=0.0,
    )[:3]
    found = [measure(kind(average=average), sample) for kind in (specs.Precision, specs.Recall, specs.F1)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@quick
@given(sample=classified(low=2, high=2))
def test_precision_recall_f1_of_class_one(sample: Sample) -> None:
    logits, target, weight = sample
    expected = sklearn.precision_recall_fscore_support(
        target, logits.argmax(axis=1), pos_label=1, average="binary", sample_weight=weight, zero_division=0.0
    )[:3]
    one_logit = (logits[:, 1:] - logits[:, :1], target, weight)
    for kind, value in zip((specs.Precision, specs.Recall, specs.F1), expected, strict=True):
        assert measure(kind(), sample) == pytest.approx(value)
        assert measure(kind(average="binary"), sample) == pytest.approx(value)
        assert measure(kind(), one_logit) == pytest.approx(value)


def test_three_classes_are_averaged_macro_unless_told() -> None:
    sample = (np.eye(3)[[0, 1, 2, 1, 0]], np.array([0, 1, 1, 2, 0]), None)
    for kind in (specs.Precision, specs.Recall, specs.F1):
        assert measure(kind(), sample) == measure(kind(average="macro"), sample)
        assert measure(kind(), sample) != measure(kind(average="micro"), sample)


@quick
@given(sample=classified(low=2, high=2))
def test_auc_of_two_classes(sample: Sample) -> None:
    logits, target, weight = sample
    assume(len(set(target.tolist())) == 2)
    expected = sklearn.roc_auc_score(target, logits[:, 1] - logits[:, 0], sample_weight=weight)
    assert measure(specs.Auc(), sample) == pytest.approx(expected)
    for one in (logits[:, 1:] - logits[:, :1], logits[:, 1] - logits[:, 0]):
        assert measure(specs.Auc(), (one, target, weight)) == pytest.approx(expected)


@quick
@given(sample=classified(low=3, high=5))
def test_auc_one_against_the_rest(sample: Sample) -> None:
    logits, target, weight = sample
    classes = logits.shape[1]
    probabilities = softmax(logits, axis=1)
    present = sorted(set(target.tolist()))
    assume(len(present) > 1)
    areas = [sklearn.roc_auc_score(target == k, probabilities[:, k], sample_weight=weight) for k in present]
    assert measure(specs.Auc(), sample) == pytest.approx(np.mean(areas))
    if len(present) == classes and weight is None:
        assert measure(specs.Auc(), sample) == pytest.approx(
            sklearn.roc_auc_score(target, probabilities, multi_class="ovr", average="macro")
        )


@quick
@given(sample=measured())
def test_auc_of_several_labels_is_the_mean_over_the_labels(sample: Sample) -> None:
    logits, numbers, weight = sample
    target = (numbers > 0).astype(np.int32)
    both = [k for k in range(target.shape[1]) if len(set(target[:, k].tolist())) == 2]
    assume(both)
    expected = sklearn.roc_auc_score(target[:, both], logits[:, both], average="macro", sample_weight=weight)
    assert measure(specs.Auc(), (logits, target, weight)) == pytest.approx(expected)


def test_auc_counts_pairs() -> None:
    scores, target = np.array([0.1, 0.4, 0.4, 0.8, 0.4]), np.array([0, 0, 1, 1, 1])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[target == 1] for n in scores[target == 0]]
    assert measure(specs.Auc(), (scores[:, None], target, None)) == pytest.approx(np.mean(pairs), rel=1e-15)
    assert math.isnan(measure(specs.Auc(), (scores[:, None], np.ones(5, np.int32), None)))
    # Logits so far apart that their sigmoids are all 1 in float64.
    assert measure(specs.Auc(), (np.array([[100.0], [200.0]]), np.array([0, 1]), None)) == 1.0


@quick
@given(sample=measured())
def test_regression(sample: Sample) -> None:
    prediction, target, weight = sample
    mse = sklearn.mean_squared_error(target, prediction, sample_weight=weight)
    assert measure(specs.Mse(), sample) == pytest.approx(mse)
    assert measure(specs.Rmse(), sample) == pytest.approx(math.sqrt(mse))
    mae = sklearn.mean_absolute_error(target, prediction, sample_weight=weight)
    assert measure(specs.Mae(), sample) == pytest.approx(mae)
    assert measure(specs.R2(), sample) == pytest.approx(sklearn.r2_score(target, prediction, sample_weight=weight))


def test_regression_of_one_target_does_not_spread() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(9, 1)), rng.normal(size=9)
    for spec, expected in (
        (specs.Mse(), sklearn.mean_squared_error(target, prediction[:, 0])),
        (specs.Rmse(), sklearn.root_mean_squared_error(target, prediction[:, 0])),
        (specs.Mae(), sklearn.mean_absolute_error(target, prediction[:, 0])),
        (specs.R2(), sklearn.r2_score(target, prediction[:, 0])),
    ):
        assert measure(spec, (prediction, target, None)) == pytest.approx(expected)


@quick
@given(sample=classified())
def test_perplexity_is_exp_of_log_loss(sample: Sample) -> None:
    logits, target, weight = sample
    expected = math.exp(
        sklearn.log_loss(target, softmax(logits, axis=1), labels=range(logits.shape[1]), sample_weight=weight)
    )
    assert measure(specs.Perplexity(), sample) == pytest.approx(expected)


def test_perplexity_beyond_all_bounds() -> None:
    assert measure(specs.Perplexity(), (np.array([[0.0, 5000.0]]), np.array([0]), None)) == math.inf
    assert math.isnan(measure(specs.Perplexity(), (np.array([[math.nan, 0.0]]), np.array([0]), None)))


def test_no_hit_where_a_logit_is_not_a_number() -> None:
    logits = np.full((4, 5), math.nan)
    for k in (2, 4):
        assert measure(specs.TopK(k=k), (logits, np.array([0, 1, 2, 3], np.int32), None)) == 0.0


@quick
@given(sample=classified(low=2, high=2))
def test_one_logit_is_a_binary_choice(sample: Sample) -> None:
    logits, target, weight = sample
    x = logits[:, 1] - logits[:, 0]
    expected = sklearn.accuracy_score(target, expit(x) > 0.5, sample_weight=weight)
    for prediction, wanted in ((x[:, None], target), (x[:, None], target[:, None]), (x, target), (x, target * 1.0)):
        assert measure(specs.Accuracy(), (prediction, wanted, weight)) == pytest.approx(expected)
        matrix = sklearn.confusion_matrix(target, x > 0, labels=[0, 1], sample_weight=weight)
        np.testing.assert_allclose(measure(specs.ConfusionMatrix(), (prediction, wanted, weight)), matrix)


def test_a_yes_or_no_may_be_a_probability() -> None:
    sample = (np.array([[1.0], [2.0], [-1.0]]), np.array([0.9, 0.2, 0.1]), None)
    assert measure(specs.Accuracy(), sample) == pytest.approx(2 / 3)
    assert measure(specs.ConfusionMatrix(), sample) == [[1.0, 1.0], [0.0, 1.0]]


def test_a_binary_average_is_of_two_classes() -> None:
    sample = (np.eye(3), np.arange(3), None)
    for kind in (specs.Precision, specs.Recall, specs.F1):
        with pytest.raises(ValueError, match="there are 3"):
            measure(kind(average="binary"), sample)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "per_class"])
@quick
@given(sample=measured())
def test_averages_over_several_labels_are_over_the_labels(average: specs.Average, sample: Sample) -> None:
    logits, numbers, weight = sample
    target = (numbers > 0).astype(np.int32)
    expected = sklearn.precision_recall_fscore_support(
        target,
        (logits > 0).astype(int),
        average=None if average == "per_class" else average,
        sample_weight=weight,
        zero_division=0.0,
    )[:3]
    for kind, value in zip((specs.Precision, specs.Recall, specs.F1), expected, strict=True):
        metric = make_metric(kind(average=average))
        np.testing.assert_allclose(metric.evaluate(logits, target, weight), value, rtol=1e-12)
        parts = [slice(0, 1), slice(1, None)]
        sums = sum(metric.sums(logits[i], target[i], None if weight is None else weight[i]) for i in parts)
        np.testing.assert_allclose(metric.of_sums(sums), value, rtol=1e-12)


@quick
@given(sample=measured())
def test_answers_about_several_labels_are_taken_together_unless_told(sample: Sample) -> None:
    logits, numbers, _ = sample
    target = (numbers > 0).astype(np.int32)
    expected = sklearn.f1_score(target.reshape(-1), logits.reshape(-1) > 0, zero_division=0.0)
    assert measure(specs.F1(), (logits, target, None)) == pytest.approx(expected)
    assert measure(specs.F1(average="micro"), (logits, target, None)) == pytest.approx(expected)


@pytest.mark.parametrize("code", [-1, 3, 9])
def test_a_class_outside_the_model_is_not_counted_in_silence(code: int) -> None:
    sample = (np.eye(3), np.array([0, 1, code]), None)
    for spec in (specs.ConfusionMatrix(), specs.BalancedAccuracy(), specs.F1()):
        with pytest.raises(InputError) as caught:
            measure(spec, sample)
        assert (caught.value.problems[0].found, caught.value.problems[0].allowed) == (str(code), "0 .. 2")
        measure(spec, sample, ignore_index=code)


@pytest.mark.filterwarnings("error")
def test_nothing_to_measure_is_not_a_number() -> None:
    nothing = np.zeros(4)
    assert math.isnan(measure(specs.R2(), (np.ones((4, 1)), np.arange(4.0), nothing)))
    assert math.isnan(measure(specs.R2(), (np.ones((4, 1)), np.full(4, 2.0), None)))
    for spec in (specs.Accuracy(), specs.Perplexity(), specs.BalancedAccuracy(), specs.Auc()):
        assert math.isnan(measure(spec, (np.eye(4), np.arange(4), nothing)))


STREAMS: list[specs.Metric] = [
    specs.Accuracy(),
    specs.TopK(k=2),
    specs.Perplexity(),
    specs.Mse(),
    specs.Rmse(),
    specs.Mae(),
    specs.Mape(),
    specs.Smape(),
    specs.Mase(),
]
ERRORS = {specs.Mse, specs.Rmse, specs.Mae, specs.Mape, specs.Smape, specs.Mase}
COUNTED: list[specs.Metric] = [
    specs.BalancedAccuracy(),
    specs.Precision(average="micro"),
    specs.Recall(),
    specs.F1(average="weighted"),
    specs.ConfusionMatrix(),
    specs.Auc(),
    specs.Iou(),
    specs.Dice(),
]


@pytest.mark.parametrize("spec", [*STREAMS[:3], *COUNTED], ids=lambda spec: spec.type)
@pytest.mark.parametrize("ignored", [2, -100])
def test_ignored_elements_are_as_if_they_were_not_there(spec: specs.Metric, ignored: int) -> None:
    """Segmentation: logits ``[batch, place, class]``, class numbers ``[batch, place]``."""
    rng = np.random.default_rng(1)
    logits, target = rng.normal(size=(6, 10, 4)), rng.integers(0, 4, (6, 10)).astype(np.int32)
    weight = rng.uniform(0.5, 2.0, 6)
    target[rng.random(target.shape) < 0.3] = ignored
    kept = target != ignored
    flat = (logits[kept], target[kept], np.broadcast_to(weight[:, None], target.shape)[kept])
    np.testing.assert_allclose(measure(spec, (logits, target, weight), ignored), measure(spec, flat), rtol=1e-12)
    everything = np.full_like(target, ignored)
    if not isinstance(spec, specs.ConfusionMatrix | specs.Precision | specs.Recall | specs.F1):
        assert math.isnan(measure(spec, (logits, everything, weight), ignored))


def _columns() -> list[tuple[str, Any, Callable[[Array], Any]]]:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is optional")
    from unitrain.backends.keras.namespace import TensorFlowNamespace

    return [
        ("numpy", NUMPY, np.asarray),
        ("torch", TorchNamespace(), torch.tensor),
        ("tensorflow", TensorFlowNamespace(), tf.constant),
    ]


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize(
    ("spec", "one_logit"),
    [
        *((spec, False) for spec in STREAMS),
        *((spec, True) for spec in STREAMS if spec.type not in ("top_k", "perplexity")),
    ],
    ids=lambda value: value.type if isinstance(value, Spec) else "one_logit" * value,
)
def test_sums_over_batches_are_the_whole(spec: specs.Metric, one_logit: bool, weighted: bool) -> None:
    """In float32, on every framework, with a short last batch."""
    rng = np.random.default_rng(2)
    numeric = type(spec) in ERRORS
    shape = (50, 1) if one_logit else (50, 4)
    prediction = (rng.integers(-4, 5, shape) / 4.0).astype(np.float32)
    target = rng.integers(0, 2 if one_logit else 4, shape if numeric else 50).astype(
        np.float32 if numeric else np.int32
    )
    weight = rng.uniform(0.5, 2.0, 50).astype(np.float32) if weighted else None
    ignored = None if numeric or one_logit else 3
    metric = make_metric(spec, ignored)
    assert metric.streams
    whole = metric.evaluate(
        prediction.astype(np.float64), target, None if weight is None else weight.astype(np.float64)
    )
    for name, xp, convert in _columns():
        sums = np.zeros(2)
        for start in range(0, 50, 16):
            part = slice(start, start + 16)
            given_weight = None if weight is None else convert(weight[part])
            terms = metric.terms(xp, convert(prediction[part]), convert(target[part]), given_weight)
            assert all(isinstance(term, float) or "float32" in str(term.dtype) for term in terms), name
            sums += [float(term) for term in terms]
        assert metric.finish(sums[0] / sums[1]) == pytest.approx(whole, rel=1e-6), name


@pytest.mark.parametrize("spec", [*STREAMS, *COUNTED, specs.R2()], ids=lambda spec: spec.type)
def test_shapes_that_do_not_fit_raise(spec: specs.Metric) -> None:
    for target in (np.zeros(8, np.int32), np.zeros((4, 2), np.int32), np.zeros((3, 3), np.int32)):
        with pytest.raises(ValueError, match="do not fit"):
            measure(spec, (np.zeros((4, 3)), target, None))


def test_only_ratios_of_sums_stream() -> None:
    for spec in [*COUNTED, specs.R2()]:
        metric = make_metric(spec)
        assert not metric.streams
        with pytest.raises(TypeError):
            metric.finish(1.0)


def test_what_is_better() -> None:
    lower = {*ERRORS, specs.Perplexity}
    for spec in [*STREAMS, *COUNTED, specs.R2()]:
        assert make_metric(spec).higher_is_better is (type(spec) not in lower)


def test_labels_tell_metrics_apart() -> None:
    several = (specs.TopK(k=3), specs.F1(), specs.F1(average="weighted"), specs.Precision(average="macro"))
    assert metric_labels(several, ["y"]) == ["top_3", "f1", "f1_weighted", "precision_macro"]
    named = (specs.Accuracy(output="a"), specs.Accuracy(output="b"))
    assert metric_labels(named, ["a", "b"]) == ["a/accuracy", "b/accuracy"]
    with pytest.raises(InputError) as caught:
        metric_labels((specs.Mse(), specs.TopK(), specs.TopK(k=5)), ["y"])
    assert caught.value.problems[0].field == ("metrics", 2)
    assert caught.value.problems[0].found == "top_5"


def test_an_output_must_be_named_and_known() -> None:
    with pytest.raises(InputError, match="must name its output"):
        metric_labels((specs.Accuracy(),), ["digit", "colour"])
    with pytest.raises(InputError) as caught:
        metric_labels((specs.Accuracy(output="color"),), ["digit", "colour"])
    problem = caught.value.problems[0]
    assert problem.field == ("metrics", 0, "output")
    assert problem.hint == "did you mean 'colour'?"


def test_bound_metrics_ignore_what_the_loss_of_their_output_ignores() -> None:
    trained = {
        "map": OutputLoss(loss=CrossEntropy(ignore_index=255)),
        "sick": OutputLoss(loss=BinaryCrossEntropy()),
        "age": OutputLoss(loss=MeanSquaredError()),
    }
    chosen = (specs.Accuracy(output="map"), specs.Auc(output="sick"), specs.Mae(output="age"))
    bound = bind_metrics(chosen, trained)
    assert [(item.label, item.output) for item in bound] == [
        ("map/accuracy", "map"),
        ("sick/auc", "sick"),
        ("age/mae", "age"),
    ]
    logits, target = np.eye(3)[[0, 1, 2]], np.array([0, 0, 255], np.int32)
    assert bound[0].metric.evaluate(logits, target, None) == 0.5


@pytest.mark.parametrize("spec", [*STREAMS[:2], *COUNTED], ids=lambda spec: spec.type)
def test_of_probabilities_the_likeliest_class_is_the_target(spec: specs.Metric) -> None:
    """Distillation: targets ``[batch, class]`` of the size of the logits are not as many yes or no."""
    (bound,) = bind_metrics([spec], {"y": OutputLoss(loss=KlDivergence())})
    rng = np.random.default_rng(3)
    logits, target, weight = rng.normal(size=(30, 4)), rng.dirichlet(np.ones(4), 30), rng.uniform(0.5, 2.0, 30)
    likeliest = np.array([max(range(4), key=row.__getitem__) for row in target.tolist()])
    plain = make_metric(spec)
    assert bound.metric.evaluate(logits, target, weight) == plain.evaluate(logits, likeliest, weight)
    assert (bound.metric.streams, bound.metric.higher_is_better) == (plain.streams, plain.higher_is_better)
    if plain.streams:
        for _, xp, convert in _columns():
            found = bound.metric.terms(xp, convert(logits), convert(target), convert(weight))
            expected = plain.terms(NUMPY, logits, likeliest, weight)
            np.testing.assert_allclose([float(term) for term in found], expected, rtol=1e-14)
        assert bound.metric.finish(0.25) == 0.25


@quick
@given(sample=measured())
def test_mape_is_sklearn_in_the_units_of_the_data(sample: Sample) -> None:
    p, y, weight = sample
    shift, scale = np.array([3.0, -1.0, 0.5]), np.array([2.0, 0.5, 10.0])
    units = Units(tuple(shift), tuple(scale))
    expected = sklearn.mean_absolute_percentage_error(y * scale + shift, p * scale + shift, sample_weight=weight)
    assert make_metric(specs.Mape(), units=units).evaluate(p, y, weight) == pytest.approx(expected, rel=1e-9)
    assert measure(specs.Mape(), sample) == pytest.approx(
        sklearn.mean_absolute_percentage_error(y, p, sample_weight=weight), rel=1e-9
    )


def test_smape_by_hand() -> None:
    """2*1/(3+2) = 0.4, opposite signs 2, both zero 0, one zero 2: the mean is 1.1."""
    p, y = np.array([[2.0, -1.0, 0.0, 0.0]]), np.array([[3.0, 1.0, 0.0, 5.0]])
    assert measure(specs.Smape(), (p, y, None)) == pytest.approx((0.4 + 2.0 + 0.0 + 2.0) / 4, rel=1e-12)


def test_mase_scales_each_column_by_its_own_naive_error() -> None:
    """Errors 1 and 2 in scaled targets are 2 and 20 in the data; the naive forecast is wrong by 4 and 5."""
    units = Units(shift=(7.0, 7.0), scale=(2.0, 10.0), naive=(4.0, 5.0))
    p, y = np.array([[[0.0, 0.0]]]), np.array([[[1.0, 2.0]]])
    assert make_metric(specs.Mase(), units=units).evaluate(p, y, None) == pytest.approx((0.5 + 4.0) / 2, rel=1e-12)


def test_mase_needs_a_series_that_changes() -> None:
    with pytest.raises(InputError, match="mase is of a series"):
        make_metric(specs.Mase(), units=Units())
    with pytest.raises(InputError, match="never wrong in the training span"):
        make_metric(specs.Mase(), units=Units(naive=(0.0,)))


@quick
@given(sample=classified())
def test_iou_and_dice_of_the_classes_that_occur(sample: Sample) -> None:
    logits, wanted, weight = sample
    chosen = logits.argmax(axis=1)
    occurring = sorted(set(wanted.tolist()) | set(chosen.tolist()))
    for spec, reference in ((specs.Iou, sklearn.jaccard_score), (specs.Dice, sklearn.f1_score)):
        each = reference(wanted, chosen, labels=occurring, average=None, sample_weight=weight, zero_division=0.0)
        found = measure(spec(average="per_class"), sample)
        assert [found[code] for code in occurring] == pytest.approx(each.tolist(), rel=1e-9)
        assert all(math.isnan(value) for code, value in enumerate(found) if code not in occurring)
        assert measure(spec(), sample) == pytest.approx(each.mean(), rel=1e-9)
        micro = reference(wanted, chosen, labels=occurring, average="micro", sample_weight=weight)
        assert measure(spec(average="micro"), sample) == pytest.approx(micro, rel=1e-9)


def test_pixels_that_are_ignored_count_nothing_in_iou() -> None:
    """Two pictures of 1 x 3 pixels, logits ``[2, 1, 3, 2]``: class 0 has 1 right of 2, class 1 has 2 of 3."""
    logits = np.eye(2)[[[[0, 1, 1]], [[1, 0, 0]]]]
    masks = np.array([[[0, 0, 1]], [[1, 255, 255]]])
    assert measure(specs.Iou(average="per_class"), (logits, masks, None), 255) == pytest.approx([1 / 2, 2 / 3])
    assert measure(specs.Accuracy(), (logits, masks, None), 255) == pytest.approx(3 / 4)
