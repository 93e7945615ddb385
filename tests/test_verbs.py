"""The main job on real files: pre-train, fine-tune, train, evaluate, predict, embed, search, report; and the errors of newcomers."""

import csv
import itertools
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from media import write_video

import unveil
from unveil.errors import UserError
from unveil.training import loop

TINY = {"size": "debug", "crop": 32, "patch": 8, "frames": 4, "stride": 1}
FAST = {**TINY, "loader.workers": 0, "schedule.batch": 4, "loader.batch": 2, "quiet": True, "seed": 3}


def clip(seed, moving, frames=8, size=40):
    """A bright square that moves to the right, or stands still."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 60, (frames, size, size, 3), dtype=np.uint8)
    row, column = rng.integers(0, size - 16, 2)
    for t in range(frames):
        left = (column + moving * 3 * t) % (size - 12)
        video[t, row : row + 12, left : left + 12] = 220
    return torch.from_numpy(video)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two classes of six clips each."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(6):
        for moving, name in enumerate(("still", "moving")):
            (folder / name).mkdir(exist_ok=True)
            write_video(folder / name / f"{i}.mp4", clip(10 * i + moving, moving), fps=8)
    return folder


@pytest.fixture(scope="module")
def flat(clips, tmp_path_factory):
    """The same files without labels."""
    folder = tmp_path_factory.mktemp("flat")
    for path in clips.rglob("*.mp4"):
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    return folder


@pytest.fixture(scope="module")
def pretrained(flat, tmp_path_factory):
    return unveil.pretrain("videomae", data=flat, out=tmp_path_factory.mktemp("runs") / "a", max_steps=6, **FAST)


@pytest.fixture(scope="module")
def finetuned(pretrained, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "b"
    flags = {k: v for k, v in FAST.items() if k not in TINY}
    return unveil.finetune(pretrained.path, data=clips, out=out, max_steps=4, val_fraction=0.34, **flags)


def losses(run):
    return [line["loss"] for line in run.log()]


class TestTraining:
    def test_a_run_folder_says_everything(self, pretrained, flat):
        assert pretrained.info["status"] == "complete"
        assert pretrained.info["recipe"] == "videomae"
        assert pretrained.info["asked"]["data"] == [str(flat.resolve())]
        assert pretrained.info["versions"]["torch"] == torch.__version__.split("+")[0]
        assert pretrained.classes == []
        log = pretrained.log()
        assert [line["step"] for line in log] == list(range(1, 7))
        assert {"loss", "lr", "epoch", "samples_per_s", "data_wait", "rankme", "bad"} <= set(log[-1])
        assert (pretrained.path / "weights.safetensors").is_file()

    def test_fine_tuning_starts_from_the_run_and_inherits_its_flags(self, finetuned, pretrained):
        assert finetuned.info["recipe"] == "videomae:finetune"
        assert finetuned.info["flags"]["size"] == "debug"
        assert finetuned.classes == ["moving", "still"]
        assert finetuned.info["files"] == {"train": 8, "validation": 4, "bad": 0}
        assert "val_top1" in finetuned.log()[-1]
        assert finetuned.info["licence_of_start"]

    def test_a_complete_run_is_left_alone_and_other_flags_are_named(self, pretrained, flat):
        before = (pretrained.path / "weights.safetensors").stat().st_mtime_ns
        again = unveil.pretrain("videomae", data=flat, out=pretrained.path, max_steps=6, **FAST)
        assert (again.path / "weights.safetensors").stat().st_mtime_ns == before
        with pytest.raises(UserError, match=r"--ratio: was not given, is 0\.5"):
            unveil.pretrain("videomae", data=flat, out=pretrained.path, max_steps=6, ratio=0.5, **FAST)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_run_cut_off_anywhere_goes_on_bit_for_bit(self, flat, tmp_path, monkeypatch, workers):
        flags = {**FAST, "loader.workers": workers, "checkpoint_every": 0}
        whole = unveil.pretrain("videomae", data=flat, out=tmp_path / "whole", max_steps=7, **flags)
        write = loop.Log.step

        def die(log, numbers):
            write(log, numbers)
            if numbers["step"] == 4:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop.Log, "step", die)
        with pytest.raises(KeyboardInterrupt):
            unveil.pretrain("videomae", data=flat, out=tmp_path / "cut", max_steps=7, **flags)
        monkeypatch.setattr(loop.Log, "step", write)
        cut = unveil.pretrain("videomae", data=flat, out=tmp_path / "cut", max_steps=7, **flags)
        assert losses(cut) == losses(whole)
        a, b = whole.objective.state_dict(), cut.objective.state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_micro_batches_do_not_change_the_loss(self, flat, tmp_path):
        runs = [
            unveil.pretrain("videomae", data=flat, out=tmp_path / str(n), max_steps=3, **{**FAST, "loader.batch": n})
            for n in (1, 4)
        ]
        assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)

    def test_a_signal_saves_and_the_same_command_goes_on(self, flat, tmp_path, monkeypatch):
        whole = unveil.pretrain("videomae", data=flat, out=tmp_path / "whole", max_steps=6, **FAST)
        write = loop.Log.step

        def interrupt(log, numbers):
            write(log, numbers)
            if numbers["step"] == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(loop.Log, "step", interrupt)
        with pytest.raises(SystemExit) as stop:
            unveil.pretrain("videomae", data=flat, out=tmp_path / "cut", max_steps=6, **FAST)
        assert stop.value.code == 0
        assert len(unveil.load(tmp_path / "cut").log()) in (3, 4)
        monkeypatch.setattr(loop.Log, "step", write)
        cut = unveil.pretrain("videomae", data=flat, out=tmp_path / "cut", max_steps=6, **FAST)
        assert losses(cut) == losses(whole)

    def test_data_that_changed_since_are_said_when_a_run_goes_on(self, flat, tmp_path, monkeypatch, capsys):
        folder = tmp_path / "data"
        shutil.copytree(flat, folder)
        write = loop.Log.step

        def stop(log, numbers):
            write(log, numbers)
            os.kill(os.getpid(), signal.SIGTERM)

        flags = {**FAST, "quiet": False}
        monkeypatch.setattr(loop.Log, "step", stop)

        def goes_on():
            with pytest.raises(SystemExit):
                unveil.pretrain("videomae", data=folder, out=tmp_path / "run", max_steps=9, **flags)
            return capsys.readouterr().err

        assert "changed" not in goes_on()
        assert "changed" not in goes_on()
        files = sorted(folder.iterdir())
        content = files[0].read_bytes()
        files[0].write_bytes(content + b"\0")
        assert "other contents, labels or times" in goes_on()
        files[0].unlink()
        shutil.copy(files[1], folder / "more.mp4")
        assert "1 new, 1 gone" in goes_on()

    def test_checked_data_that_changed_since_are_said(self, flat, tmp_path, monkeypatch, capsys):
        folder = tmp_path / "data"
        shutil.copytree(flat, folder)
        unveil.cli.run(["data", "check", str(folder), "--workers", "1"])
        write = loop.Log.step

        def stop(log, numbers):
            write(log, numbers)
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(loop.Log, "step", stop)

        def goes_on():
            with pytest.raises(SystemExit):
                unveil.pretrain("videomae", data=folder, out=tmp_path / "run", max_steps=9, **{**FAST, "quiet": False})
            return capsys.readouterr().err

        goes_on()
        assert "changed" not in goes_on()
        file = sorted(folder.glob("*.mp4"))[0]
        file.write_bytes(file.read_bytes() + b"\0")  # not checked again
        assert "other contents, labels or times" in goes_on()

    def test_the_best_weights_are_kept(self, clips, tmp_path):
        run = unveil.train("vit", data=clips, out=tmp_path / "a", max_steps=25, val_fraction=0.34, **FAST)
        scores = {line["step"]: line["val_top1"] for line in run.log() if "val_top1" in line}
        assert run.info["best"] == {
            "step": min(step for step in scores if scores[step] == max(scores.values())), "score": max(scores.values())
        }  # fmt: skip
        last = unveil.evaluate(run.path, data=clips, workers=0, views="1x1", out=tmp_path / "l", quiet=True)
        best = unveil.evaluate(
            run.path, data=clips, weights="best", workers=0, views="1x1", out=tmp_path / "b", quiet=True
        )
        assert last.metrics.keys() == best.metrics.keys()
        with pytest.raises(UserError, match="--weights worst"):
            unveil.evaluate(run.path, data=clips, weights="worst", quiet=True)

    def test_one_run_folder_one_process(self, flat, tmp_path, monkeypatch):
        from unveil.training import guards

        monkeypatch.setattr(guards, "LOCK_SECONDS", 0)
        with guards.alone(tmp_path / "run"), pytest.raises(UserError, match="another process is training into"):
            unveil.pretrain("videomae", data=flat, out=tmp_path / "run", max_steps=1, **FAST)
        assert not (tmp_path / "run").exists()
        unveil.pretrain("videomae", data=flat, out=tmp_path / "run", max_steps=1, **FAST)

    def test_the_average_of_the_weights_survives_a_cut(self, flat, tmp_path, monkeypatch):
        flags = {**FAST, "ema": 0.5, "checkpoint_every": 0}
        whole = unveil.pretrain("videomae", data=flat, out=tmp_path / "whole", max_steps=4, **flags)
        write = loop.Log.step

        def die(log, numbers):
            write(log, numbers)
            if numbers["step"] == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop.Log, "step", die)
        with pytest.raises(KeyboardInterrupt):
            unveil.pretrain("videomae", data=flat, out=tmp_path / "cut", max_steps=4, **flags)
        monkeypatch.setattr(loop.Log, "step", write)
        cut = unveil.pretrain("videomae", data=flat, out=tmp_path / "cut", max_steps=4, **flags)
        a, b = whole.objective.state_dict(), cut.objective.state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_knn_is_watched_where_there_are_labels(self, clips, tmp_path):
        run = unveil.pretrain("videomae", data=clips, out=tmp_path / "a", max_steps=2, val_fraction=0.34, **FAST)
        assert 0 <= run.log()[-1]["knn"] <= 1
        assert run.classes == ["moving", "still"]

    def test_files_without_a_label_are_left_out_and_said(self, clips, tmp_path, capsys):
        folder = tmp_path / "data"
        shutil.copytree(clips, folder)
        shutil.copy(folder / "still" / "0.mp4", folder / "unknown.mp4")
        flags = {**FAST, "quiet": False}
        run = unveil.train("videomae", data=folder, out=tmp_path / "a", max_steps=1, val_fraction=0, **flags)
        assert run.info["files"] == {"train": 12, "validation": 0, "bad": 0}
        assert "1 of 13 files have no label" in capsys.readouterr().err

    def test_starting_from_another_run_with_other_frames_and_classes(self, pretrained, clips, tmp_path):
        flags = {**FAST, "frames": 8}
        more = unveil.pretrain("videomae", data=clips, out=tmp_path / "a", start=pretrained.path, max_steps=1, **flags)
        assert more.encoder.positions.grid == (4, 4, 4)
        tuned = unveil.train("vit", data=clips, out=tmp_path / "b", max_steps=1, **FAST)
        shutil.copytree(clips, tmp_path / "three")
        shutil.copytree(clips / "still", tmp_path / "three" / "waiting")
        again = unveil.finetune(tuned.path, data=tmp_path / "three", out=tmp_path / "c", max_steps=1, quiet=True)
        assert again.info["recipe"] == "vit"
        assert again.classes == ["moving", "still", "waiting"]
        with pytest.raises(UserError, match="Leave the flag out"):
            unveil.train("vit", data=clips, out=tmp_path / "d", num_classes=5, **FAST)

    def test_two_processes_are_one(self, flat, tmp_path):
        runs = [
            unveil.pretrain("videomae", data=flat, out=tmp_path / str(n), max_steps=3, devices=n, device="cpu", **FAST)
            for n in (1, 2)
        ]
        assert losses(runs[1]) == pytest.approx(losses(runs[0]), abs=1e-5)
        assert len(losses(runs[1])) == 3

    def test_options_of_training(self, clips, tmp_path):
        run = unveil.train(
            "vit", data=clips, out=tmp_path / "a", max_steps=3, class_weights=True, checkpointing=True, logger=["tensorboard"],
            **{**FAST, "ema": 0.5, "clip_gradient": 1.0},
        )  # fmt: skip
        assert run.info["flags"]["frames"] == 4
        assert list((run.path / "tensorboard").glob("events*"))
        assert run.log()[-1]["gradient_norm"] > 0

    def test_a_pretraining_recipe_trains_its_fine_tuning_network_from_scratch(self, clips, tmp_path):
        run = unveil.train("videomae", data=clips, out=tmp_path / "a", max_steps=2, **FAST)
        assert run.info["recipe"] == "videomae:finetune"
        assert run.info["asked"]["start"] is None

    def test_half_precision(self, flat, tmp_path):
        runs = [
            unveil.pretrain("videomae", data=flat, out=tmp_path / p, max_steps=2, device="cpu", precision=p, **FAST)
            for p in ("32", "bf16")
        ]
        assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=0.02)
        assert losses(runs[1]) != losses(runs[0])

    def test_zero_steps_write_the_first_weights(self, flat, tmp_path):
        run = unveil.pretrain("videomae", data=flat, out=tmp_path / "a", max_steps=0, **FAST)
        assert run.info["status"] == "complete"
        assert run.encoder.embed.weight.abs().sum() > 0

    def test_a_run_killed_after_its_last_checkpoint_is_finished(self, flat, tmp_path):
        flags = {"data": flat, "out": tmp_path / "a", "max_steps": 2, **FAST}
        run = unveil.pretrain("videomae", **flags)
        weights = (run.path / "weights.safetensors").read_bytes()
        (run.path / "weights.safetensors").unlink()
        (run.path / "run.json").write_text(json.dumps({**run.info, "status": "running"}))
        run = unveil.pretrain("videomae", **flags)
        assert run.info["status"] == "complete"
        assert (run.path / "weights.safetensors").read_bytes() == weights
        assert [line["step"] for line in run.log()] == [1, 2]

    def test_images(self, tmp_path):
        from PIL import Image

        for i in range(6):
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(
                tmp_path / f"{i}.png"
            )
        flags = {k: v for k, v in FAST.items() if k not in ("frames", "stride")}
        run = unveil.pretrain("mae", data=tmp_path, out=tmp_path / "run", max_steps=2, **flags)
        assert run.embed([tmp_path / "0.png"]).shape == (1, 32)
        assert unveil.report(run, quiet=True).stat().st_size > 10_000

    def test_a_size_may_name_its_clip(self, clips, tmp_path):
        flags = {k: v for k, v in FAST.items() if k not in ("size", "frames", "stride", "patch")}
        for size, frames in (("debug_4x1", 4), ("debug", 16)):
            run = unveil.train("mvitv2", data=clips, out=tmp_path / size, size=size, max_steps=1, **flags)
            assert run.recipe.data.signal.clip.frames == frames

    def test_labels_in_a_csv_with_several_labels_segments_and_splits(self, clips, tmp_path):
        (tmp_path / "clips").symlink_to(clips)  # the way out where the files are not below the list
        paths = [f"clips/{path.relative_to(clips)}" for path in sorted(clips.rglob("*.mp4"))]
        with (tmp_path / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "start", "end", "split"])
            for i, path in enumerate(paths):
                writer.writerow(
                    [path, "a;b" if i % 3 == 0 else "a" if i % 3 == 1 else "b", 0.0, 0.5, "val" if i > 8 else "train"]
                )
        run = unveil.train("videomae", data=tmp_path / "labels.csv", out=tmp_path / "run", max_steps=2, **FAST)
        assert run.info["multi_label"] is True
        assert run.info["files"] == {"train": 9, "validation": 3, "bad": 0}
        assert "val_map" in run.log()[-1]


class TestCheckedData:
    """A folder that `unveil data check` went over."""

    @pytest.fixture
    def checked(self, clips, tmp_path):
        folder = shutil.copytree(clips, tmp_path / "data")
        (folder / "still/broken.mp4").write_text("no video")
        for split in ("train", "test"):
            (folder / split).mkdir()
        for name in ("still", "moving"):
            shutil.copytree(folder / name, folder / "test" / name)
            shutil.move(folder / name, folder / "train" / name)
        assert len(unveil.verbs.check(folder, quiet=True, workers=1).bad) == 2
        return folder

    def test_bad_files_are_known_from_the_start(self, checked, tmp_path, capsys):
        flags = {**FAST, "quiet": False, "max_steps": 2}
        run = unveil.train("videomae", data=checked, out=tmp_path / "run", max_bad=0.2, **flags)
        assert run.info["files"] == {"train": 12, "validation": 12, "bad": 2}
        assert [line["path"] for line in run.bad_files()] == [
            f"{checked}/{s}/still/broken.mp4" for s in ("test", "train")
        ]
        assert all(line["error"].startswith(f"{line['path']}: ") for line in run.bad_files())
        assert run.log()[-1]["bad"] == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "2 of 26 files cannot be read and are left out; the first: " in said
        assert "warning: 12 held-out files have the content of files that are trained on" in said
        report = unveil.evaluate(run.path, data=checked, out=tmp_path / "e", workers=0, quiet=True)
        assert [path for path, _ in report.bad] == [f"{checked}/test/still/broken.mp4"]
        with pytest.raises(UserError, match=r"2 of 26 files cannot be read, more than --max-bad 0\.05"):
            unveil.train("videomae", data=checked, out=tmp_path / "strict", max_bad=0.05, **FAST)

    def test_the_same_run_as_without_a_check(self, flat, tmp_path):
        plain = unveil.pretrain("videomae", data=flat, out=tmp_path / "plain", max_steps=3, **FAST)
        folder = shutil.copytree(flat, tmp_path / "data")
        unveil.verbs.check(folder, quiet=True, workers=1)
        run = unveil.pretrain("videomae", data=folder, out=tmp_path / "run", max_steps=3, **FAST)
        assert losses(run) == losses(plain)
        assert run.info["data_hash"].split("-")[0] == plain.info["data_hash"]

    def test_a_changed_folder_is_said(self, checked, tmp_path, capsys):
        (checked / "train/still/0.mp4").unlink()
        run = unveil.train(
            "videomae", data=checked, out=tmp_path / "run", max_bad=0.5, **{**FAST, "quiet": False, "max_steps": 3}
        )
        assert "warning: " in (said := " ".join(capsys.readouterr().err.split()))
        assert "changed since it was checked (1 file is gone" in said
        assert any("0.mp4" in line["path"] for line in run.bad_files())  # gone: a bad file like any other


class TestAnswers:
    def test_evaluate(self, finetuned, clips, tmp_path):
        report = unveil.evaluate(finetuned.path, data=clips, out=tmp_path, views="2x1", workers=0, quiet=True)
        assert 0 <= report.metrics["top1"] <= 1
        assert report.confusion.sum() == 12
        assert json.loads((tmp_path / "accuracy.json").read_text())["metrics"] == report.metrics
        assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("by", ["knn", "linear", "attentive"])
    def test_probes(self, pretrained, clips, tmp_path, by):
        report = unveil.evaluate(
            pretrained.path, data=clips, by=by, out=tmp_path, val_fraction=0.34, workers=0, quiet=True
        )
        assert report.metrics["samples"] == 4
        again = unveil.evaluate(pretrained.path, data=clips, by=by, test=clips, out=tmp_path, workers=0, quiet=True)
        assert again.metrics["samples"] == 12

    def test_predict(self, finetuned, clips, tmp_path):
        (tmp_path / "broken.mp4").write_bytes(b"not a video")
        write_video(tmp_path / "long.mp4", clip(1, 1, frames=33), fps=8)
        rows = unveil.predict(finetuned.path, clips / "still", tmp_path, out=tmp_path / "rows.csv", quiet=True)
        good = [row for row in rows if "long" in str(row["path"])]
        assert len(good) > 4
        assert all(b["start"] > a["start"] for a, b in itertools.pairwise(good))
        assert next(row for row in rows if "broken" in str(row["path"]))["error"]
        assert (tmp_path / "rows.csv").read_text().count("\n") == len(rows) + 1
        one = unveil.load(finetuned.path).predict(clips / "still" / "0.mp4", top=2)[0]
        assert sum(probability for _, probability in one["top"]) == pytest.approx(1)

    def test_embed_and_search(self, pretrained, clips, tmp_path):
        unveil.embed(pretrained.path, data=clips, out=tmp_path / "index", layer=1, pool="max", quiet=True)
        query = clips / "moving" / "3.mp4"
        hits = unveil.search(tmp_path / "index", query, top=3, html=tmp_path / "page.html", quiet=True)
        assert len(hits) == 3
        assert str(hits[0].path).endswith("moving/3.mp4")
        assert hits[0].similarity == pytest.approx(1, abs=1e-4)
        assert "<img" in (tmp_path / "page.html").read_text()

    def test_report(self, pretrained, finetuned):
        for run in (pretrained, finetuned):
            page = unveil.report(run.path, quiet=True).read_text()
            assert "http://" not in page.replace("http://www.w3.org", "")
            assert "<img" in page or "<svg" in page

    def test_the_encoder_alone_is_a_module(self, pretrained):
        with torch.no_grad():
            tokens = pretrained.encoder(torch.zeros(1, 3, 4, 32, 32))
        assert tokens.x.shape == (1, 32, 32)


class TestErrors:
    def refused(self, match, call, *args, **flags):
        with pytest.raises(UserError, match=match):
            call(*args, **flags)

    def test_folders(self, tmp_path, clips):
        self.refused(
            "does not exist|no such", unveil.pretrain, "videomae", data=tmp_path / "no", out=tmp_path / "o", **FAST
        )
        (tmp_path / "empty").mkdir()
        self.refused(r"\.mp4", unveil.pretrain, "videomae", data=tmp_path / "empty", out=tmp_path / "o", **FAST)
        assert not (tmp_path / "o").exists()
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("precious")
        self.refused(
            "no run folder", unveil.pretrain, "videomae", data=clips, out=tmp_path / "mine", overwrite=True, **FAST
        )
        assert (tmp_path / "mine" / "thesis.txt").exists()
        self.refused("not a run folder", unveil.load, tmp_path / "mine")
        self.refused("does not exist", unveil.load, tmp_path / "nowhere")

    def test_labels(self, flat, clips, tmp_path, pretrained):
        self.refused("has a label", unveil.train, "videomae", data=flat, out=tmp_path / "o", **FAST)
        one = tmp_path / "one" / "still"
        one.parent.mkdir()
        shutil.copytree(clips / "still", one)
        self.refused("same label", unveil.train, "videomae", data=one.parent, out=tmp_path / "o", **FAST)
        self.refused("label", unveil.evaluate, pretrained.path, data=flat, by="knn", quiet=True)
        self.refused("fine-tune", unveil.evaluate, pretrained.path, data=clips, quiet=True, workers=0)
        self.refused("learns from labels", unveil.pretrain, "vit", data=flat, out=tmp_path / "o", **FAST)

    def test_classes_that_the_run_does_not_know(self, finetuned, clips, tmp_path):
        shutil.copytree(clips / "still", tmp_path / "data" / "jumping")
        self.refused("jumping", unveil.evaluate, finetuned.path, data=tmp_path / "data", quiet=True, workers=0)

    def test_loggers_and_precisions(self, flat, tmp_path):
        out = tmp_path / "o"
        self.refused("unknown", unveil.pretrain, "videomae", data=flat, out=out, logger=["paper"], **FAST)
        self.refused(
            "--precision", unveil.pretrain, "videomae", data=flat, out=out, **FAST, precision="8", overwrite=True
        )
        flags = {**FAST, "class_weights": True}
        self.refused("no labels", unveil.pretrain, "videomae", data=flat, out=out, **flags, overwrite=True)

    def test_a_run_folder_that_is_not_whole(self, pretrained, tmp_path):
        shutil.copytree(pretrained.path, tmp_path / "a")
        weights = tmp_path / "a" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:200])
        self.refused("cannot be read", lambda: unveil.load(tmp_path / "a").recipe)
        weights.unlink()
        self.refused("is missing", lambda: unveil.load(tmp_path / "a").recipe)
        file = tmp_path / "a" / "run.json"
        info = json.loads(file.read_text())
        file.write_text(json.dumps({**info, "format": 99}))
        self.refused("format 99", unveil.load, tmp_path / "a")
        file.write_text("{")
        self.refused("JSON", unveil.load, tmp_path / "a")

    def test_weights_of_another_recipe(self, pretrained, tmp_path):
        shutil.copytree(pretrained.path, tmp_path / "a")
        file = tmp_path / "a" / "run.json"
        info = json.loads(file.read_text())
        info["flags"]["size"] = "nano"
        file.write_text(json.dumps(info))
        self.refused("does not fit the recipe", lambda: unveil.load(tmp_path / "a").recipe)

    def test_views(self, finetuned, clips):
        for text in ("5", "0x1", "5x2", "axb"):
            self.refused("--views", unveil.evaluate, finetuned.path, data=clips, views=text, quiet=True)
        self.refused("--by", unveil.evaluate, finetuned.path, data=clips, by="magic", quiet=True)

    def test_a_recipe_that_cannot_be_fine_tuned(self, flat, clips, tmp_path):
        file = tmp_path / "my_pretraining.py"
        lines = (
            "from unveil.recipes.videomae import videomae",
            "def mine(ratio: float = 0.5):",
            "    return videomae('debug', ratio, 4, 1, 32, 8)",
        )
        file.write_text("\n".join(lines))
        flags = {k: v for k, v in FAST.items() if k not in TINY}
        run = unveil.pretrain(f"{file}:mine", data=flat, out=tmp_path / "a", max_steps=1, **flags)
        self.refused("finetune", unveil.finetune, run.path, data=clips, out=tmp_path / "b", **flags)

    def test_devices(self, clips, tmp_path):
        if not torch.cuda.is_available():
            self.refused("has none", unveil.pretrain, "videomae", data=clips, out=tmp_path / "o", **FAST, device="cuda")
        self.refused("unknown", unveil.pretrain, "videomae", data=clips, out=tmp_path / "o", **FAST, device="abacus")

    def test_out_of_memory_names_the_flag(self, flat, tmp_path, monkeypatch):
        def full(*_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

        monkeypatch.setattr(loop, "_backward", full)
        self.refused("--loader.batch", unveil.pretrain, "videomae", data=flat, out=tmp_path / "o", **FAST)

    def test_a_loss_that_is_not_finite_stops_the_run(self, flat, tmp_path):
        flags = {**FAST, "optimizer.lr": 1e30, "schedule.warmup": 0}
        self.refused(
            "the loss is nan", unveil.pretrain, "videomae", data=flat, out=tmp_path / "o", max_steps=20, **flags
        )

    def test_broken_files_are_counted_and_too_many_stop_the_run(self, flat, tmp_path):
        folder = tmp_path / "data"
        shutil.copytree(flat, folder)
        (folder / "broken.mp4").write_bytes(b"\x00" * 500)
        run = unveil.pretrain("videomae", data=folder, out=tmp_path / "a", max_steps=8, **FAST)
        assert [entry["path"].endswith("broken.mp4") for entry in run.bad_files()] == [True]
        assert run.log()[-1]["bad"] == 1
        for i in range(4):
            (folder / f"broken{i}.mp4").write_bytes(b"\x00" * 500)
        self.refused("--max-bad", unveil.pretrain, "videomae", data=folder, out=tmp_path / "b", max_steps=40, **FAST)
