import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from serving_runs import IMAGE, VIDEO, make_run, write_image, write_video

from unveil.errors import UserError
from unveil.serve import Hit, embed, embeddings, nearest, print_hits, search, search_page
from unveil.serve.index import read_index

embed_module = __import__("unveil.serve.embed", fromlist=["embed"])
index_module = __import__("unveil.serve.index", fromlist=["index"])
neighbours_module = __import__("unveil.evaluation.neighbours", fromlist=["neighbours"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "a", "videomae", VIDEO)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i in range(5):
        write_video(folder / f"{i}.mp4", 1.6, colour=40 * i)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def index(run, clips, tmp_path_factory):
    return embed(run, [clips], tmp_path_factory.mktemp("index") / "new", batch=3)


def test_index(run, clips, index):
    table = pq.read_table(index / "embeddings.parquet")
    assert table.column_names == ["path", "start", "end", "embedding"]
    assert str(table.schema.field("embedding").type) == f"fixed_size_list<element: float>[{run.encoder.width}]"
    assert table.num_rows == 10
    x = np.stack(table.column("embedding").to_pylist()).astype(np.float32)
    np.testing.assert_allclose(x, embeddings(run, sorted(clips.glob("[0-9].mp4"))), atol=1e-5)
    assert table.column("path")[0].as_py() == str(clips / "0.mp4")
    assert table.column("start").to_pylist()[:2] == pytest.approx([0, 0.8])
    info = json.loads((index / "index.json").read_text())
    assert (info["count"], info["width"], info["layer"], info["pool"]) == (10, run.encoder.width, None, "mean")
    assert info["run"] == str(run.path)
    assert [bad["path"] for bad in info["bad"]] == [str(clips / "broken.mp4")]
    assert sorted(f.name for f in index.iterdir()) == ["embeddings.parquet", "index.json", "vectors.f32"]


def test_row_groups_are_written_as_they_fill(run, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_module, "ROW_GROUP", 4)
    folder = embed(run, [clips], tmp_path / "i", batch=2)
    with pq.ParquetFile(folder / "embeddings.parquet") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 2]


def test_layer_and_pool(run, clips):
    files = [clips / "0.mp4", clips / "3.mp4"]
    last = embeddings(run, files)
    for other in (embeddings(run, files, layer=1), embeddings(run, files, pool="max")):
        assert other.shape == last.shape == (4, run.encoder.width)
        assert other.dtype == np.float32
        assert not np.allclose(other, last)
    with pytest.raises(UserError, match="no class token"):
        embeddings(run, files, pool="class")
    with pytest.raises(UserError, match=r"broken\.mp4"):
        embeddings(run, [clips])


def test_search_finds_the_query_itself_first(index, clips):
    hits = search(index, clips / "2.mp4", top=4)  # the run is found through the index
    assert len(hits) == 4
    assert hits[0].path == str(clips / "2.mp4")
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)
    assert [h.similarity for h in hits] == sorted((h.similarity for h in hits), reverse=True)
    without = search(index, clips / "2.mp4", top=99, drop_query=True)
    assert len(without) == 8
    assert str(clips / "2.mp4") not in {hit.path for hit in without}


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("mapped", [True, False])
def test_search_is_exact_in_chunks(index, chunk, mapped, monkeypatch, tmp_path):
    monkeypatch.setattr(index_module, "CHUNK", chunk)
    monkeypatch.setattr(neighbours_module, "ROWS", chunk)
    if not mapped:  # as older versions left it
        index = shutil.copytree(index, tmp_path / "copy")
        (index / "vectors.f32").unlink()
    table = pq.read_table(index / "embeddings.parquet")
    x = np.stack(table.column("embedding").to_pylist())
    q = np.random.default_rng(0).normal(size=(2, x.shape[1])).astype(np.float32)
    cosine = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    expected = np.sort(cosine.max(1))[::-1]
    for top in (1, 4, 10, 50):
        hits = nearest(index, q, top)
        np.testing.assert_allclose([h.similarity for h in hits], expected[:top], atol=1e-5)
    start = table.column("start").to_pylist()[int(cosine.max(1).argmax())]
    assert hits[0].start == start


def test_vectors_of_another_index_are_not_looked_in(index, tmp_path):
    copy = shutil.copytree(index, tmp_path / "copy")
    (copy / "vectors.f32").write_bytes(b"\0" * 64)
    query = np.random.default_rng(0).normal(size=(1, json.loads((copy / "index.json").read_text())["width"]))
    assert nearest(copy, query, 3) == nearest(index, query, 3)


def test_ties_go_to_the_earlier_row(run, clips, tmp_path):
    twin = write_video(tmp_path / "z" / "twin.mp4", 0.8)
    (tmp_path / "z" / "a.mp4").write_bytes(twin.read_bytes())
    folder = embed(run, [tmp_path / "z"], tmp_path / "i")
    names = [hit.path.rsplit("/", 1)[1] for hit in search(folder, twin, top=2)]
    assert names == ["a.mp4", "twin.mp4"]


def test_an_index_is_not_overwritten_unasked(run, clips, tmp_path, capsys):
    out = embed(run, [clips / "0.mp4"], tmp_path / "i")
    with pytest.raises(UserError, match="--overwrite"):
        embed(run, [clips / "0.mp4"], out)
    embed(run, [clips / "1.mp4", clips / "broken.mp4"], out, overwrite=True, quiet=False)
    assert json.loads((out / "index.json").read_text())["count"] == 2
    text = capsys.readouterr().err
    assert "left out" in text
    assert "2 embeddings" in text.replace("\n", " ")


def test_no_half_index(run, clips, tmp_path):
    with pytest.raises(UserError, match="none of the files"):
        embed(run, [clips / "broken.mp4"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="no such pooling"):
        embed(run, [clips / "0.mp4"], tmp_path / "new", pool="median")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="not an index"):
        search(tmp_path, clips / "0.mp4")


def test_errors_of_search(run, index, clips, tmp_path):
    with pytest.raises(UserError, match="--top"):
        search(index, clips / "0.mp4", top=0)
    with pytest.raises(UserError, match="no such file"):
        search(index, clips / "none.mp4")
    with pytest.raises(UserError, match=r"broken\.mp4"):
        search(index, clips / "broken.mp4")
    with pytest.raises(UserError, match="width"):
        nearest(index, np.ones((1, 3), np.float32))
    other = make_run(tmp_path / "other", "videomae", {**VIDEO, "ratio": 0.5})
    (other.path / "weights.safetensors").write_bytes((other.path / "weights.safetensors").read_bytes() + b" ")
    with pytest.raises(UserError, match="other weights"):
        search(index, clips / "0.mp4", run=other)
    copy = tmp_path / "copy"
    copy.mkdir()
    info = json.loads((index / "index.json").read_text())
    (copy / "embeddings.parquet").write_bytes((index / "embeddings.parquet").read_bytes())
    (copy / "index.json").write_text(json.dumps({**info, "run": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match="is not there"):
        search(copy, clips / "0.mp4")
    assert search(copy, clips / "0.mp4", run=run)[0].path == str(clips / "0.mp4")
    (copy / "index.json").write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        search(copy, clips / "0.mp4")


def test_print_hits(capsys):
    hits = [Hit("/a/[b]x.mp4", 0.0, 2.0, 0.98765)]
    assert print_hits(hits) == hits
    text = capsys.readouterr().out
    assert "0.9877" in text
    assert "/a/[b]x.mp4" in text
    print_hits(hits, quiet=True)
    assert capsys.readouterr().out == ""


def test_page(clips, tmp_path):
    evil = tmp_path / "<script>alert(1)<" / "<img src=x onerror=alert(2)>.mp4"
    write_video(evil, 0.8)
    hits = [Hit(str(evil), 0.0, 0.8, 0.9), Hit(str(tmp_path / "gone.mp4"), 0.0, 0.8, 0.5)]
    search_page(hits, evil, tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2  # the query and its first hit
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(2)&gt;.mp4" in page
    assert "gone.mp4" in page  # with why there is no picture
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:|#)", page)
    search_page([], clips / "broken.mp4", tmp_path / "t.html")
    assert "broken.mp4" in (tmp_path / "t.html").read_text()


def test_images(tmp_path):
    run = make_run(tmp_path / "a", "mae", IMAGE)
    files = [write_image(tmp_path / "p" / f"{i}.png", i) for i in range(3)]
    folder = embed(run, [tmp_path / "p"], tmp_path / "i", pool="class")
    hits = search(folder, files[1], top=3)
    assert hits[0].path == str(files[1])
    assert hits[0].start is None
    search_page(hits, files[1], tmp_path / "s.html")
    assert (tmp_path / "s.html").read_text().count("data:image/jpeg") == 4


def test_half_precision_is_what_was_asked_for_and_a_search_keeps_to_it(run, clips, index, tmp_path, monkeypatch):
    half = embed(run, [clips], tmp_path / "half", precision="bf16")
    assert [read_index(folder)["precision"] for folder in (half, index)] == ["bf16", "32"]
    own, whole = (np.stack(pq.read_table(f / "embeddings.parquet")["embedding"].to_pylist()) for f in (half, index))
    assert not np.array_equal(own, whole)
    np.testing.assert_allclose(own, whole, atol=0.02 * np.abs(whole).max())
    asked: list[str] = []
    real = embed_module.lowered
    monkeypatch.setattr(
        embed_module, "lowered", lambda device, precision, own: asked.append(precision) or real(device, precision, own)
    )
    assert search(half, clips / "2.mp4", top=1)[0].similarity == pytest.approx(1.0, abs=1e-4)
    search(index, clips / "2.mp4")
    assert asked == ["bf16", "32"]


def test_a_precision_that_is_none_or_not_borne_is_refused_and_nothing_is_lost(run, clips, index, tmp_path, monkeypatch):
    mine = embed(run, [clips], tmp_path / "mine")
    with pytest.raises(UserError, match="--precision 16: use 32 or bf16"):
        embed(run, [clips], mine, precision="16", overwrite=True)
    monkeypatch.setattr(run.recipe, "precision", "32")  # as of MAE3D
    with pytest.raises(UserError, match="32 bits alone"):
        embed(run, [clips], mine, precision="bf16", overwrite=True)
    assert read_index(mine)["count"] == read_index(index)["count"]
