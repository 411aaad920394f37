"""A folder of predictions from beginning to end, and what happens when something fails."""

import dataclasses
import errno
import functools
import json
import os

import numpy as np
import pytest
import tifffile

from isl_jax import files
from isl_jax.files import written_whole
from isl_jax.inference import job as jobs
from isl_jax.inference import pipeline
from isl_jax.inference.folder import claimed
from isl_jax.inference.info import PostProcessing
from isl_jax.inference.job import Job, shard
from isl_jax.inference.large import Scratch
from isl_jax.inference.pipeline import Rate, predict_all
from isl_jax.inference.relabel import find_maps
from isl_jax.inference.sources import find_sources
from isl_jax.ingest.layouts import parse_roles
from isl_jax.outputs import rasters
from isl_jax.outputs.catalogue import files_of_image, write_outputs

ROLES = parse_roles("bf1,bf2,phase")
ALL = ("labels", "maps", "rois", "geojson", "table", "overlay")


@pytest.fixture
def folder(tmp_path, make_planes):
    """Twenty images of two sizes."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for index in range(20):
        planes = make_planes(64, 96 if index % 7 == 3 else 64, seed=index)
        tifffile.imwrite(raw / f"i{index:02d}.tif", planes, photometric="minisblack")
    return tmp_path


@pytest.fixture
def model(make_model):
    return make_model("distance_and_semantic", postprocessing=PostProcessing(h=5.0))


def job_of(folder, model, outputs=("labels",), fingerprint="f", name="out"):
    out = folder / name
    write = functools.partial(write_outputs, out, model.info, outputs)
    files = functools.partial(files_of_image, model.info, outputs)
    job = Job(out, model.info, outputs, fingerprint, write, files)
    job.prepare()
    return job


def sources_of(folder):
    return find_sources([str(folder / "raw")], ROLES)[0]


def predict(folder, model, job, sources=None):
    chosen = sources_of(folder) if sources is None else sources
    return list(predict_all(chosen, model, job))


def test_every_image_is_predicted_as_if_alone(folder, model):
    job = job_of(folder, model, ALL)
    outcomes = predict(folder, model, job)
    assert [outcome.name for outcome in outcomes] == [f"i{index:02d}" for index in range(20)]
    assert not [outcome for outcome in outcomes if outcome.error]
    for index in (0, 3, 10, 19):
        planes = tifffile.imread(folder / "raw" / f"i{index:02d}.tif")
        alone = model.predict(planes)
        stored = tifffile.imread(folder / "out" / f"i{index:02d}_probability.tif")
        np.testing.assert_allclose(stored, alone.probability, atol=1e-5)
        labels = tifffile.imread(folder / "out" / f"i{index:02d}_labels.tif")
        assert (labels > 0).mean() == pytest.approx((alone.labels > 0).mean(), abs=0.01)
    assert len(list((folder / "out").glob("*_labels.tif"))) == 20


def test_what_is_done_is_known_until_anything_changes(folder, model):
    job, sources = job_of(folder, model), sources_of(folder)[:3]
    predict(folder, model, job, sources)
    assert all(job.is_done(source) for source in sources)
    assert not job_of(folder, model, fingerprint="other").is_done(sources[0])
    assert not job_of(folder, model, ("labels", "table")).is_done(sources[0])
    (folder / "out" / "i01_labels.tif").unlink()
    tifffile.imwrite(
        folder / "raw" / "i02.tif", np.ones((3, 32, 32), np.uint16), photometric="minisblack"
    )
    assert [job.is_done(source) for source in sources] == [True, False, False]


def test_a_damaged_file_among_twenty(folder, model):
    damaged = folder / "raw" / "i11.tif"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    tifffile.imwrite(folder / "raw" / "i05.tif", np.ones((2, 64, 64), np.uint16))
    job = job_of(folder, model, ALL)
    outcomes = {outcome.name: outcome for outcome in predict(folder, model, job)}
    failed = {name: str(one.error) for name, one in outcomes.items() if one.error}
    assert set(failed) == {"i05", "i11"}
    assert "i11.tif" in failed["i11"] and "copy" in failed["i11"]
    assert "i05.tif: holds 2 planes" in failed["i05"]
    assert len(outcomes) == 20
    assert len(list((folder / "out").glob("*_labels.tif"))) == 18
    assert not list((folder / "out").glob("i11*"))


def test_images_smaller_than_the_stride(folder, model, make_planes):
    tifffile.imwrite(folder / "raw" / "i00.tif", make_planes(9, 20), photometric="minisblack")
    job = job_of(folder, model, ALL)
    (outcome,) = predict(folder, model, job, sources_of(folder)[:1])
    assert outcome.error is None
    assert tifffile.imread(folder / "out" / "i00_labels.tif").shape == (9, 20)


def test_nothing_half_written_when_the_disk_is_full(folder, model, monkeypatch):
    write, num_written = tifffile.imwrite, []

    def until_full(path, *arguments, **options):
        num_written.append(path)
        if len(num_written) > 3:
            path.write_bytes(b"the beginning of a file")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, *arguments, **options)

    monkeypatch.setattr(rasters.tifffile, "imwrite", until_full)
    monkeypatch.setattr(pipeline, "_PIXELS_AHEAD", 1)
    outcomes = predict(folder, model, job_of(folder, model))
    failed = [outcome for outcome in outcomes if outcome.error]
    # Those that were on their way fail, too; the rest are not begun.
    assert 3 < len(outcomes) < 20 and failed and all(one.is_disk_full for one in failed)
    left = sorted(path.name for path in (folder / "out").iterdir())
    assert left == ["i00_labels.tif", "i01_labels.tif", "i02_labels.tif", "records"]
    assert len(list((folder / "out" / "records").iterdir())) == 3


def test_folders_that_cannot_be_written_are_named_at_once(folder, model, monkeypatch):
    (folder / "out").write_text("a file")
    with pytest.raises(OSError, match=r"out: cannot be written.*choose another --out"):
        job_of(folder, model)
    (folder / "out").unlink()

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Read-only file system")

    monkeypatch.setattr(files.Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="Read-only file system"):
        job_of(folder, model)


class Panic(BaseException):
    """What libraries of other languages raise is no Exception."""


@pytest.mark.parametrize("kind", [TypeError, AttributeError, Panic, ZeroDivisionError])
@pytest.mark.parametrize("where", ["open", "network", "write"])
def test_no_image_ends_the_run_of_the_others(folder, model, monkeypatch, kind, where):
    sources, job = sources_of(folder)[:4], job_of(folder, model)

    def fail(*arguments, **_):
        if where != "write" or arguments[0].name == "i01":
            raise kind("whatever")
        return []

    if where == "open":
        monkeypatch.setattr(type(sources[1].roles[0]), "select", fail)
    elif where == "network":
        monkeypatch.setattr(model, "maps_of", fail)
    else:
        job = dataclasses.replace(job, write=fail)
    outcomes = predict(folder, model, job, sources)
    failed = [outcome for outcome in outcomes if outcome.error]
    assert len(outcomes) == 4 and all(isinstance(one.error, kind) for one in failed)
    assert len(failed) == (1 if where == "write" else 4)


def test_only_the_user_ends_a_run(folder, model):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(folder, model, dataclasses.replace(job_of(folder, model), write=interrupt))


def test_results_of_another_image_are_not_overwritten(folder, model):
    job, (source, *_) = job_of(folder, model), sources_of(folder)
    predict(folder, model, job, [source])
    job.check_free([source])
    (folder / "day2").mkdir()
    other_file = folder / "day2" / source.path.name
    other_file.write_bytes(source.path.read_bytes())
    (other,) = find_sources([str(other_file)], ROLES).images
    told = rf"{source.path}.*{other_file}.*'i00'.*another --out.*--overwrite"
    with pytest.raises(ValueError, match=told):
        job.check_free([other])
    # Labelled anew from its own maps, in place, it is the same image.
    job = job_of(folder, model, ("labels", "maps"))
    predict(folder, model, job, [source])
    job.check_free(find_maps(folder / "out", model.info))
    source.path.unlink()
    job.check_free([other])


@pytest.mark.parametrize("link", [False, True])
def test_files_of_the_user_are_not_overwritten(folder, model, link):
    job, (source, *_) = job_of(folder, model), sources_of(folder)
    mine = folder / "out" / "i00_labels.tif"
    mine.symlink_to(folder / "nowhere") if link else mine.write_bytes(b"drawn by hand")
    with pytest.raises(ValueError, match=r"i00_labels\.tif: .*not written by isl-predict"):
        job.check_free([source])


def test_no_output_takes_the_place_of_an_input(folder, model):
    raw = folder / "raw"
    (raw / "i00_labels.tif").write_bytes((raw / "i00.tif").read_bytes())
    sources = [s for s in sources_of(folder) if s.name in ("i00", "i00_labels")]
    job = job_of(folder, model, name="raw")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"i00_labels\.tif: is an input"):
            job.check_free(sources, overwrite=overwrite)


def test_what_a_killed_run_left_is_taken_up(folder, model):
    job, (source, *_) = job_of(folder, model), sources_of(folder)
    out = folder / "out"
    with pytest.raises(KeyboardInterrupt), claimed(out, "i00", job.files("i00")):
        (out / "i00_labels.tif").write_bytes(b"whole, but without a record")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), written_whole(out / "i00_labels.tif") as draft:
        # Of a process that is no more: numbers of processes end below this one.
        dead = draft.with_name(draft.name.replace(f"-{os.getpid()}-", "-99999999-"))
        dead.write_bytes(b"half")
        raise KeyboardInterrupt
    job.check_free([source])
    assert not job.is_done(source)
    job.prepare()
    predict(folder, model, job, [source])
    assert sorted(path.name for path in out.iterdir()) == ["i00_labels.tif", "records"]
    assert [path.name for path in (out / "records").iterdir()] == ["i00.json"]


def test_a_missing_input_is_due_and_named(folder, model):
    job, (source, *_) = job_of(folder, model), sources_of(folder)
    predict(folder, model, job, [source])
    source.path.unlink()
    assert not job.is_done(source)
    (outcome,) = predict(folder, model, job, [source])
    assert "i00.tif: no such file" in str(outcome.error)


@pytest.mark.parametrize("kind", ["file", "link to a file", "link to nothing"])
def test_out_must_be_a_folder(folder, model, kind):
    (folder / "a file").write_text("")
    target = {"link to a file": "a file", "link to nothing": "nothing"}.get(kind)
    if target:
        (folder / "out").symlink_to(folder / target)
    else:
        (folder / "out").write_text("")
    with pytest.raises(OSError, match=r"out: cannot be written, it is a .*choose another --out"):
        job_of(folder, model)
    assert not (folder / "nothing").exists()


def test_maps_give_the_same_labels_again_and_others(folder, model):
    job, sources = job_of(folder, model, ("labels", "maps")), sources_of(folder)[:3]
    predict(folder, model, job, sources)
    for images_given in (sources, []):
        again = job_of(folder, model, ("labels", "table"), "g", name="again")
        maps = find_maps(folder / "out", model.info, images_given)
        assert not any(again.is_done(source) for source in maps)
        outcomes = predict(folder, model, again, maps)
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert all(again.is_done(source) for source in maps)
        for source in sources:
            first, second = (
                tifffile.imread(folder / place / f"{source.name}_labels.tif")
                for place in ("out", "again")
            )
            np.testing.assert_array_equal(first, second)
        header = (folder / "again" / "i00.csv").read_text().splitlines()[0]
        assert ("mean_bf1" in header) == bool(images_given)
    with pytest.raises(FileNotFoundError, match="--outputs=labels,maps"):
        find_maps(folder / "raw", model.info)


def test_large_images_leave_no_temporary_file(folder, model, monkeypatch):
    monkeypatch.setattr(jobs, "Scratch", functools.partial(Scratch, max_pixels=100))
    job = job_of(folder, model, ALL)
    outcomes = predict(folder, model, job, sources_of(folder)[:2])
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert not list((folder / "out").glob(".*"))
    record = json.loads((folder / "out" / "records" / "i00.json").read_text())
    assert record["size"] == [64, 64] and record["num_objects"] >= 0


def test_a_long_run_tells_of_itself_now_and_then():
    pace = Rate(10, every=0)
    lines = [pace.line(count) for count in (0, 5, 10)]
    assert lines == [None, "5 of 10 images, about 0 min left", None]
    assert Rate(10, every=60).line(5) is None


def test_shards_are_every_image_once():
    numbers = list(range(11))
    parts = [shard(numbers, f"{index}/3") for index in range(3)]
    assert sorted(number for part in parts for number in part) == numbers
    for text in ("3/3", "1", "a/b", "0/0"):
        with pytest.raises(ValueError, match="--shard"):
            shard(numbers, text)
