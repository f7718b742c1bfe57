"""State dicts of files that others made (`.pth`), read strictly and safely.

Reading never unpickles freely: `torch.load(weights_only=True)` admits tensors and containers only. What a
file claims is checked before it is believed: names, shapes and sizes against the module and the file's own
length, then values, and only then is a module changed. Files are mapped and their pages given back, so a load
needs the memory of the module and one tensor.
"""

from __future__ import annotations

import ctypes
import mmap
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from dicetalk.errors import DicetalkError

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class FileTensors(Mapping[str, torch.Tensor]):
    """Tensors of one file by name, read-only.

    Args:
        tensors: as `torch.load` returns them.
        mapped: whether they lie in the mapped file rather than in memory of their own.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], mapped: bool) -> None:
        self._tensors, self._mapped = tensors, mapped

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def release(self, name: str) -> None:
        """Let go of the memory that reading a mapped tensor has filled; the next read fetches it again."""
        if not self._mapped or not hasattr(mmap, "MADV_DONTNEED"):
            return
        storage = self[name].untyped_storage()
        begin = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (storage.data_ptr() + storage.nbytes()) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin:
            size = ctypes.c_size_t(end - begin)
            ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), size, mmap.MADV_DONTNEED)


def read_state_dict(path: Path) -> FileTensors:
    """Map the tensors of a `.pth` file without running any code stored in it; values are not looked at yet.

    Raises:
        DicetalkError: when the file is missing, truncated or compressed, holds anything but floating-point
            tensors, or declares tensors larger than itself.
    """
    path = Path(path)
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; expected a file of tensors, as `torch.save` writes it.")
    is_zip = zipfile.is_zipfile(path)  # files older than torch 1.6 are not, and cannot be mapped
    try:
        if is_zip:
            _check_records(path)
        # Names and shapes first: on the meta device even a huge declared size takes no memory
        _check_tensors(path, torch.load(path, map_location="meta", weights_only=True))
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except DicetalkError:
        raise
    except Exception as error:  # a broken file fails in more ways than can be listed
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DicetalkError(f"{path} is not a complete file of plain tensors: {reason}") from error
    return FileTensors(tensors, mapped=is_zip)


def check_fits(module: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Compare names and shapes of a state dict with a module's.

    Raises:
        DicetalkError: naming the first missing or unknown key, or the key whose shape differs.
    """
    expected = module.state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    name = type(module).__name__
    if missing:
        raise DicetalkError(f"{origin} lacks {missing[0]} and {len(missing) - 1} more tensors of {name}.")
    if unknown:
        raise DicetalkError(
            f"{origin} has {unknown[0]} and {len(unknown) - 1} more tensors unknown to {name}."
        )
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise DicetalkError(
                f"{origin}: {key} has shape {tuple(state[key].shape)}, {name} expects {tuple(value.shape)}; "
                "the model's configuration differs from the checkpoint's."
            )


def check_values(
    state: Mapping[str, torch.Tensor], origin: str, dtypes: Mapping[str, torch.dtype] | None = None
) -> None:
    """Read every value once.

    Args:
        state: tensors by name.
        origin: where they come from, for error messages.
        dtypes: what tensors will be converted to, by name; default: they stay as they are.

    Raises:
        DicetalkError: naming the tensor with a NaN or infinite value.
    """
    for key, value in state.items():
        dtype = value.dtype if dtypes is None else dtypes[key]
        if not value.to(dtype).isfinite().all():
            raise DicetalkError(f"{origin}: {key} has NaN or infinite values in {dtype}.")
        _release(state, key)


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Copy a state dict into a module of exactly the same names and shapes; on error the module is unchanged.

    Args:
        module: keeps its dtype and device.
        state: tensors by name; those of `read_state_dict` give their memory back.
        origin: where the tensors come from, for error messages.

    Raises:
        DicetalkError: see `check_fits` and `check_values`.
    """
    check_fits(module, state, origin)
    targets = module.state_dict()
    check_values(state, origin, {key: target.dtype for key, target in targets.items()})
    with torch.no_grad():
        for key, target in targets.items():
            target.copy_(state[key])
            _release(state, key)


def _release(state: Mapping[str, torch.Tensor], name: str) -> None:
    if isinstance(state, FileTensors):
        state.release(name)


def _check_records(path: Path) -> None:
    """Refuse compressed records: `torch.save` writes none, and a few bytes of them can unpack to any size."""
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                raise DicetalkError(
                    f"{path} has the compressed record {record.filename}; torch.save writes none."
                )


def _check_tensors(path: Path, state: object) -> None:
    if not isinstance(state, dict):
        raise DicetalkError(f"{path} holds a {type(state).__name__}; expected tensors by name.")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise DicetalkError(f"{path}: {str(key)[:80]} is a {type(value).__name__}; expected a tensor.")
        if value.layout != torch.strided or value.dtype not in DTYPES:
            raise DicetalkError(
                f"{path}: {key} is of type {value.dtype}, {value.layout}; expected plain floats."
            )
        # A repeated element (stride 0) can stand for any number of values
        stored = value.untyped_storage().nbytes()
        if value.numel() * value.element_size() > stored or stored > path.stat().st_size:
            raise DicetalkError(
                f"{path}: {key} declares shape {tuple(value.shape)}, more than the file holds; "
                "it is truncated or forged."
            )
