"""Which packets may stay undecoded: from their bytes, on made-up packets and on coders' own."""

from __future__ import annotations

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import numbered_frames, write_video

from unveil.data.disposable import Structure, after, disposable, refreshes_gradually, structure_of

PACKING = st.sampled_from([0, 1, 2, 4])
BODY = st.binary(min_size=1, max_size=30).map(lambda b: b.replace(b"\0", b"\1") + b"\x80")
SEI_TYPES = st.sampled_from([0, 1, 3, 4, 5, 6, 45, 47, 132, 137, 300])


def packed(units: list[bytes], length_size: int, zeros: int = 0) -> bytes:
    if length_size:
        return b"".join(len(unit).to_bytes(length_size, "big") + unit for unit in units)
    return b"".join(b"\0" * (zeros if number else 1) + b"\0\0\1" + unit for number, unit in enumerate(units))


def message(kind: int, content: bytes = b"\1\2") -> bytes:
    return b"\xff" * (kind // 255) + bytes([kind % 255, len(content)]) + content + b"\x80"


@st.composite
def h264_units(draw) -> tuple[list[bytes], bool]:
    """NAL units of one access unit, and whether nothing needs it."""
    units, firsts, free = [], 0, True
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from([1] * 6 + [5, 6, 6, 7, 8, 9, 12, 14, 19, 20, 2]))
        reference = draw(st.sampled_from([0, 0, 0, 0, 1, 3]))
        body = draw(BODY)
        if kind == 6:
            sei = draw(SEI_TYPES)
            body, free = message(sei), free and sei in (1, 4)
        elif kind == 1:
            first = draw(st.booleans())
            body = bytes([body[0] & 0x7F | first << 7]) + body
            firsts += first
            free = free and not reference
        else:
            free = free and kind in (9, 12)
        units.append(bytes([reference << 5 | kind]) + body)
    return units, free and firsts == 1


@given(h264_units(), PACKING, st.integers(0, 2))
def test_h264(made, length_size, zeros):
    units, free = made
    packet = packed(units, length_size, zeros)
    structure = Structure("h264", length_size)
    assert disposable(packet, structure) == free
    assert not disposable(packet, structure._replace(sure=False))
    if length_size:
        assert not disposable(packet + b"\0", structure)
        assert not disposable(packet[:-1], structure)


@st.composite
def hevc_units(draw, highest: int) -> tuple[list[bytes], bool]:
    units, firsts, free = [], 0, True
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([0, 0, 2, 4, 6, 8, 8, 14, 1, 9, 21, 33, 35, 38, 39, 40, 62]))
        layer = draw(st.sampled_from([0] * 9 + [1]))
        level = draw(st.sampled_from([highest, highest, highest, 0, 1, 2]))
        body = draw(BODY)
        if kind in (39, 40):
            sei = draw(SEI_TYPES)
            body, free = message(sei), free and sei in (1, 4, 132)
        elif kind < 32:
            first = draw(st.booleans())
            body = bytes([body[0] & 0x7F | first << 7]) + body
            firsts += first
            free = free and kind in (0, 2, 4, 6, 8, 14) and level == highest
        else:
            free = free and kind in (35, 38)
        free = free and not layer
        units.append(bytes([kind << 1 | layer >> 5, (layer & 31) << 3 | level + 1]) + body)
    return units, free and firsts == 1


@given(st.data(), st.integers(0, 2), PACKING)
def test_hevc(data, highest, length_size):
    units, free = data.draw(hevc_units(highest))
    assert disposable(packed(units, length_size), Structure("hevc", length_size, highest)) == free


@given(st.binary(max_size=60), PACKING, st.sampled_from(["h264", "hevc"]))
def test_any_bytes_are_answered(content, length_size, codec):
    structure = Structure(codec, length_size)
    disposable(content, structure)
    refreshes_gradually(content, structure)
    after(content, structure)
    structure_of(codec, content)
    structure_of(codec, b"\1" + content)
    structure_of(codec, b"\0\0\0\1" + content)


def test_a_higher_layer_than_announced_is_followed():
    slice_ = bytes([0, 3]) + b"\x80\1"  # TRAIL_N at TemporalId 2
    structure = after(packed([slice_], 4), Structure("hevc", 4, highest=1))
    assert structure.highest == 2
    assert not disposable(packed([bytes([0, 2]) + b"\x80\1"], 4), structure)


def extradata(path) -> tuple[str, bytes | None]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.name, context.extradata


X264 = {"codec": "libx264", "options": {"preset": "veryfast"}}
X265 = {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"}}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize(
    ("params", "pix_fmt", "sure"),
    [
        ("", "yuv420p", True),
        ("cqm=jvt", "yuv420p", True),  # scaling lists
        ("", "yuv444p", True),
        ("", "yuv420p10le", True),
        ("tff=1", "yuv420p", False),
        ("fake-interlaced=1", "yuv420p", False),
    ],
)
def test_h264_configuration(tmp_path, name, params, pix_fmt, sure):
    options = X264["options"] | {"x264-params": params, "profile": "high444" if pix_fmt != "yuv420p" else "high"}
    path = write_video(tmp_path / name, numbered_frames(12), codec="libx264", pix_fmt=pix_fmt, options=options)
    structure = structure_of(*extradata(path))
    assert structure == Structure("h264", 0 if name == "a.ts" else 4, sure=sure)


@pytest.mark.parametrize(("layers", "highest"), [("", 0), (":temporal-layers=3:b-adapt=0:bframes=3", 1)])
def test_hevc_configuration(tmp_path, layers, highest):
    options = X265["options"] | {"x265-params": X265["options"]["x265-params"] + layers}
    path = write_video(tmp_path / "a.mp4", numbered_frames(12, 64, 96), codec="libx265", options=options)
    structure = structure_of(*extradata(path))
    assert structure is not None
    assert (structure.length_size, structure.sure) == (4, True)
    assert structure.highest >= highest


def test_nothing_is_known_of_others(tmp_path):
    assert structure_of("vp9", b"\1\2\3") is None
    assert structure_of("h264", None) is None
    assert structure_of("h264", b"\1\x64\0\x1f\xff\xe0\0") is None  # no parameter sets


@pytest.mark.parametrize("coder", [X264, X265], ids=["x264", "x265"])
def test_a_coders_b_frames_are_left_out(tmp_path, coder):
    path = write_video(tmp_path / "a.mp4", numbered_frames(60, 64, 96), gop=30, bframes=3, **coder)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        structure = structure_of(stream.codec_context.name, stream.codec_context.extradata)
        assert structure is not None
        free = sum(disposable(bytes(packet), structure) for packet in container.demux(stream))
    assert 15 <= free <= 45


def test_intra_refresh_is_told(tmp_path):
    options = {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=10"}
    path = write_video(tmp_path / "a.mp4", numbered_frames(30), options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        structure = structure_of(stream.codec_context.name, stream.codec_context.extradata)
        assert structure is not None
        marked = [packet for packet in container.demux(stream) if packet.is_keyframe]
    assert [refreshes_gradually(bytes(packet), structure) for packet in marked][:3] == [False, True, True]
