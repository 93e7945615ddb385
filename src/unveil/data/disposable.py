"""Which packets of an H.264 or HEVC stream no other picture is predicted from, told from their bytes alone.

H.264 (ITU-T H.264, 7.4.1): a picture whose slices all have nal_ref_idc = 0 is never referred to. HEVC (ITU-T H.265,
7.4.2.2): a sub-layer non-reference picture (types TRAIL_N … RSV_VCL_N14) is not referred to within its temporal sub-layer, but
may be by a higher one: only at the highest TemporalId can it be left out. Wherever the bytes leave a doubt the answer is no.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# Types of NAL units that may accompany a slice and die with its picture; any other keeps its packet.
_H264_SLICE, _H264_SEI, _H264_SPS = 1, 6, 7
_H264_DELIMITERS = {9, 12}  # access unit delimiter, filler
_HEVC_SLICES, _HEVC_SPS = range(32), 33
_HEVC_NON_REFERENCE = {0, 2, 4, 6, 8, 10, 12, 14}
_HEVC_DELIMITERS = {35, 38}
_HEVC_SEI = {39, 40}
# Messages that speak of their own picture only: pic_timing, captions and the like (T.35), HEVC's picture hash. A recovery
# point or a display orientation, say, concerns what follows.
_H264_MESSAGES = {1, 4}
_HEVC_MESSAGES = {1, 4, 132}
_RECOVERY_POINT = 6
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


class Structure(NamedTuple):
    """How a stream's packets are to be read.

    Args:
        codec: "h264" or "hevc".
        length_size: bytes of the length before each NAL unit; 0: start codes (Annex B).
        highest: HEVC's highest TemporalId.
        sure: whether anything may be left out; not where pictures may be coded as fields, for one.
    """

    codec: str
    length_size: int
    highest: int = 0
    sure: bool = True


def structure_of(codec: str, extradata: bytes | None) -> Structure | None:
    """The structure of a stream from its decoder configuration (avcC, hvcC, or parameter sets with start codes).

    Nothing may be left out (`sure` is False) where pictures may be coded as fields or MBAFF, colour planes are coded apart, the
    source is interlaced, or there is a second layer.

    Returns:
        None for another codec, and where there is no readable configuration.
    """
    if codec not in ("h264", "hevc") or not extradata:
        return None
    try:
        if extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
            length_size, units = 0, list(_annex_b(extradata))
        elif extradata[0] != 1:
            return None
        elif codec == "h264":
            length_size, units = (extradata[4] & 3) + 1, list(_avcc_units(extradata))
        else:
            length_size, units = (extradata[21] & 3) + 1, list(_hvcc_units(extradata))
    except (IndexError, ValueError):
        return None
    try:
        structure = _followed(Structure(codec, length_size), units)
    except (IndexError, ValueError):
        structure = Structure(codec, length_size, sure=False)
    kind = _H264_SPS if codec == "h264" else _HEVC_SPS
    return structure if any(_type(codec, unit) == kind for unit in units) else None


def disposable(packet: bytes, structure: Structure) -> bool:
    """Whether a packet holds exactly one picture, nothing else, and no other picture of the stream refers to it."""
    if not structure.sure:
        return False
    try:
        units = list(_units(packet, structure))
        test = _h264_disposable if structure.codec == "h264" else _hevc_disposable
        return test(units, structure)
    except (IndexError, ValueError):
        return False


def after(packet: bytes, structure: Structure) -> Structure:
    """The structure that holds after a packet, which may carry new parameter sets."""
    try:
        return _followed(structure, list(_units(packet, structure)))
    except (IndexError, ValueError):
        return structure._replace(sure=False)


def refreshes_gradually(packet: bytes, structure: Structure) -> bool:
    """Whether pictures are whole only some time after this one, though it is marked as a key frame.

    H.264's intra refresh: a recovery point (D.2.8) with recovery_frame_cnt > 0.
    """
    if structure.codec != "h264":
        return False
    try:
        for unit in _units(packet, structure):
            if unit[0] & 31 == _H264_SEI:
                for kind, payload in _messages(unit[1:]):
                    if kind == _RECOVERY_POINT and _Bits(payload).golomb() > 0:
                        return True
    except (IndexError, ValueError):
        return True
    return False


def _h264_disposable(units: list[bytes], structure: Structure) -> bool:
    firsts = 0
    for unit in units:
        kind = unit[0] & 31
        if kind == _H264_SLICE:
            if unit[0] & 0x60:  # nal_ref_idc
                return False
            firsts += unit[1] >> 7  # first_mb_in_slice = 0, as an Exp-Golomb code
        elif kind == _H264_SEI:
            if not all(message in _H264_MESSAGES for message, _ in _messages(unit[1:])):
                return False
        elif kind not in _H264_DELIMITERS:
            return False
    return firsts == 1


def _hevc_disposable(units: list[bytes], structure: Structure) -> bool:
    firsts = 0
    for unit in units:
        kind = _type("hevc", unit)
        if _layer(unit):
            return False
        if kind in _HEVC_SLICES:
            if kind not in _HEVC_NON_REFERENCE or (unit[1] & 7) - 1 != structure.highest:
                return False
            firsts += unit[2] >> 7  # first_slice_segment_in_pic_flag
        elif kind in _HEVC_SEI:
            if not all(message in _HEVC_MESSAGES for message, _ in _messages(unit[2:])):
                return False
        elif kind not in _HEVC_DELIMITERS:
            return False
    return firsts == 1


def _followed(structure: Structure, units: list[bytes]) -> Structure:
    highest, sure = structure.highest, structure.sure
    for unit in units:
        kind = _type(structure.codec, unit)
        if structure.codec == "h264":
            if kind == _H264_SPS:
                sure = sure and _h264_frames_only(unit)
        elif _layer(unit):  # a second layer (depth, another view) may be predicted from this one
            sure = False
        elif kind in _HEVC_SLICES:
            highest = max(highest, (unit[1] & 7) - 1)
        elif kind == _HEVC_SPS:
            payload = _unescaped(unit)
            sure = sure and not payload[8] & 0x40  # general_interlaced_source_flag
            highest = max(highest, (payload[2] >> 1) & 7)  # sps_max_sub_layers_minus1
    return structure._replace(highest=highest, sure=sure)


def _type(codec: str, unit: bytes) -> int:
    return unit[0] & 31 if codec == "h264" else (unit[0] >> 1) & 63


def _layer(unit: bytes) -> int:
    return (unit[0] & 1) << 5 | unit[1] >> 3


# ---- cutting a packet into NAL units


def _units(packet: bytes, structure: Structure) -> Iterator[bytes]:
    return _prefixed(packet, structure.length_size) if structure.length_size else _annex_b(packet)


def _prefixed(packet: bytes, length_size: int) -> Iterator[bytes]:
    at = 0
    while at < len(packet):
        start = at + length_size
        at = start + int.from_bytes(packet[at:start], "big")
        if at > len(packet) or at == start:  # other than announced: perhaps start codes after all
            raise ValueError("the lengths of the NAL units do not add up")
        yield packet[start:at]


def _annex_b(packet: bytes) -> Iterator[bytes]:
    start = packet.find(b"\0\0\1")
    if start < 0 or packet[:start].strip(b"\0"):
        raise ValueError("no start code")
    while start >= 0:
        following = packet.find(b"\0\0\1", start + 3)
        unit = packet[start + 3 : following if following >= 0 else len(packet)].rstrip(b"\0")
        if not unit:
            raise ValueError("an empty NAL unit")
        yield unit
        start = following


def _avcc_units(extradata: bytes) -> Iterator[bytes]:
    at = 5
    for mask in (31, 255):  # sequence, then picture parameter sets
        count = extradata[at] & mask
        at += 1
        for _ in range(count):
            unit, at = _sized(extradata, at)
            yield unit


def _hvcc_units(extradata: bytes) -> Iterator[bytes]:
    at = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            unit, at = _sized(extradata, at)
            yield unit


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    size = int.from_bytes(data[at : at + 2], "big")
    if not size or at + 2 + size > len(data):
        raise ValueError("a parameter set is cut short")
    return data[at + 2 : at + 2 + size], at + 2 + size


# ---- reading a NAL unit


def _messages(payload: bytes) -> list[tuple[int, bytes]]:
    """The SEI messages in a NAL unit's payload: (type, content)."""
    payload = _unescaped(payload)
    messages, at = [], 0
    while at < len(payload) and payload[at] != 0x80:  # the stop bit
        values = []
        for _ in range(2):  # type, size
            value = 0
            while payload[at] == 255:
                value, at = value + 255, at + 1
            values.append(value + payload[at])
            at += 1
        kind, size = values
        if at + size > len(payload):
            raise ValueError("a message is cut short")
        messages.append((kind, payload[at : at + size]))
        at += size
    return messages


def _unescaped(payload: bytes) -> bytes:
    """Without the emulation prevention bytes: 00 00 03 stands for 00 00."""
    return payload.replace(b"\0\0\3", b"\0\0")


def _h264_frames_only(unit: bytes) -> bool:
    """frame_mbs_only_flag of a sequence parameter set (7.3.2.1.1), and colour planes that are not coded apart."""
    bits = _Bits(_unescaped(unit[1:]))
    profile = bits.fixed(8)
    bits.fixed(16)  # constraints, level
    bits.golomb()  # identity
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3 and bits.fixed(1):
            return False
        bits.golombs(2)  # bit depths
        bits.fixed(1)  # lossless
        if bits.fixed(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.fixed(1):
                    bits.scaling_list(16 if number < 6 else 64)
    bits.golomb()  # width of frame_num
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.fixed(1)
        bits.golombs(2)
        bits.golombs(bits.golomb())
    bits.golomb()  # reference frames
    bits.fixed(1)  # gaps in frame_num
    bits.golombs(2)  # width, height
    return bits.fixed(1) == 1


class _Bits:
    def __init__(self, data: bytes):
        self.value = int.from_bytes(data, "big")
        self.left = len(data) * 8

    def fixed(self, count: int) -> int:
        if count > self.left:
            raise ValueError("a parameter set is cut short")
        self.left -= count
        return self.value >> self.left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code; the signed ones have the same length."""
        zeros = 0
        while not self.fixed(1):
            zeros += 1
        if zeros > 32:
            raise ValueError("not a parameter set")
        return (1 << zeros) - 1 + self.fixed(zeros)

    def golombs(self, count: int) -> None:
        for _ in range(count):
            self.golomb()

    def scaling_list(self, count: int) -> None:
        last = following = 8
        for _ in range(count):
            if following:
                code = self.golomb()
                following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
            last = following or last
