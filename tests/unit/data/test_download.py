"""Downloads from a server on loopback: broken off and resumed, checked, and unpacked where they belong."""

import gzip
import hashlib
import io
import json
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from benchmark_copies import make_voc
from file_server import serve

from cutsew.config import load
from cutsew.config.loading import DEFAULT
from cutsew.data import fetch as fetching
from cutsew.data.fetch import digest_of, fetch, mirrored, unpack
from cutsew.data.listing import listing_fingerprint
from cutsew.errors import UserError
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.preflight import validate_inputs
from cutsew.runtime.processes import directory_lock
from cutsew.stages.download import download

CONTENT = bytes(range(256)) * 4000
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.0)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.tar").write_bytes(CONTENT)
    with serve(tmp_path / "served") as files:
        yield files


def test_a_file_arrives_whole_and_checked(tmp_path, server):
    assert fetch(f"{server.url}/a.tar", tmp_path / "here" / "a.tar", MD5) == MD5
    assert (tmp_path / "here" / "a.tar").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["a.tar"]
    assert fetch(f"{server.url}/a.tar", tmp_path / "here" / "a.tar", MD5) == MD5
    assert len(server.requests) == 1  # what is there is checked, not fetched again


def test_what_breaks_off_is_resumed(tmp_path, server):
    server.breaks = 2
    fetch(f"{server.url}/a.tar", tmp_path / "a.tar", MD5)
    half = len(CONTENT) // 2
    assert server.requests == [("/a.tar", None), ("/a.tar", f"bytes={half}-"), ("/a.tar", f"bytes={half + half // 2}-")]
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_an_earlier_attempt_is_gone_on_with(tmp_path, server):
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:1000])
    fetch(f"{server.url}/a.tar", tmp_path / "a.tar", MD5)
    assert server.requests == [("/a.tar", "bytes=1000-")]
    (tmp_path / "b.tar.part").write_bytes(CONTENT)  # whole, but it was killed before the check
    fetch(f"{server.url}/a.tar", tmp_path / "b.tar", MD5)
    assert (tmp_path / "b.tar").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_or_has_another_file_by_now(tmp_path, server):
    server.breaks, server.resumes = 1, False
    fetch(f"{server.url}/a.tar", tmp_path / "a.tar", MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    server.resumes = True
    (tmp_path / "b.tar.part").write_bytes(b"older content")
    (tmp_path / "b.tar.part.source").write_text('"older"')
    fetch(f"{server.url}/a.tar", tmp_path / "b.tar", MD5)
    (tmp_path / "c.tar.part").write_bytes(CONTENT + b"more than there is")
    fetch(f"{server.url}/a.tar", tmp_path / "c.tar", MD5)
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "c.tar").read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_removed(tmp_path, server):
    with pytest.raises(UserError, match=rf"a\.tar: digests to {MD5}, not to md5:0000"):
        fetch(f"{server.url}/a.tar", tmp_path / "here" / "a.tar", f"md5:{'0' * 32}")
    assert list((tmp_path / "here").iterdir()) == []


def test_servers_that_refuse_and_that_are_gone(tmp_path, server):
    with pytest.raises(UserError, match=r"none\.tar: the server answers 404 .*set dataset\.download\.mirror"):
        fetch(f"{server.url}/none.tar", tmp_path / "a.tar")
    server.breaks = 10**6
    (tmp_path / "served" / "a.tar").write_bytes(b"x")
    with pytest.raises(UserError, match="the connection broke off; try again later"):
        fetch(f"{server.url}/a.tar", tmp_path / "a.tar")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1/a\.tar: .*refused.*; try again later"):
        fetch("http://127.0.0.1:1/a.tar", tmp_path / "a.tar")


def test_a_busy_server_is_asked_again(tmp_path, server):
    server.busy = 3
    fetch(f"{server.url}/a.tar", tmp_path / "a.tar", MD5)
    assert len(server.requests) == 4
    server.busy = 10**6
    with pytest.raises(UserError, match=r"the server answers 503 .*; try again later"):
        fetch(f"{server.url}/a.tar", tmp_path / "b.tar", MD5)


def test_digests_by_hand(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_of(tmp_path / "abc", "md5") == "md5:900150983cd24fb0d6963f7d28e17f72"
    assert digest_of(tmp_path / "abc", "sha1") == "sha1:a9993e364706816aba3e25717850c26c9cd0d89d"


def test_mirrored():
    assert mirrored("http://a.org/x/y.zip?z=1", None) == "http://a.org/x/y.zip?z=1"
    assert mirrored("http://a.org/x/y.zip?z=1", "https://b.org/voc/") == "https://b.org/voc/y.zip"


def tar_of(path, *members, content=b"hello"):
    with tarfile.open(path, "w") as tar:
        for name, change in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in change.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w") as packed:
        for name, mode in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            packed.writestr(member, "hello")


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("../out", {}), "'../out' would land outside"),
        (("in/../../out", {}), "would land outside"),
        (("/tmp/out", {}), "would land outside"),
        (("in/link", {"type": tarfile.SYMTYPE, "linkname": "../../out"}), "'in/link' is a link or a device"),
        (("in/link", {"type": tarfile.LNKTYPE, "linkname": "in/file"}), "is a link or a device"),
        (("in/pipe", {"type": tarfile.FIFOTYPE}), "is a link or a device"),
    ],
)
def test_tars_that_reach_out_are_refused(tmp_path, member, said):
    tar_of(tmp_path / "a.tar", ("in/file", {}), member)
    (tmp_path / "deep" / "here").mkdir(parents=True)
    with pytest.raises(UserError, match=said):
        unpack(tmp_path / "a.tar", tmp_path / "deep" / "here")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"a.tar", "deep", "deep/here", "deep/here/in", "deep/here/in/file"}


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("../out", 0, "would land outside"),
        ("..\\out", 0, "would land outside"),
        ("/tmp/out", 0, "would land outside"),
        ("C:/out", 0, "would land outside"),
        ("link", stat.S_IFLNK | 0o777, "is a link or a device"),
    ],
)
def test_zips_that_reach_out_are_refused(tmp_path, name, mode, said):
    zip_of(tmp_path / "a.zip", ("in/file", 0o644), (name, mode))
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=said):
        unpack(tmp_path / "a.zip", tmp_path / "here")
    assert {path.name for path in tmp_path.rglob("*")} == {"a.zip", "here", "in", "file"}


def test_damaged_archives(tmp_path):
    tar_of(tmp_path / "good.tar", ("in/file", {}), content=np.random.default_rng(0).bytes(100_000))
    short = gzip.compress((tmp_path / "good.tar").read_bytes())[:60_000]
    damaged = {"a.tar": b"no tar", "b.zip": b"PK no zip", "c.tar": b"", "d.tar.gz": short}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="not a sound archive"):
            unpack(tmp_path / name, tmp_path)


LISTS = {"train": ["a", "b"], "val": ["c"]}


def packed_voc(tmp_path):
    """Pack a small VOC as it is released: images and lists in two archives, so that both have to be laid together."""
    make_voc(tmp_path / "made" / "VOCdevkit" / "VOC2012", LISTS, ["cat", "dog"])
    digests = {}
    for name, parts in (("one.tar", ["JPEGImages"]), ("two.tar.gz", ["Annotations", "ImageSets"])):
        path = tmp_path / "served" / name
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            for part in parts:
                inside = f"VOCdevkit/VOC2012/{part}"
                tar.add(tmp_path / "made" / inside, inside)
        digests[name] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return digests


@pytest.fixture
def raw(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archives = [{"url": f"{server.url}/{name}", "digest": digest} for name, digest in packed_voc(tmp_path).items()]
    dataset = {"name": "tiny", "kind": "voc", "root": "data/voc/VOCdevkit/VOC2012"}
    dataset["download"] = {"folder": "data/voc", "archives": archives}
    return {"classes": ["cat", "dog"], "dataset": dataset}


def run(raw, tmp_path):
    record = tmp_path / "results" / "tiny" / "default" / "download.json"
    download(record, settings=Plan(raw).settings(DEFAULT, "download"))
    return json.loads(record.read_text())["facts"]


def test_archives_are_laid_together_and_removed(tmp_path, raw, server):
    server.breaks = 1
    validate_inputs(load(raw))
    before = listing_fingerprint(load(raw))
    facts = run(raw, tmp_path)
    archives = raw["dataset"]["download"]["archives"]
    assert facts == {"downloaded": True, "archives": {a["url"]: a["digest"] for a in archives}}
    here, result = tmp_path / "data" / "voc", tmp_path / "made"
    files = {path.relative_to(result): path.read_bytes() for path in result.rglob("*") if path.is_file()}
    assert {path.relative_to(here): path.read_bytes() for path in here.rglob("*") if path.is_file()} == files
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["voc"]
    assert listing_fingerprint(load(raw)) == before  # else the run would not be finished after the download
    count = len(server.requests)
    assert run(raw, tmp_path) == {"downloaded": False} and len(server.requests) == count


def test_a_second_download_into_the_folder_is_refused_while_the_first_is_at_work(tmp_path, raw, server):
    with (
        directory_lock(tmp_path / "data" / "voc.archives", "cutsew download", "wait"),
        pytest.raises(UserError, match=r"voc\.archives: cutsew download \(process .*\) is using it; wait for it"),
    ):
        run(raw, tmp_path)
    assert server.requests == [] and not (tmp_path / "data" / "voc").exists()
    assert run(raw, tmp_path)["downloaded"]


def test_archives_may_be_kept_and_come_from_a_mirror(tmp_path, raw, server):
    for archive in raw["dataset"]["download"]["archives"]:
        archive["url"] = archive["url"].replace(server.url, "http://127.0.0.1:1/elsewhere")
    raw["dataset"]["download"] |= {"keep_archives": True, "mirror": server.url}
    run(raw, tmp_path)
    assert {path.name for path in (tmp_path / "data" / "voc.archives").iterdir()} == {"one.tar", "two.tar.gz"}


def test_without_a_digest_what_came_is_told(tmp_path, raw, caplog):
    archive = raw["dataset"]["download"]["archives"][0]
    digest, archive["digest"] = archive["digest"], None
    run(raw, tmp_path)
    assert f"{archive['url']}: no digest is set to check it with; it has {digest}" in caplog.messages


def test_nothing_half_unpacked_is_left(tmp_path, raw, server):
    (tmp_path / "served" / "two.tar.gz").write_bytes(b"no tar")
    raw["dataset"]["download"]["archives"][1]["digest"] = None
    with pytest.raises(UserError, match="not a sound archive"):
        run(raw, tmp_path)
    assert not (tmp_path / "data" / "voc").exists() and not (tmp_path / "results").exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["voc.archives"]


def test_a_folder_that_is_there_is_never_written_to(tmp_path, raw):
    (tmp_path / "data" / "voc").mkdir(parents=True)
    with pytest.raises(UserError, match="data/voc is there, but data/voc/VOCdevkit/VOC2012 is not"):
        run(raw, tmp_path)


def test_archives_that_hold_something_else(tmp_path, raw):
    raw["dataset"]["root"] = "data/voc/VOCdevkit/VOC2007"
    with pytest.raises(UserError, match="the archives hold no VOCdevkit/VOC2007"):
        run(raw, tmp_path)
    assert not (tmp_path / "data" / "voc").exists()


def test_images_that_were_downloaded_and_are_gone(tmp_path, raw):
    run(raw, tmp_path)
    (tmp_path / "data" / "voc").rename(tmp_path / "data" / "moved")
    with pytest.raises(UserError, match="VOC2012 is missing; restore it, or remove results/tiny/default/download.json"):
        validate_inputs(load(raw))


def test_a_copy_elsewhere_is_not_downloaded(tmp_path, raw):
    raw["dataset"]["root"] = "made/VOCdevkit/VOC2012"
    assert not load(raw).dataset.downloaded
    raw["dataset"]["root"] = "nowhere"
    with pytest.raises(UserError, match=r"dataset\.root: nowhere is not a folder"):
        validate_inputs(load(raw))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"folder": "x", "archives": [{"url": "ftp://a/b.tar"}]}, "not the http or https URL"),
        ({"folder": "x", "archives": [{"url": "http://a/b.rar"}]}, "of a .tar, .tar.gz or .zip"),
        ({"folder": "x", "archives": [{"url": "http://a/b.tar", "digest": "md5:12"}]}, "is not md5:, sha1: or sha256:"),
        ({"folder": "x", "archives": [{"url": "http://a/b.tar", "digest": f"crc:{'0' * 32}"}]}, "is not md5:"),
        ({"archives": [{"url": "http://a/b.tar"}]}, "archives need `folder`"),
        ({"folder": "x", "archives": [{"url": "http://a/b.tar"}, {"url": "http://c/b.tar"}]}, "the same file name"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(UserError, match=message):
        load({"classes": ["cat", "dog"], "dataset": {"kind": "voc", "root": "x", "download": wrong}})
