"""Checkpoints and priors made to harm: each is refused with a clear error, and none of their code runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from dicetalk.errors import DicetalkError
from dicetalk.labels import EMOTIONS
from dicetalk.models.projection import AudioProjection
from dicetalk.models.state_files import read_state_dict
from dicetalk.release.official_files import import_official
from dicetalk.release.prior_files import MAX_BYTES, read_prior, read_priors, write_prior


class Payload:
    """Creates a file when it is unpickled freely."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """A path that exists afterwards if code of a file has run."""
    path = tmp_path / "code-has-run"
    yield path
    assert not path.exists()


def test_the_payload_works(tmp_path):
    """Otherwise the tests below would prove nothing."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.fixture
def projection():
    torch.manual_seed(0)
    return AudioProjection(2, 1, 3, 4, 2, 4)


def refuse_checkpoint(projection, folder: Path, message: str) -> None:
    """Assert that `audio_linear.pth` is refused and the module is as before."""
    before = {key: value.clone() for key, value in projection.state_dict().items()}
    with pytest.raises(DicetalkError, match=message):
        import_official(folder, {"audio_projection": projection})
    assert all(torch.equal(projection.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["value", "key", "whole", "subclass"])
def test_checkpoint_with_code(projection, tmp_path, mark, zipped, place):
    state = dict(projection.state_dict())
    if place == "value":
        state["proj1.weight"] = Payload(mark)
    elif place == "key":
        state = {(Payload(mark),): torch.zeros(1)}
    elif place == "whole":
        state = Payload(mark)
    else:
        state = OrderedDict(state)
        state.extra = Payload(mark)
    torch.save(state, tmp_path / "audio_linear.pth", _use_new_zipfile_serialization=zipped)
    refuse_checkpoint(projection, tmp_path, "not a complete file of plain tensors")


def test_checkpoint_that_is_a_bare_pickle(projection, tmp_path, mark):
    (tmp_path / "audio_linear.pth").write_bytes(pickle.dumps(Payload(mark)))
    refuse_checkpoint(projection, tmp_path, "not a complete file of plain tensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"proj1.weight": torch.zeros(6, 4)},
            r"proj1\.weight has shape \(6, 4\), AudioProjection expects \(4, 6\)",
        ),
        ({"proj1.bias": torch.tensor([1.0, 2.0, float("nan"), 0.0])}, r"proj1\.bias has NaN or infinite"),
        ({"proj1.bias": torch.tensor([1.0, float("-inf"), 0.0, 0.0])}, r"proj1\.bias has NaN or infinite"),
        ({"proj1.bias": torch.full((4,), 1e300, dtype=torch.float64)}, r"proj1\.bias has NaN or infinite"),
        ({"proj1.bias": torch.zeros(4, dtype=torch.int64)}, "expected plain floats"),
        ({"proj1.bias": torch.zeros(4, dtype=torch.complex64)}, "expected plain floats"),
        ({"proj1.bias": torch.zeros(4).to_sparse()}, "expected plain floats"),
        ({"proj1.bias": [0.0] * 4}, r"proj1\.bias is a list"),
        ({"proj9.bias": torch.zeros(4)}, r"has proj9\.bias .* unknown"),
        ({3: torch.zeros(4)}, "3 is a Tensor"),
    ],
)
def test_checkpoint_with_wrong_content(projection, tmp_path, change, message):
    torch.save({**projection.state_dict(), **change}, tmp_path / "audio_linear.pth")
    refuse_checkpoint(projection, tmp_path, message)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.97])
def test_truncated_checkpoint(projection, tmp_path, zipped, kept):
    torch.save(projection.state_dict(), tmp_path / "audio_linear.pth", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "audio_linear.pth").read_bytes()
    (tmp_path / "audio_linear.pth").write_bytes(content[: int(kept * len(content))])
    refuse_checkpoint(projection, tmp_path, "not a complete file")


def rewrite(path: Path, old: bytes, new: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Replace bytes in the pickle inside a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            if name.endswith("data.pkl"):
                assert old in data
                data = data.replace(old, new)
            archive.writestr(name, data)


def test_checkpoint_that_declares_a_huge_storage(tmp_path):
    path = tmp_path / "audio_linear.pth"
    torch.save({"a": torch.zeros(900)}, path)
    rewrite(path, struct.pack("<BH", ord("M"), 900), b"\x8a\x06" + (1 << 40).to_bytes(6, "little"))
    with pytest.raises(DicetalkError, match=r"a declares shape \(1099511627776,\), more than the file holds"):
        read_state_dict(path)


def test_checkpoint_that_repeats_one_number_a_trillion_times(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "x.pth")
    with pytest.raises(DicetalkError, match="more than the file holds"):
        read_state_dict(tmp_path / "x.pth")


def test_checkpoint_whose_records_unpack_to_more(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1 << 20)}, path)
    rewrite(path, b"", b"", zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(DicetalkError, match="compressed record"):
        read_state_dict(path)


VECTOR = np.linspace(-4, 2, 256, dtype=np.float32)


def save_object(path: Path, value: object, protocol: int = 4) -> None:
    """Write as `numpy.save(allow_pickle=True)` does, with a chosen pickle protocol."""
    array = np.empty((), object)
    array[()] = value
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    path.write_bytes(header.getvalue() + pickle.dumps(array, protocol=protocol))


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("numpy_1", [True, False])
def test_a_prior_is_read_as_numpy_writes_it(tmp_path, protocol, numpy_1):
    path = tmp_path / "happy.npy"
    save_object(path, {"mu": VECTOR[None]}, protocol)
    if numpy_1:  # the release was written by NumPy 1, where the module has another name
        content, old, new = path.read_bytes(), b"numpy._core.multiarray", b"numpy.core.multiarray"
        if protocol == 4:
            old, new = b"\x8c\x16" + old, b"\x8c\x15" + new
        assert old in content
        path.write_bytes(content.replace(old, new))
    assert (read_prior(path) == VECTOR).all()


def test_written_priors_are_what_the_official_code_reads(tmp_path):
    for emotion in EMOTIONS:
        write_prior(tmp_path / f"{emotion}.npy", VECTOR)
    official = np.load(tmp_path / "sad.npy", allow_pickle=True)
    assert official.shape == () and set(official[()]) == {"mu"}
    assert official[()]["mu"].shape == (1, 256) and official[()]["mu"].dtype == np.float32
    assert list(read_priors(tmp_path)) == list(EMOTIONS)
    (tmp_path / "fear.npy").unlink()
    with pytest.raises(DicetalkError, match=r"fear\.npy does not exist"):
        read_priors(tmp_path)


def test_the_released_priors_survive_the_file_format(tmp_path, shared_dir):
    released = np.load(shared_dir / "reference/official_emotion_priors.npz")
    for emotion in EMOTIONS:
        save_object(tmp_path / f"{emotion}.npy", {"mu": released[emotion]})
    priors = read_priors(tmp_path)
    assert all((priors[emotion] == released[emotion][0]).all() for emotion in EMOTIONS)


def refuse_prior(path: Path, message: str) -> None:
    with pytest.raises(DicetalkError, match=message):
        read_prior(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_prior_with_code(tmp_path, mark, protocol):
    for number, value in enumerate(
        [
            Payload(mark),
            {"mu": Payload(mark)},
            {"mu": VECTOR[None], "x": Payload(mark)},
            {Payload(mark): VECTOR},
        ]
    ):
        save_object(tmp_path / f"{number}.npy", value, protocol)
        refuse_prior(tmp_path / f"{number}.npy", "is not an emotion prior")


def test_prior_that_is_a_bare_pickle(tmp_path, mark):
    (tmp_path / "happy.npy").write_bytes(pickle.dumps(Payload(mark)))
    refuse_prior(tmp_path / "happy.npy", "is not an emotion prior")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mu": VECTOR}, "not two axes"),
        ({"mu": np.stack([VECTOR, VECTOR])}, r"shape \(2, 256\)"),
        ({"mu": VECTOR[None].astype(np.float64)}, "not of type float32"),
        ({"mu": np.array([[{}]], object)}, "not of type float32"),
        ({"mu": VECTOR[None].tolist()}, "pickle instruction BINFLOAT"),
        ({"mu": "text"}, "wants str where a NumPy array"),
        ({"sigma": VECTOR[None]}, "single key mu"),
        ({"mu": VECTOR[None], "sigma": VECTOR[None]}, "single key mu"),
        ({"mu": np.where(VECTOR > 0, np.nan, VECTOR)[None]}, "mu has NaN"),
        ({"mu": np.full((1, 4), np.inf, np.float32)}, "mu has NaN or infinite"),
    ],
)
def test_prior_with_wrong_content(tmp_path, value, message):
    save_object(tmp_path / "happy.npy", value)
    refuse_prior(tmp_path / "happy.npy", message)


@pytest.mark.parametrize("kept", [0, 5, 100, 200, 700, -1])
def test_truncated_prior(tmp_path, kept):
    write_prior(tmp_path / "happy.npy", VECTOR)
    content = (tmp_path / "happy.npy").read_bytes()
    (tmp_path / "happy.npy").write_bytes(content[:kept])
    refuse_prior(tmp_path / "happy.npy", "is not an emotion prior")


def header() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    return stream.getvalue()


NESTED = b")" + b"".join(b"q\x00h\x00h\x00\x86" for _ in range(200))  # 2^200 elements when spelled out


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x8e" + (1 << 50).to_bytes(8, "little"),  # BINBYTES8 of a petabyte
        b"B" + (1 << 31).to_bytes(4, "little"),
        b"r" + (0xFFFFFFF0).to_bytes(4, "little") + b".",  # a memo of four billion entries
        b"}" + NESTED + b"K\x01s.",  # as the key of a dictionary
        NESTED + b"\x8c\x01x\x93.",  # as the name of a function
        NESTED + b".",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01" + NESTED + b"K\x01\x89]tb.",  # as a shape
        b"\x82\x01.",  # an extension code
        b"Ppersistent\n.",
        b".",
        b"h\x07.",
        b"(" * 100_000 + b".",
    ],
)
@pytest.mark.timeout(10)
def test_prior_that_would_exhaust_the_machine(tmp_path, instructions):
    (tmp_path / "happy.npy").write_bytes(header() + b"\x80\x04" + instructions)
    refuse_prior(tmp_path / "happy.npy", "is not an emotion prior")


def test_prior_of_huge_size_is_not_even_read(tmp_path):
    with open(tmp_path / "happy.npy", "wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    refuse_prior(tmp_path / "happy.npy", f"has {MAX_BYTES + 1} bytes")


def test_plain_array_is_no_prior(tmp_path):
    np.save(tmp_path / "happy.npy", VECTOR[None])
    refuse_prior(tmp_path / "happy.npy", r"found an array of shape \(1, 256\)")
    np.save(tmp_path / "happy.npy", np.array([{"mu": VECTOR}]), allow_pickle=True)
    refuse_prior(tmp_path / "happy.npy", r"found an array of shape \(1,\)")
