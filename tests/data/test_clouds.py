"""Clouds of points and meshes: their files, and samples of them."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.data import Manifest, Points, Row, signal_of
from unveil.data.check import check
from unveil.data.cloud_files import Cloud, read_cloud
from unveil.data.clouds import sample
from unveil.data.encode import Encoding
from unveil.data.measure import Measured
from unveil.data.prepare import prepare
from unveil.errors import DecodeError

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.normal(size=(50, 3))


def pcd(points: np.ndarray, how: str) -> bytes:
    """With a colour between the coordinates, and padding under one name twice."""
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x rgb _ y z _\nSIZE 4 4 1 4 8 1\nTYPE F U U F F U\nCOUNT 1 1 3 1 1 2\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA {how}\n"
    )
    if how == "ascii":
        return (head + "".join(f"{x} 255 0 0 0 {y} {z} 1 1\n" for x, y, z in points)).encode()
    return head.encode() + b"".join(struct.pack("<fI3xfd2x", x, 255, y, z) for x, y, z in points)


def write(path: Path, points: np.ndarray = POINTS) -> Path:
    """The points as a file of the path's kind."""
    if path.suffix == ".npy":
        np.save(path, points.astype(np.float32))
    elif path.suffix == ".npz":
        np.savez_compressed(path, colours=np.zeros((3, 3)), xyz=points)
    elif path.suffix == ".xyz":
        path.write_text(f"{len(points)}\n# a scan\n" + "".join(f"{x}, {y};{z}\t7\n" for x, y, z in points))
    elif path.suffix == ".pcd":
        path.write_bytes(pcd(points, "binary" if "binary" in path.name else "ascii"))
    elif path.suffix == ".off":
        path.write_text(f"OFF\n{len(points)} 0 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in points))
    else:
        trimesh.PointCloud(points).export(path)
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.xyz", "a.pcd", "binary.pcd", "a.off", "a.ply", "a.obj"])
def test_points_of_every_kind_of_file(tmp_path, name):
    cloud = read_cloud(write(tmp_path / name))
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-6)
    assert cloud.faces.shape == (0, 3)
    assert Points.measure(tmp_path / name) == Measured(points=50)
    assert signal_of([tmp_path]) == "points"


@pytest.mark.parametrize("name", ["a.ply", "a.off", "a.obj"])
def test_meshes(tmp_path, name):
    trimesh.creation.box(extents=(2, 2, 2)).export(tmp_path / name)
    cloud = read_cloud(tmp_path / name)
    assert (len(cloud.points), len(cloud.faces)) == (8, 12)
    x = Points(200).read(Row(str(tmp_path / name)))
    # On the surface of a cube: of the three coordinates one is the largest there is.
    side = torch.from_numpy(sample(cloud, 200).numpy()).abs().max(dim=1).values
    torch.testing.assert_close(side, torch.ones(200, dtype=torch.float64))
    assert (x.shape, x.dtype) == ((3, 200), torch.float32)


def test_faces_with_more_corners_and_several_objects(tmp_path):
    square = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
    (tmp_path / "a.obj").write_text(f"mtllib /etc/none\no a\n{square}f 1 2 3 4\no b\nusemtl x\n{square}f 5 6 7\n")
    cloud = read_cloud(tmp_path / "a.obj")
    assert len(cloud.faces) == 3
    assert cloud.points[cloud.faces].shape == (3, 3, 3)
    (tmp_path / "a.off").write_text(
        "OFF4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"
    )  # ModelNet's headers lack a line
    assert len(read_cloud(tmp_path / "a.off").faces) == 2


def test_a_surface_is_sampled_everywhere_alike():
    """A triangle of three times the area has three times the points, and inside of it each half has half of them."""
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [10, 0, 0], [13, 0, 0], [10, 1, 0]])
    cloud = Cloud(points, np.array([[0, 1, 2], [3, 4, 5]]))
    x = sample(cloud, 40_000, torch.Generator().manual_seed(0))
    large = x[x[:, 0] > 5]
    assert len(large) / len(x) == pytest.approx(0.75, abs=0.01)
    across = (large[:, 0] - 10) / 3  # nearer to a corner than halfway lies a quarter of a triangle
    assert (across > 0.5).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert bool(((across >= 0) & (across + large[:, 1] <= 1 + 1e-12)).all())
    flat = Cloud(points[:3], np.array([[0, 0, 1]]))  # a surface without area is none
    assert len(torch.unique(sample(flat, 3), dim=0)) == 3


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_a_cloud_gives_as_many_points_as_asked_for(held, count, seed):
    cloud = Cloud(np.arange(3.0 * held).reshape(held, 3), np.empty((0, 3), np.int64))
    x = sample(cloud, count, torch.Generator().manual_seed(seed))
    assert x.shape == (count, 3)
    assert len(torch.unique(x, dim=0)) == min(held, count)
    assert torch.equal(x, sample(cloud, count, torch.Generator().manual_seed(seed)))


def test_samples(tmp_path):
    path = write(tmp_path / "a.npy", POINTS * 7 + 1e6)
    signal, row = Points(40), Row(str(path))
    x = signal.read(row, torch.Generator().manual_seed(1))
    assert torch.equal(x, signal.read(row, torch.Generator().manual_seed(1)))
    assert not torch.equal(x, signal.read(row, torch.Generator().manual_seed(2)))
    torch.testing.assert_close(x.mean(1), torch.zeros(3), atol=1e-6, rtol=0)
    assert x.norm(dim=0).max().item() == pytest.approx(1)
    [first, second] = signal.views(row, 2)
    assert not torch.equal(first, second)
    [(start, end, window)] = signal.windows(path)
    assert (start, end) == (None, None)
    assert torch.equal(window, first)
    moments = signal.moments(row, 2, torch.Generator().manual_seed(1))
    assert torch.equal(moments[0], x)
    assert not torch.equal(moments[1], x)
    assert signal.blank().shape == x.shape


def test_what_is_not_finite_is_left_out(tmp_path):
    points = POINTS.copy()
    points[::2] = np.nan
    points[1] = np.inf
    np.save(tmp_path / "a.npy", points)
    assert Points.measure(tmp_path / "a.npy") == Measured(points=24)
    assert Points(100).read(Row(str(tmp_path / "a.npy"))).isfinite().all()
    (tmp_path / "a.off").write_text("OFF\n5 2 0\nnan 0 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 1 2 3\n")
    cloud = read_cloud(tmp_path / "a.off")
    assert cloud.faces.tolist() == [[0, 1, 2]]
    assert cloud.points[cloud.faces[0]].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


HUGE = npy(np.zeros((10, 3))).replace(b"(10, 3)", b"(10**11, 3)".replace(b"10**11", b"99999999999"))[:-4]
BROKEN = {
    "objects.npy": (npy(np.array([{}, None], object)), "Python objects"),
    "objects.npz": (npz(points=npy(np.array([{}, None], object))), "Python objects"),
    "huge.npy": (HUGE, "claims 299,999,999,997|Header|header|shape"),
    "flat.npy": (npy(np.zeros(30)), r"shape \[30\]; expected numbers of shape \[points, 3 or more\]"),
    "words.npy": (npy(np.array([["a", "b", "c"]])), "expected numbers"),
    "names.npz": (npz(a=npy(POINTS), b=npy(POINTS)), "holds the arrays a, b; the points' is called points, xyz"),
    "nan.npy": (npy(np.full((4, 3), np.nan)), "none of its 4 points is finite"),
    "one.npy": (npy(np.ones((9, 3))), "all of its points lie in one place"),
    "empty.npy": (npy(np.ones((0, 3))), "holds no points"),
    "words.xyz": (b"1 2 3\n4 five 6\n", "could not convert string 'five'"),
    "two.xyz": (b"1 2\n3 4\n", "two.xyz"),
    "none.xyz": (b"# nothing\n", "holds no points"),
    "squeezed.pcd": (pcd(POINTS, "binary_compressed"), "binary_compressed, which is not read"),
    "short.pcd": (pcd(POINTS, "binary")[:-10], "header claims 50 points, more than the file holds"),
    "lines.pcd": (pcd(POINTS, "ascii").replace(b"POINTS 50", b"POINTS 51"), "50 of 51 points arrived"),
    "flat.pcd": (pcd(POINTS, "ascii").replace(b"_ y z", b"_ y q"), "has no field z"),
    "huge.ply": (b"ply\nformat ascii 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n", "claims 99,999,999,999"),
    "face.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n1 1 0\n3 0 1 7\n", "face"),
    "short.off": (b"OFF\n9 0 0\n0 0 0\n", "short.off"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said(tmp_path, name):
    content, words = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DecodeError, match=words) as caught:
        Points.measure(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_one_place_is_no_shape(tmp_path):
    np.save(tmp_path / "a.npy", np.full((9, 3), 1e9))
    with pytest.raises(DecodeError, match="no shape to see"):
        Points(4).read(Row(str(tmp_path / "a.npy")))


def test_check_and_prepare(tmp_path):
    for label in ("box", "ball"):
        (tmp_path / "scans" / label).mkdir(parents=True)
    trimesh.creation.box().export(tmp_path / "scans/box/1.off")
    write(tmp_path / "scans/ball/1.xyz")
    write(tmp_path / "scans/ball/2.xyz", POINTS + 1e7)
    (tmp_path / "scans/ball/3.npy").write_bytes(b"no media")
    checked = check([tmp_path / "scans"], quiet=True, workers=1)
    assert [Path(path).name for path, _ in checked.bad] == ["3.npy"]
    assert sorted(checked.manifest.column("points"), key=str) == [50, 50, 8, None]
    prepared = prepare(tmp_path / "scans", tmp_path / "out", Encoding(points=30), workers=1, quiet=True)
    assert len(prepared.bad) == 1
    made = Manifest.scan([tmp_path / "out"], Points.suffixes).readable()
    assert [Path(path).name for path in made.column("path")] == ["1.npy", "2.npy", "1.npy"]
    assert made.column("points") == [30, 30, 30]
    assert made.column("label") == ["ball", "ball", "box"]
    cloud = np.load(tmp_path / "out/ball/2.npy", allow_pickle=False)
    # What was far from the origin kept its shape.
    distances = np.abs(cloud[:, None] - cloud).max(axis=-1)
    original = np.abs(POINTS[:, None] - POINTS).max(axis=-1).ravel()
    assert np.abs(original[:, None] - distances.ravel()[None, :30]).min(axis=0).max() < 1e-5


FUZZED = ["a.npy", "a.npz", "a.xyz", "a.pcd", "binary.pcd", "a.off", "a.ply", "a.obj"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    """Whatever became of a file: points that are finite, with triangles between them; or a DecodeError, and nothing else."""
    path = write(tmp_path_factory.mktemp("damaged") / data.draw(st.sampled_from(FUZZED)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), 300)))
        kind = data.draw(st.sampled_from(["cut", "change", "insert", "remove"]))
        if kind == "cut":
            del content[place:]
        elif kind == "remove":
            del content[place : place + 5]
        elif kind == "insert":
            content[place:place] = data.draw(st.sampled_from([b"99999999", b"-1 ", b"nan ", b"\n", b"\0", b"1e308 "]))
        elif place < len(content):
            content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        cloud = read_cloud(path)
    except DecodeError:
        return
    assert np.isfinite(cloud.points).all()
    assert len(cloud.points)
    assert ((cloud.faces >= 0) & (cloud.faces < len(cloud.points))).all()
