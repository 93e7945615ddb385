"""The tables of docs/performance.md that `make bench` measures."""

from __future__ import annotations

from statistics import median
from typing import Any

from result_files import results, table

MIB = 2**20


def steps() -> str:
    found = results("steps")
    rows = []
    for name, row in found["rows"].items():
        if "flops" in row:
            continue
        peers = [who for who in row["times_unveil"] if not who.startswith("unveil")]
        rows.append(
            [
                name,
                row["batch"],
                f"{median(row['seconds']['unveil']):.2f} s",
                ", ".join(f"{who} {_ratio(row['times_unveil'][who])}" for who in peers) or "–",
                ", ".join(f"{who} {row['peak_bytes'][who] / row['peak_bytes']['unveil']:.2f}" for who in peers) or "–",
                f"{row['peak_bytes']['unveil'] / MIB:.0f} MiB",
                _bound(row["profile"]),
            ]
        )
    head = ["network", "batch", "step", "peers' time", "peers' memory", "memory", "the dearest, as shares of the step"]
    text = "Peers' time and peak memory as multiples of unveil's: median of rounds (quartiles); above 1, unveil is the better one. "
    return table(head, rows, found, text + _torch(found))


def steps_saved() -> str:
    found = results("steps_saved")
    rows = []
    for name, row in found["rows"].items():
        if "flops" not in row:
            continue
        rows.append(
            [
                name,
                row["batch"],
                f"{median(row['seconds']['unveil']):.2f} s",
                f"{_ratio(row['times_unveil']['every token'])} ×",
                f"{row['flops']['every token'] / row['flops']['unveil']:.2f} ×",
                f"{row['paper']:g} ×" if row.get("paper") else "–",
                f"{row['peak_bytes']['every token'] / row['peak_bytes']['unveil']:.2f} ×",
                _bound(row["profile"]),
            ]
        )
    head = ["network", "batch", "step", "speed", "fewer operations", "in the paper", "less memory", "the dearest"]
    text = "As multiples of a step whose encoder sees every token: median of rounds (quartiles)."
    return table(head, rows, found, f"{text} {_torch(found)}")


def start() -> str:
    found = results("start")
    rows = []
    for name, row in found["rows"].items():
        limit = f"{row['limit']:g} s" if row.get("limit") else "–"
        cpu = f"{median(row['cpu_seconds']):.2f} s"
        rows.append([name, f"{row['median']:.2f} s (± {row['spread'] / 2:.2f})", cpu, limit])
    share = found["rows"]["first step"]["share_of_import_torch"]
    dear = ", ".join(f"{row['package']} {row['seconds']:.1f} s" for row in found["bound"]["first step"][:5])
    text = (
        f"Median, half the range. {100 * share:.0f} % of the first step is `import torch`. "
        f"Imports of a training (timed, which slows them): {dear}."
    )
    return table(["from its start", "seconds", "of the CPU", "no more than"], rows, found, text)


def search() -> str:
    found = results("search")
    rows = []
    for name, row in found["rows"].items():
        held = row.get("anonymous_bytes", {}).get("unveil", {})
        rows.append(
            [
                name,
                f"{1000 * median(row['seconds']['unveil']):.0f} ms",
                _ratio(row["times_unveil"]["faiss"]) if "faiss" in row["times_unveil"] else "–",
                f"{100 * row['same']['rows']:.2f} %" if "same" in row else "–",
                ", ".join(f"{size / MIB:.0f} MiB ({count} at once)" for count, size in held.items()) or "–",
                _bound(row["bound"]),
            ]
        )
    head = ["queries", "unveil", "faiss's time", "same hits", "memory beyond the vectors", "the dearest"]
    size = f"{found['rows_of_the_index']:,} × {found['width']}, k = {found['k']}"
    text = f"{size}. faiss's time as a multiple of unveil's: median (quartiles). faiss-cpu {found['versions'].get('faiss-cpu', '–')}."
    return table(head, rows, found, text)


def scaling() -> str:
    found = results("scaling")
    rows = []
    for axis, row in found["axes"].items():
        for name, point in row["points"].items():
            if axis == "files":
                rows.append([axis, f"{point['files']:,}", f"{point['median']:.2f} s", "–", "–", "–", "–"])
                continue
            low, high = point["quartiles"]
            rows.append(
                [
                    axis,
                    name,
                    f"{point['median']:.2f} s",
                    f"{point['flops'] / 1e9:.0f}",
                    f"{point['peak_bytes'] / MIB:.0f} MiB",
                    f"{point['per_flop_times_base']:.2f} ({low:.2f}–{high:.2f})",
                    _bound(point["bound"][:2]),
                ]
            )
    base = ", ".join(f"{name} {value}" for name, value in found["base"].items())
    head = [
        "what grows", "to", "seconds", "10⁹ operations", "memory", "seconds per operation, base = 1", "the dearest",
    ]  # fmt: skip
    return table(head, rows, found, f"Base: {base}. {_torch(found)}")


def scaling_exponents() -> str:
    found = results("scaling_exponents")
    rows = []
    for row in found["axes"].values():
        fitted = row["exponents"]
        cells = [f"{fitted[what]:.2f}" if what in fitted else "–" for what in ("median", "flops", "peak_bytes")]
        rows.append([row["against"], *cells])
    return table(
        ["against", "seconds", "operations", "memory"],
        rows,
        found,
        "Slopes of lines through logarithms.\n\n![Growth of time, operations and memory](scaling.svg)",
    )


def gpu() -> str:
    found = results("gpu")
    rows = []
    for name, row in found["rows"].items():
        if not name.startswith("pretraining"):
            continue
        for who, seconds in row["seconds"].items():
            rows.append(
                [
                    name.removeprefix("pretraining "),
                    who,
                    row["batch"],
                    f"{1000 * median(seconds):.0f} ms",
                    _share(row["mfu"][who]),
                    _ratio(row["times_unveil"][who]),
                    f"{row['peak_bytes'][who] / MIB:.0f} MiB",
                    f"{row['peak_bytes']['unveil, checkpointing'] / MIB:.0f} MiB" if who == "unveil" else "–",
                    _bound(row["bound"][:3]) if who == row["best"] else "–",
                ]
            )
    head = [
        "network", "contestant", "batch", "step", "use of the card", "time", "memory", "with `--checkpointing`", "the dearest",
    ]  # fmt: skip
    text = "Time as a multiple of unveil's better way: median of rounds (quartiles). Use: model FLOPs by time and dense bf16 peak."
    return table(head, rows, found, f"{text} {_torch(found)}")


def gpu_training() -> str:
    found = results("gpu_training")
    rows = []
    for name, row in found["rows"].items():
        if not name.startswith("training"):
            continue
        peer = _ratio(row["times_unveil"]["torchvision"]) if "torchvision" in row["times_unveil"] else "–"
        cells = [f"{1000 * median(row['seconds']['unveil']):.0f} ms", _share(row["mfu"]["unveil"]), peer]
        rows.append(
            [name.removeprefix("training "), row["batch"], *cells, f"{row['peak_bytes']['unveil'] / MIB:.0f} MiB"]
        )
    text = ""
    if "augmentation" in found["rows"]:
        ratio = found["rows"]["augmentation"]["device_over_worker"]["median"]
        text = f"The device augments {ratio:.2f} × as many pictures a second as one worker of the loader."
    head = ["network", "batch", "step", "use of the card", "torchvision's time", "memory"]
    return table(head, rows, found, text)


def _ratio(row: dict[str, Any]) -> str:
    low, high = row["quartiles"]
    return f"{row['median']:.2f} ({low:.2f}–{high:.2f})"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _bound(kernels: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['kernel'].removeprefix('aten::')} {100 * row['share']:.0f} %" for row in kernels[:3])


def _torch(found: dict[str, Any]) -> str:
    return f"torch {found['versions']['torch']}."


def clips() -> str:
    found = results("clips")
    names = {
        "pyav": "PyAV",
        "torchcodec": "torchcodec",
        "torchcodec, exact seeks": "exact seeks",
        "torchcodec, own transforms": "own transforms",
        "decord": "decord",
    }
    rows = []
    for kind, row in found["sets"].items():
        libraries = row["libraries"]
        cells = [kind, f"{libraries['unveil']['median_cpu_ms']:.0f} ms"]
        for name in names:
            if name not in libraries:
                cells.append("–")
                continue
            ratio = libraries[name]["times_unveil"]
            cells.append("{:.2f} ({:.2f}–{:.2f})".format(ratio["median"], *ratio["quartiles"]))
        parts = row["parts_cpu_ms"]
        rows.append([*cells, ", ".join(f"{part} {ms:.1f}" for part, ms in parts.items())])
    speed, libraries = found["speed_of_prepared"], {"torchcodec": "–", "decord": "–", **found["versions"]}
    faster = "{:.2f} times ({:.2f}–{:.2f})".format(speed["median"], *speed["quartiles"])
    text = (
        "CPU time of a clip; the peers' as a multiple of unveil's in the same round: median (quartiles); above 1, unveil is faster. "
        f"Prepared files: {faster} as fast as the others. {found['rounds']} rounds; "
        f"av {libraries['av']}, torchcodec {libraries['torchcodec']}, decord {libraries['decord']}."
    )
    return table(["files", "unveil", *names.values(), "its parts, ms"], rows, found, text)


def loading() -> str:
    found = results("loading")
    rows = []
    for row in found["rows"]:
        cells = [row["workers"], row["repeats"], f"{median(row['clips_per_s']):.1f}"]
        for against in ("of_one_thread", "of_as_many_processes"):
            cells.append("{:.2f} ({:.2f}–{:.2f})".format(row[against]["median"], *row[against]["quartiles"]))
        rows.append(cells)
    head = ["workers", "crops of a clip", "clips a second", "of n times one thread", "of n processes without a loader"]
    text = (
        f"One thread alone reads {median(found['clips_per_s_of_one_thread']):.1f} clips a second. "
        f"Median (quartiles) of {found['rounds']} rounds."
    )
    return table(head, rows, found, text)


def data_wait() -> str:
    found = results("data_wait")
    ratio, wait = found["times_in_memory"], found["data_wait"]
    row = [
        f"VideoMAE-{found['size']}, batch {found['batch']}",
        *(f"{found['step_s'][way]:.2f} s" for way in ("from the loader", "in memory")),
        "{:.2f} ({:.2f}–{:.2f})".format(ratio["median"], *ratio["quartiles"]),
        "{:.1f} % ({:.1f}–{:.1f})".format(100 * wait["median"], *(100 * share for share in wait["quartiles"])),
    ]
    head = ["training", "step from the loader", "step in memory", "ratio", "waiting for data"]
    text = f"{found['threads']} thread, {found['workers']} worker; median (quartiles) of {found['rounds']} rounds."
    return table(head, [row], found, f"{text} torch {found['versions']['torch']}.")


def embedding() -> str:
    found = results("embedding")
    rows = [
        [
            f"{name}, {row['count']} clips",
            *(f"{row['median_s'][who]:.1f} s" for who in ("unveil", row.get("best_peer", "transformers"))),
            row.get("best_peer", "transformers, 8 at once").removeprefix("transformers, "),
            "{:.2f} ({:.2f}–{:.2f})".format(row["times_unveil"]["median"], *row["times_unveil"]["quartiles"]),
            f"{row['largest_difference']:.0e}",
        ]
        for name, row in found["rows"].items()
    ]
    head = ["job", "unveil", "transformers and torchcodec", "its best", "speed", "largest difference"]
    rounds = sorted({row["rounds"] for row in found["rows"].values()})
    text = (
        f"From start to end: CPU time on one core, wall-clock time on two; {' or '.join(map(str, rounds))} rounds. "
        "Difference as a share of the largest value. "
        "torch {torch}, transformers {transformers}, torchcodec {torchcodec}.".format_map(
            {"torchcodec": "–", **found["versions"]}
        )
    )
    return table(head, rows, found, text)
