"""Files of points and of surfaces → points in space: .npy .npz .xyz .pcd by hand, .ply .off .obj through trimesh.

No file is trusted: nothing is unpickled, no other file that one names is opened, and what a header claims is held against the
size of the file before memory is taken for it.
"""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Callable
from io import StringIO
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unveil.data.regular_files import check_regular
from unveil.errors import DecodeError

MOST = 1 << 26
"""Points, faces or values of a point × points that a file may hold: 67 million."""
NAMES = ("points", "xyz", "pos", "vertices", "data")
"""Of an .npz that holds several arrays, those that are looked for."""


class Cloud(NamedTuple):
    """Points [V, 3], finite, float64; `faces` [F, 3] are the triangles between them, none where the file holds only points."""

    points: NDArray[np.float64]
    faces: NDArray[np.int64]


def read_cloud(path: str | os.PathLike[str]) -> Cloud:
    """What a file holds, without the points that are not finite (scanners write NaN where they measured nothing).

    Raises:
        DecodeError: no such file, not what its suffix says, damaged, without any finite point, or too large.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parsers, about what is refused or left out here in any case
            points, faces = _reader(file, path)(file)
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from None
    # Broken text and headers end in whatever a parser meets first: ValueError, IndexError, KeyError, MemoryError…
    except Exception as error:
        raise DecodeError(f"{path}: {type(error).__name__}: {error}") from error
    points = np.asarray(points, np.float64)
    finite = np.asarray(np.isfinite(points).all(axis=1))
    if not finite.any():
        what = "holds no points." if not len(points) else f"none of its {len(points):,} points is finite."
        raise DecodeError(f"{path}: {what}")
    if not finite.all():
        number = np.cumsum(finite) - 1
        points, faces = points[finite], number[faces[finite[faces].all(axis=1)]]
    return Cloud(points, faces)


def _reader(file: IO[bytes], path: str | os.PathLike[str]) -> Callable[[IO[bytes]], Cloud]:
    """What the first bytes say, or, where they say nothing, the name."""
    begin = file.read(max(map(len, SIGNATURES)))
    file.seek(0)
    suffix = next(
        (kind for sign, kind in SIGNATURES.items() if begin.startswith(sign)), os.path.splitext(path)[1].lower()
    )
    if suffix not in READERS:
        raise DecodeError(f"holds points in no format that is known: {', '.join(READERS)}.")
    return READERS[suffix]


def _points(array: NDArray[Any]) -> NDArray[np.float64]:
    """The first three columns of a table of numbers."""
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] < 3:
        raise DecodeError(
            f"holds {array.dtype} of shape {list(array.shape)}; expected numbers of shape [points, 3 or more]."
        )
    return array[:, :3].astype(np.float64)


def _no_faces() -> NDArray[np.int64]:
    return np.empty((0, 3), np.int64)


def _claimed(count: float, held: float, what: str = "values") -> None:
    """Refuse what claims more than there can be."""
    if count > held:
        raise DecodeError(f"its header claims {count:,.0f} {what}, more than the file holds.")
    if count > 4 * MOST:
        raise DecodeError(f"{count:,.0f} {what}: more than {4 * MOST:,}. Thin the cloud out.")


def _array(file: IO[bytes], size: int) -> NDArray[Any]:
    """An array in NumPy's format, of so many bytes in all."""
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if header is None:
        raise DecodeError(f"is written in version {version} of NumPy's format; versions 1 and 2 are read.")
    shape, _, dtype = header(file)
    if dtype.hasobject:
        raise DecodeError("holds Python objects, which are not read: they could run anything.")
    _claimed(math.prod(shape), size / max(1, dtype.itemsize))
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _npy(file: IO[bytes]) -> Cloud:
    return Cloud(_points(_array(file, os.fstat(file.fileno()).st_size)), _no_faces())


def _npz(file: IO[bytes]) -> Cloud:
    with zipfile.ZipFile(file) as archive:
        arrays = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        name = next((name for name in NAMES if name in arrays), None)
        if name is None and len(arrays) == 1:
            name = next(iter(arrays))
        if name is None:
            raise DecodeError(f"holds the arrays {', '.join(arrays)}; the points' is called {', '.join(NAMES)}.")
        entry = arrays[name]
        _claimed(entry.file_size / 2, math.inf)  # of what is unpacked: the smallest number has two bytes
        with archive.open(entry) as inside:
            points = _points(_array(inside, entry.file_size))
        faces = _no_faces()
        if name == "vertices" and "faces" in arrays:
            _claimed(arrays["faces"].file_size / 4, math.inf)
            with archive.open(arrays["faces"]) as inside:
                faces = _triangles(_array(inside, arrays["faces"].file_size), len(points))
    return Cloud(points, faces)


def _xyz(file: IO[bytes]) -> Cloud:
    """Lines of numbers, x y z first, apart by spaces, tabs, commas or semicolons; a first line may hold their number."""
    separators = bytes.maketrans(b",;", b"  ")
    first = file.readline()
    if len(first.translate(separators).split()) != 1:
        file.seek(0)
    lines = (line.translate(separators) for line in file)
    return Cloud(np.loadtxt(lines, usecols=(0, 1, 2), ndmin=2, encoding="latin-1").reshape(-1, 3), _no_faces())


def _pcd(file: IO[bytes]) -> Cloud:
    """The Point Cloud Library's format, as text or binary."""
    said: dict[str, list[str]] = {}
    while "DATA" not in said:
        line = file.readline(4096)
        if not line:
            raise DecodeError("its header has no DATA line.")
        key, *values = line.decode("latin-1").split("#")[0].split() or [""]
        said[key.upper()] = values
    names, how = said["FIELDS"], said["DATA"][0].lower()
    counts = [int(n) for n in said.get("COUNT", ["1"] * len(names))]
    if missing := [axis for axis in "xyz" if axis not in names or counts[names.index(axis)] != 1]:
        raise DecodeError(f"has no field {missing[0]}; its fields: {' '.join(names)}.")
    number = int(said["POINTS"][0]) if "POINTS" in said else int(said["WIDTH"][0]) * int(said["HEIGHT"][0])
    if how == "ascii":
        columns = [sum(counts[: names.index(axis)]) for axis in "xyz"]
        points = np.loadtxt(file, usecols=columns, ndmin=2, encoding="latin-1").reshape(-1, 3)
        if len(points) != number:
            raise DecodeError(f"{len(points):,} of {number:,} points arrived.")
        return Cloud(points, _no_faces())
    if how != "binary":
        raise DecodeError(
            f"its data are {how}, which is not read: `pcl_convert_pcd_ascii_binary IN OUT 1` writes binary."
        )
    kinds = {"F": "f", "I": "i", "U": "u"}
    fields = zip(names, said["TYPE"], said["SIZE"], counts, strict=True)
    # Padding is called "_" any number of times; a record's names differ.
    formats = [(f"{name} {i}", f"<{kinds[kind]}{size}", (n,)) for i, (name, kind, size, n) in enumerate(fields)]
    record = np.dtype(formats)
    _claimed(number, (os.fstat(file.fileno()).st_size - file.tell()) / record.itemsize, "points")
    rows = np.frombuffer(file.read(number * record.itemsize), record)
    chosen = [rows[f"{axis} {names.index(axis)}"][:, 0].astype(np.float64) for axis in "xyz"]
    return Cloud(np.stack(chosen, axis=1), _no_faces())


def _triangles(faces: Any, count: int) -> NDArray[np.int64]:
    if faces is None or not len(faces):
        return _no_faces()
    found = np.asarray(faces, np.int64).reshape(len(faces), -1)
    if found.shape[1] != 3 or found.min() < 0 or found.max() >= count:
        raise DecodeError(f"its faces are not triangles of its {count:,} points.")
    return found


def _mesh(loaded: dict[str, Any]) -> Cloud:
    from trimesh.geometry import triangulate_quads

    points, faces = _points(np.asarray(loaded["vertices"], np.float64)), loaded.get("faces")
    corners = None if faces is None or not len(faces) else triangulate_quads(faces, dtype=np.int64)
    return Cloud(points, _triangles(corners, len(points)))


def _joined(parts: list[Cloud]) -> Cloud:
    before = np.cumsum([0, *(len(part.points) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, before, strict=False)]
    return Cloud(np.concatenate([part.points for part in parts]), np.concatenate(faces))


def _ply(file: IO[bytes]) -> Cloud:
    from trimesh.exchange.ply import load_ply

    _ply_claims(file)
    return _mesh(load_ply(file, resolver=None, fix_texture=False, skip_materials=True))


def _ply_claims(file: IO[bytes]) -> None:
    """An element takes a byte at least."""
    size = os.fstat(file.fileno()).st_size
    for _ in range(4096):
        word, *rest = file.readline(4096).split() or [b""]
        if word == b"element":
            _claimed(int(rest[1]), size, rest[0].decode("latin-1"))
        if word == b"end_header":
            break
    file.seek(0)


def _off(file: IO[bytes]) -> Cloud:
    from trimesh.exchange.off import load_off

    return _mesh(load_off(file))


def _obj(file: IO[bytes]) -> Cloud:
    """The faces' own corners; of a file without faces its points."""
    from trimesh.exchange.obj import load_obj

    text = file.read().decode("latin-1")
    if any(line.startswith("f ") for line in text.splitlines()):
        loaded = load_obj(StringIO(text), resolver=None, skip_materials=True, group_material=False)
        return _joined([_mesh(part) for part in loaded.get("geometry", {"": loaded}).values()])
    corners = [line.split()[1:4] for line in text.splitlines() if line.startswith("v ")]
    return Cloud(np.array(corners, np.float64).reshape(-1, 3), _no_faces())


READERS: dict[str, Callable[[IO[bytes]], Cloud]] = {
    ".npy": _npy, ".npz": _npz, ".xyz": _xyz, ".pcd": _pcd, ".ply": _ply, ".off": _off, ".obj": _obj,
}  # fmt: skip
SIGNATURES = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz", b"ply\n": ".ply", b"ply\r\n": ".ply", b"# .PCD": ".pcd"}
