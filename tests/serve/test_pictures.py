import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from serving_runs import FPS, write_image, write_video

from unveil.data import Points
from unveil.data.drawing import three_views
from unveil.errors import DecodeError
from unveil.serve.curves import charts, draw, number, points, smoothed, thinned, ticks
from unveil.serve.figures import data_uri, enlarged, filmstrip, pixels, thumbnail

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)


def opened(uri):
    head, body = uri.split(",", 1)
    assert re.fullmatch(r"data:image/(png|jpeg|webp);base64", head)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


def test_pixels_undo_the_normalisation():
    rgb = torch.randint(0, 256, (3, 2, 4, 5), generator=torch.Generator().manual_seed(0))
    x = (rgb / 255 - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(STD).view(3, 1, 1, 1)
    assert np.array_equal(pixels(x, MEAN, STD), rgb.permute(1, 2, 3, 0).numpy())
    assert pixels(torch.full((1, 4, 4), float("nan")), (0.5,), (1.0,)).shape == (4, 4, 3)
    assert pixels(torch.full((5, 4, 4), 99.0), (0.5,) * 5, (1.0,) * 5).min() == 255


def test_filmstrip_places_frames_in_columns_and_kinds_in_rows():
    frames = torch.arange(16.0).view(1, 16, 1, 1).expand(3, 16, 32, 32) / 16
    strip = filmstrip((frames, frames * 0, frames * 0 + 1), (0.0,) * 3, (1.0,) * 3, frames=4)
    side = 96  # 32 × 3
    gap = (strip.shape[1] - 4 * side) // 3
    assert gap > 0
    assert strip.shape == (3 * side + 2 * gap, 4 * side + 3 * gap, 4)
    top = [strip[5, c * (side + gap) + 5, 0] for c in range(4)]
    assert top == [0, 80, 159, 239]  # frames 0, 5, 10, 15
    assert strip[side + gap + 5, 5].tolist() == [0, 0, 0, 255]
    assert strip[2 * (side + gap) + 5, 5].tolist() == [255, 255, 255, 255]
    assert strip[5, side, 3] == 0  # the gap is transparent
    still = filmstrip([torch.zeros(3, 400, 300)] * 3, MEAN, STD)
    assert still.shape[:2] == (3 * 160 + 2 * 2, 120)


def test_data_uri_and_enlarging():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(opened(data_uri(picture)), picture)
    assert opened(data_uri(np.dstack([picture, picture[..., :1]]), "WEBP")).shape[:2] == (5, 7)
    big = enlarged(picture)
    assert big.shape == (100, 140, 3)
    assert np.array_equal(big[::20, ::20], picture)
    assert enlarged(np.zeros((100, 200, 3))).shape == (100, 200, 3)


def test_thumbnails(tmp_path):
    video = write_video(tmp_path / "v.mp4", 2.0)
    for start, end in ((0.0, 1.0), (1.0, 2.0)):
        frame = opened(thumbnail(video, start, end))
        middle = 4 * FPS * (start + end) / 2
        assert frame[-10:, :, 1].mean() == pytest.approx(middle, abs=6)
    image = write_image(tmp_path / "i.png", 0)
    assert opened(thumbnail(image, None, None, side=24)).shape[:2] == (24 * 5, 20 * 5)
    with pytest.raises(DecodeError):
        thumbnail(tmp_path / "none.png", None, None)


def test_points_and_charts():
    log = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": float("inf")},
        {"step": 3, "loss": None},
        {"step": 4, "loss": 1.0},
    ]
    assert points(log, "loss") == [(1, 2), (4, 1)]
    (chart,) = charts(log)
    assert (chart.title, chart.series, chart.last) == ("Loss", ["training"], ["1"])
    assert charts([]) == []
    one = charts([{"step": 5, "knn": 0.25}])[0]
    assert one.last == ["25.0 %"]
    assert one.series == [""]
    assert "step 5: 25.0 %" in one.svg


def test_points_lie_inside_the_drawing():
    line = [(float(i), 1e-6 * i * i) for i in range(1, 30)]
    svg = draw([line, [(1.0, 5e-4), (29.0, 2e-4)]])
    for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg):
        assert 0 <= float(x) <= 320
        assert 0 <= float(y) <= 180
    assert svg.count("<polyline") == 2
    assert 'class="line s1"' in svg
    long = draw([[(float(i), float(i % 7)) for i in range(5000)]])
    assert long.count("<polyline") == 2  # as it is, and its running mean
    assert "<circle" not in long
    assert len(long) < 20_000


def test_thinning_and_smoothing():
    line = [(float(i), float(i)) for i in range(1001)]
    thin = thinned(line, 100)
    assert len(thin) == 100
    assert thin[-1] == line[-1]
    assert thin[0] == (4.5, 4.5)
    assert thinned(line[:5], 100) == line[:5]
    noise = np.random.default_rng(0).normal(size=200).tolist()
    smooth = [y for _, y in smoothed(list(enumerate(noise)))]
    assert np.std(smooth) < 0.6 * np.std(noise)
    assert [x for x, _ in smoothed([(1, 0.0), (2, 0.0)])] == [1, 2]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3, 3), (0, 0), (-2, -2), (1e-9, 3e-7), (1, 123456), (0.12, 0.13)])
def test_ticks_enclose(low, high):
    found = ticks(low, high, 4)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-12
    assert found[-1] >= high - 1e-12
    assert found == sorted(set(found))
    assert len({number(v, step=found[1] - found[0]) for v in found}) == len(found)


def test_numbers():
    assert [number(v) for v in (0, 12000.0, 0.25412, 1.5e-5, 3.14159e9)] == [
        "0",
        "12,000",
        "0.2541",
        "1.5e-05",
        "3.14e+09",
    ]
    assert number(0.1234, percent=True) == "12.3 %"
    assert number(0.25, percent=True, step=0.05) == "25 %"
    assert all(v == int(v) for v in ticks(1, 3, 5, whole=True))


def test_a_cloud_from_three_sides(tmp_path):
    """One point to the right, above and in front of the middle, another in the middle, hidden by a third in front of it."""
    x = torch.tensor([[0.5, 0.0, 0.0], [0.8, 0.0, 0.0], [0.3, 0.0, 0.9]])
    side, front, top = three_views(x, side=231)  # a step of 0.01
    paper = front[0, 0].tolist()

    def dots(picture):
        rows, columns = np.nonzero((picture != paper).any(-1))
        return {(int(row), int(column)) for row, column in zip(rows, columns, strict=True)}

    def plus(up, across):
        row, column = 115 - up, 115 + across
        return {(row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}

    assert dots(front) == plus(80, 50) | plus(0, 0)
    assert dots(side) == plus(80, -30) | plus(0, 0) | plus(0, -90)
    assert dots(top) == plus(-30, 50) | plus(0, 0) | plus(-90, 0)
    assert front[115, 115].sum() < front[35, 165].sum() < sum(paper)  # the nearest is the darkest
    far = three_views(torch.tensor([[5.0, 0.0], [0.0, float("nan")], [0.0, 0.0]]))
    assert all((picture == paper).all() for picture in far[1:])
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(50, 3)))
    assert opened(thumbnail(tmp_path / "a.npy", None, None)).shape == (160, 160, 3)


def test_filmstrip_of_clouds():
    clouds = [torch.randn(3, n, generator=torch.Generator().manual_seed(n)) / 3 for n in (50, 20, 48)]
    strip = filmstrip(clouds, (), (), drawn=Points().drawn)
    assert strip.shape == (3 * 160 + 2 * 2, 3 * 160 + 2 * 2, 4)
    assert np.array_equal(strip[162 : 162 + 160, 162 : 162 + 160, :3], three_views(clouds[1])[1])
