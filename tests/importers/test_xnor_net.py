"""Checkpoints of XNOR-Net-PyTorch become the network that they hold, or are refused by name."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_files import Call, Name, state_dict, stream_file, zip_file

from bitinfer import backends, bits, modelfile, session, zoo
from bitinfer.errors import CheckpointError, InputError, ShapeError, UnknownNameError
from bitinfer.importers import states
from bitinfer.importers.convert import convert as convert_with
from bitinfer.importers.options import Options
from bitinfer.importers.outcome import Conversion, LayerOutcome
from bitinfer.importers.states.state_dict import StateDict
from bitinfer.importers.states.xnor_net import CheckpointSource
from bitinfer.model import Model, Preprocessing

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
REAL = SHARED / "weights" / "xnor_nin_cifar10" / "nin_best_XNOR.pth.tar"

needs_real = pytest.mark.skipif(
    not REAL.exists(), reason="the real checkpoint and pictures, ../shared, are absent"
)

State = dict[str, NDArray[Any]]


def convert(path: Path, arch: str, **options: Any) -> tuple[Model, Conversion]:
    return convert_with(path, arch, Options(**options))


def found(layer: LayerOutcome) -> dict[str, int]:
    return {finding.kind: finding.count for finding in layer.findings}


@pytest.fixture
def lenet5() -> State:
    return state_dict("xnor-lenet5")


def written(path: Path, value: Any, file: Callable[..., bytes] = zip_file) -> Path:
    path = path / "net.pth.tar"
    path.write_bytes(file(value))
    return path


def model_of(path: Path, state: State, arch: str = "xnor-lenet5", **options: Any) -> Model:
    model, _ = convert(written(path, {"acc": 99.2, "state_dict": state}), arch, **options)
    return model


def refusal(path: Path, state: dict[str, Any], arch: str = "xnor-lenet5") -> str:
    with pytest.raises(CheckpointError) as caught:
        model_of(path, state, arch)
    message = str(caught.value)
    assert "net.pth.tar: " in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize("file", [zip_file, stream_file])
@pytest.mark.parametrize("arch", ["xnor-lenet5", "xnor-nin"])
def test_both_formats_give_the_same_network(
    tmp_path: Path, arch: str, file: Callable[..., bytes]
) -> None:
    model, report = convert(written(tmp_path, {"state_dict": state_dict(arch)}, file), arch)
    assert model.graph.name == arch
    assert model.checked.values[model.graph.outputs[0]].shape == (10,)
    zipped = model_of(tmp_path, state_dict(arch), arch)
    assert zipped.graph == model.graph
    for name, tensor in zipped.tensors.items():
        np.testing.assert_array_equal(tensor, model.tensors[name])
    assert report.parameters == sum(
        v.size for k, v in state_dict(arch).items() if not k.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize("name", ["bin_conv2.conv", "bin_ip1.linear"])
def test_binary_weights_are_centred_clamped_signs_with_the_mean_size_for_alpha(
    tmp_path: Path, lenet5: State, name: str
) -> None:
    weight = lenet5[f"{name}.weight"].astype(np.float64)
    centred = np.clip(weight - weight.mean(axis=1, keepdims=True), -1, 1)
    alpha = np.array([np.mean(np.abs(row)) for row in centred])
    if weight.ndim == 4:
        centred = np.moveaxis(centred, 1, -1)
    assert np.abs(centred).min() > 1e-7  # no sign depends on rounding
    model = model_of(tmp_path, lenet5)
    signs = bits.unpack(model.tensors[f"{name}.weight"], centred.shape[-1])
    np.testing.assert_array_equal(signs, np.where(centred < 0, -1, 1))
    np.testing.assert_allclose(model.tensors[f"{name}.alpha"], alpha, rtol=1e-6)
    np.testing.assert_array_equal(model.tensors[f"{name}.bias"], lenet5[f"{name}.bias"])


def test_first_and_last_layer_stay_as_they_are(tmp_path: Path, lenet5: State) -> None:
    tensors = model_of(tmp_path, lenet5).tensors
    np.testing.assert_array_equal(
        tensors["conv1.weight"], np.moveaxis(lenet5["conv1.weight"], 1, -1)
    )
    np.testing.assert_array_equal(tensors["ip2.weight"], lenet5["ip2.weight"])
    np.testing.assert_array_equal(tensors["ip2.bias"], lenet5["ip2.bias"])


def test_gammas_below_a_hundredth_are_raised_and_reported(tmp_path: Path, lenet5: State) -> None:
    lenet5["bin_conv2.bn.weight"][:3] = (0.005, -2, 0)
    path = written(tmp_path, {"state_dict": lenet5})
    model, report = convert(path, "xnor-lenet5")
    wanted = lenet5["bin_conv2.bn.weight"].copy()
    wanted[:3] = 0.01
    np.testing.assert_array_equal(model.tensors["bin_conv2.bn.gamma"], wanted)
    layer = next(entry for entry in report.layers if entry.name == "bin_conv2.bn")
    assert found(layer) == {"raised gammas": 3}
    assert "3 gammas raised" in str(layer.findings[0])


def test_zero_weights_and_channels_are_counted_per_layer(tmp_path: Path, lenet5: State) -> None:
    # Constant over the input channels: centring makes all of them 0.
    lenet5["bin_conv2.conv.weight"][7, :, 2, 3] = 0.25
    # A dead channel: its BatchNorm maps 0 to 0.
    for key, value in (("running_mean", 0), ("running_var", 0), ("bias", 0)):
        lenet5[f"bin_conv2.bn.{key}"][4] = value
    _, report = convert(written(tmp_path, {"state_dict": lenet5}), "xnor-lenet5")
    layers = {entry.name: entry for entry in report.layers}
    assert found(layers["bin_conv2.conv"]) == {"zero weights": 20, "sign of zero": 1}
    assert found(layers["bin_ip1.linear"]) == {}


def test_report_says_for_every_layer_what_it_became_and_why(tmp_path: Path) -> None:
    state = state_dict("xnor-nin")
    _, report = convert(written(tmp_path, state), "xnor-nin")
    assert {e.name for e in report.layers} == {key.rpartition(".")[0] for key in state}
    binary = [e.name for e in report.layers if e.is_binary]
    assert binary == [f"xnor.{i}.conv" for i in (3, 4, 6, 7, 8, 10, 11)]
    reasons = {e.name: e.reason for e in report.layers}
    assert reasons["xnor.0"].startswith("first layer")
    assert reasons["xnor.13"].startswith("last layer")
    assert all(reasons.values())
    assert report.float_bytes == 4 * 972_618
    assert report.binary_weights == 949_248


def test_module_is_stripped_wherever_it_stands(tmp_path: Path, lenet5: State) -> None:
    plain = model_of(tmp_path, lenet5)
    renamed = {
        # Some keys keep it: the framework renames while it iterates.
        ("module." + k if i % 2 else k.replace(".", ".module.", 1)): v
        for i, (k, v) in enumerate(lenet5.items())
    }
    model = model_of(tmp_path, renamed)
    assert model.graph == plain.graph
    np.testing.assert_array_equal(model.tensors["conv1.weight"], plain.tensors["conv1.weight"])


def test_state_dict_may_be_the_whole_checkpoint(tmp_path: Path, lenet5: State) -> None:
    model, _ = convert(written(tmp_path, lenet5), "xnor-lenet5")
    assert model.graph == model_of(tmp_path, lenet5).graph


@pytest.mark.parametrize("dtype", ["f8", "f2"])
def test_other_floats_are_rounded_to_float32(tmp_path: Path, lenet5: State, dtype: str) -> None:
    wanted = lenet5["ip2.weight"].astype(dtype).astype(np.float32)
    lenet5["ip2.weight"] = lenet5["ip2.weight"].astype(dtype)
    np.testing.assert_array_equal(model_of(tmp_path, lenet5).tensors["ip2.weight"], wanted)


def test_missing_key_is_named_with_what_was_wanted(tmp_path: Path, lenet5: State) -> None:
    del lenet5["bin_conv2.bn.running_var"]
    message = refusal(tmp_path, lenet5)
    assert "bin_conv2.bn.running_var is missing" in message
    assert "(20,)" in message


def test_unexpected_key_is_named(tmp_path: Path, lenet5: State) -> None:
    lenet5["ip3.weight"] = np.ones((2, 2), np.float32)
    assert "'ip3.weight' is no part of xnor-lenet5" in refusal(tmp_path, lenet5)


def test_misshapen_key_is_named_with_both_shapes(tmp_path: Path, lenet5: State) -> None:
    lenet5["bin_conv2.conv.weight"] = np.ones((50, 20, 3, 3), np.float32)
    message = refusal(tmp_path, lenet5)
    for part in ("bin_conv2.conv.weight", "(50, 20, 3, 3)", "(50, 20, 5, 5)"):
        assert part in message


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, state_dict("xnor-nin"))
    assert "conv1.weight is missing" in message
    assert "another architecture" in message


def test_key_in_two_spellings_is_refused(tmp_path: Path, lenet5: State) -> None:
    lenet5["module.ip2.bias"] = lenet5["ip2.bias"]
    assert "'module.ip2.bias' stands twice" in refusal(tmp_path, lenet5)


@pytest.mark.parametrize(
    "value",
    [
        Call(Name("numpy.core.multiarray", "_reconstruct"), ()),
        [1.0] * 10,
        None,
        np.ones(10, np.int64),
        np.full(10, np.nan, np.float32),
        np.full(10, 1e300),
    ],
    ids=["inert", "list", "none", "integers", "nan", "beyond float32"],
)
def test_what_is_no_float_tensor_is_refused_by_name(
    tmp_path: Path, lenet5: State, value: Any
) -> None:
    assert "ip2.bias" in refusal(tmp_path, {**lenet5, "ip2.bias": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("running_var", -1e-3), ("running_mean", 3e38), ("weight", 3e38), ("bias", np.inf)],
)
def test_batch_norm_out_of_range_is_refused_by_name(
    tmp_path: Path, lenet5: State, key: str, value: float
) -> None:
    lenet5["bin_conv2.bn.running_var"][3] = 0
    lenet5[f"bin_conv2.bn.{key}"][3] = value
    assert "bin_conv2.bn" in refusal(tmp_path, lenet5)


def test_huge_weights_are_clamped(tmp_path: Path, lenet5: State) -> None:
    lenet5["bin_conv2.conv.weight"][0] *= np.float32(5e37)
    alpha = model_of(tmp_path, lenet5).tensors["bin_conv2.conv.alpha"]
    assert 0.9 < alpha[0] <= 1


def test_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="only 'epoch', 'optimizer'"):
        convert(written(tmp_path, {"epoch": 3, "optimizer": {}}), "xnor-nin")


def test_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="xnor-resnet18"):
        convert(tmp_path / "net.pth", "resnet")


def test_number_of_classes_comes_from_the_checkpoint(tmp_path: Path) -> None:
    model = model_of(tmp_path, state_dict("xnor-nin", classes=37), "xnor-nin")
    assert model.checked.values[model.graph.outputs[0]].shape == (37,)
    assert model.labels == ()


def test_defaults_are_those_of_the_framework(tmp_path: Path, lenet5: State) -> None:
    digits = model_of(tmp_path, lenet5)
    assert digits.labels == tuple("0123456789")
    assert digits.preprocessing == Preprocessing(
        "grey", (0.1307,), (0.3081,), scale=1 / 255, resize=(28, 28)
    )
    pictures = model_of(tmp_path, state_dict("xnor-nin"), "xnor-nin")
    assert pictures.labels[3] == "cat"
    assert pictures.preprocessing == Preprocessing(
        "rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), scale=1 / 255, resize=(32, 32)
    )


def test_options_replace_the_defaults(tmp_path: Path) -> None:
    model = model_of(
        tmp_path,
        state_dict("xnor-nin"),
        "xnor-nin",
        labels=list("abcdefghij"),
        mean=[0.5],
        std=[0.1, 0.2, 0.3],
        scale=1.0,
        resize=40,
        crop=(32, 32),
    )
    assert model.labels == tuple("abcdefghij")
    assert model.preprocessing == Preprocessing(
        "rgb", (0.5, 0.5, 0.5), (0.1, 0.2, 0.3), scale=1.0, resize=40, crop=(32, 32)
    )


def test_options_that_do_not_fit_are_refused(tmp_path: Path, lenet5: State) -> None:
    with pytest.raises(ShapeError, match="mean: 3 numbers for 1 channels"):
        model_of(tmp_path, lenet5, mean=(1, 2, 3))
    with pytest.raises(InputError, match="2 labels, the network has 10 classes"):
        model_of(tmp_path, lenet5, labels=("a", "b"))


def test_provenance_names_the_file_without_its_directory(tmp_path: Path, lenet5: State) -> None:
    provenance = model_of(tmp_path, lenet5, swap_hw=True).provenance
    assert provenance is not None
    assert provenance.source == "net.pth.tar"
    data = (tmp_path / "net.pth.tar").read_bytes()
    assert provenance.source_sha256 == hashlib.sha256(data).hexdigest()
    assert provenance.importer == "xnor_net_pytorch"
    assert set(provenance.versions) == {"bitinfer", "numpy", "python"}
    assert provenance.notes == ("height and width swapped",)


def test_same_checkpoint_gives_the_same_bytes(tmp_path: Path, lenet5: State) -> None:
    first = modelfile.to_bytes(model_of(tmp_path, lenet5))
    assert first == modelfile.to_bytes(model_of(tmp_path, lenet5))
    assert modelfile.from_bytes(first).labels == tuple("0123456789")


def test_file_name_that_is_not_text_does_not_stop_the_conversion(
    tmp_path: Path, lenet5: State
) -> None:
    path = tmp_path / "net\udcff.pth"
    path.write_bytes(zip_file(lenet5))
    model, report = convert(path, "xnor-lenet5")
    assert modelfile.to_bytes(model)
    assert report.source == "net?.pth"


@pytest.mark.parametrize("arch", ["xnor-lenet5", "xnor-nin"])
def test_swapped_network_sees_a_picture_as_the_plain_one_sees_it_transposed(
    tmp_path: Path, arch: str
) -> None:
    state = state_dict(arch, seed=5)
    plain = session.Session(model_of(tmp_path, state, arch), "reference")
    swapped = session.Session(model_of(tmp_path, state, arch, swap_hw=True), "reference")
    x = np.random.default_rng(0).standard_normal((2, *plain.inputs[0].shape), np.float32)
    wanted = plain.run(x.transpose(0, 2, 1, 3))
    assert np.abs(plain.run(x) - wanted).max() > 0.1
    np.testing.assert_allclose(swapped.run(x), wanted, rtol=1e-4, atol=1e-4)


def cifar_10() -> tuple[Any, Any]:
    pixels = lzma.decompress((SHARED / "data/cifar10/test1000_rgb.u8.xz").read_bytes())
    images = np.frombuffer(pixels, np.uint8).reshape(1000, 32, 32, 3)
    return images, np.fromfile(SHARED / "data/cifar10/test1000_labels.u8", np.uint8)


@needs_real
def test_real_network_gives_its_reference_outputs(backend_name: str) -> None:
    model, report = convert(REAL, "xnor-nin", swap_hw=True)
    assert not any(entry.findings for entry in report.layers)
    images, _ = cifar_10()
    reference = np.load(SHARED / "weights/reference_logits.npz")["xnor_nin_cifar10"]
    count = 100 if "avx" in backend_name else 10  # all give the same bits, but not as fast
    outputs = session.Session(model, backend_name).run(images[:count])
    apart = np.flatnonzero(np.abs(outputs - reference[:count]).max(axis=1) > 1e-3)
    assert apart.size == 0, f"images {apart} differ"


def count_correct(backend: str) -> int:
    model, _ = convert(REAL, "xnor-nin", swap_hw=True)
    images, labels = cifar_10()
    found = session.Session(model, backend).run(images).argmax(axis=1)
    return int(np.count_nonzero(found == labels))


@needs_real
def test_real_network_is_right_on_859_of_1000_pictures() -> None:
    if backends.select().name != "native":
        pytest.skip("1,000 pictures take too long without the native backend; run pytest --long")
    assert count_correct("auto") == 859


@needs_real
@pytest.mark.long
def test_every_backend_is_right_on_859_of_1000_pictures(backend_name: str) -> None:
    assert count_correct(backend_name) == 859


@pytest.mark.parametrize("arch", ["xnor-lenet5", "xnor-nin"])
def test_names_and_shapes_tell_the_architecture(tmp_path: Path, arch: str) -> None:
    path = written(tmp_path, {"state_dict": state_dict(arch, classes=7)})
    model, report = convert_with(path)
    assert model.graph.name == arch
    assert report.format == f"a PyTorch checkpoint of {arch}"


def test_alexnet_is_told_by_its_signature() -> None:
    weights = {
        "features.4.conv.weight": np.zeros((256, 96, 5, 5), np.float32),
        "classifier.0.linear.weight": np.zeros((4096, 9216), np.float32),
    }
    assert states.find_architecture(StateDict(weights)) == "xnor-alexnet"


def test_weights_that_fit_two_networks_ask_for_the_architecture(tmp_path: Path) -> None:
    both = state_dict("xnor-lenet5") | state_dict("xnor-nin")
    with pytest.raises(CheckpointError, match="fit xnor-lenet5 and xnor-nin; --arch says"):
        convert_with(written(tmp_path, both))


def test_weights_of_no_known_network_are_shown(tmp_path: Path) -> None:
    state = {"layer1.weight": np.ones((3, 3), np.float32)}
    with pytest.raises(CheckpointError, match=r"'layer1.weight', as those of no network"):
        convert_with(written(tmp_path, state))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "_orig_mod.module.", "model.", "net."])
def test_prefixes_of_wrappers_are_left_out(tmp_path: Path, lenet5: State, prefix: str) -> None:
    plain = model_of(tmp_path, lenet5)
    wrapped = {prefix + key: value for key, value in lenet5.items()}
    assert model_of(tmp_path, wrapped).graph == plain.graph


@pytest.mark.parametrize("key", ["model_state_dict", "model", "net"])
def test_the_only_dict_of_tensors_is_taken(tmp_path: Path, lenet5: State, key: str) -> None:
    path = written(tmp_path, {"epoch": 3, key: lenet5})
    model, _ = convert_with(path)
    assert model.graph == model_of(tmp_path, lenet5).graph


def test_whole_module_is_refused_with_what_to_save(tmp_path: Path) -> None:
    module = Call(Name("net", "LeNet_5"), ())
    for value in ({"model": module, "epoch": 3}, {"state_dict": module}):
        with pytest.raises(CheckpointError, match=r"save model.state_dict\(\) instead"):
            convert_with(written(tmp_path, value))


def test_questions_may_come_in_any_order(lenet5: State) -> None:
    for key, value in (("running_mean", 0), ("running_var", 0), ("bias", 0)):
        lenet5[f"bin_conv2.bn.{key}"][4] = value
    source = CheckpointSource(StateDict(lenet5), zoo.find("xnor-lenet5"))
    source.layer("bin_conv2.conv", (50, 5, 5, 20), is_binary=True)
    source.norm("bin_ip1.bn", 50, is_affine=True, epsilon=1e-4)
    source.norm("bin_conv2.bn", 20, is_affine=True, epsilon=1e-4)
    conv, *norms = source.outcomes
    assert found(conv) == {"sign of zero": 1}
    assert all("sign of zero" not in found(norm) for norm in norms)
