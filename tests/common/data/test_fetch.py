"""Fetching: where files are found, and every way in which it fails."""

import errno
import gzip
import hashlib
import http.server
import io
import multiprocessing
import threading
import zipfile
from pathlib import Path

import pytest

from common.data import fetch as module
from common.data.fetch import cache_folder, digests, fetch, fetch_all, status
from common.data.registry import Registry
from common.errors import DataError

CONTENT = b"Call me Ishmael.\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def registry(*sources, name="whale.txt") -> Registry:
    return Registry.model_validate(
        {
            "datasets": [
                {
                    "name": "whales",
                    "version": "1",
                    "folder": "whales",
                    "title": "Whales",
                    "licence": "CC0-1.0",
                    "attribution": "nobody",
                    "redistributable": True,
                    "citation": "@misc{whales, title = {Whales}}",
                    "files": [{"name": name, "sha256": SHA256, "bytes": len(CONTENT), "sources": list(sources)}],
                }
            ]
        }
    )


def url(address, **more) -> dict:
    return {"kind": "url", "url": address, **more}


def package(distribution="whales-package", version="1.0", member="whales/whale.txt", **more) -> dict:
    return {"kind": "package", "distribution": distribution, "version": version, "member": member, **more}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("REATTEND_CACHE", str(folder))
    monkeypatch.delenv("REATTEND_DATA", raising=False)
    return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "mirror" / "whales"
    folder.mkdir(parents=True)
    monkeypatch.setenv("REATTEND_DATA", str(folder.parent))
    return folder


@pytest.fixture
def server():
    """A web server on this machine: `server.pages` maps paths to (status, body); `server.asked` lists the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            running.asked.append(self.path)  # type: ignore[attr-defined]
            code, body = running.pages.get(self.path, (404, b"nothing here"))  # type: ignore[attr-defined]
            self.send_response(code)
            self.send_header("Content-Length", str(len(body) + (100 if self.path == "/cut" else 0)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.pages, running.asked = {"/whale": (200, CONTENT)}, []  # type: ignore[attr-defined]
    running.address = f"http://127.0.0.1:{running.server_port}"  # type: ignore[attr-defined]
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def wheel(folder: Path, member: str = "whales/whale.txt", content: bytes = CONTENT) -> str:
    """Make a wheel of `whales-package` 1.0 in `folder`; returns its sha256."""
    folder.mkdir(exist_ok=True)
    path = folder / "whales_package-1.0-py3-none-any.whl"
    metadata = {
        member: content,
        "whales_package-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: whales-package\nVersion: 1.0\n",
        "whales_package-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in metadata.items():
            archive.writestr(name, body)
        archive.writestr("whales_package-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in metadata))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip looks for wheels in this folder only."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def nothing_left(cache: Path) -> bool:
    return not [path for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


# Where files are found


def test_mirror_comes_first_and_is_used_in_place(mirror, cache, server):
    (mirror / "whale.txt").write_bytes(CONTENT)
    assert fetch("whales", registry=registry(url(server.address + "/whale"))) == mirror / "whale.txt"
    assert not server.asked
    assert not cache.exists()


def test_compressed_mirror_file_is_unpacked(mirror):
    (mirror / "whale.txt.gz").write_bytes(gzip.compress(CONTENT))
    path = fetch("whales", registry=registry())
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache_folder())


def test_url_then_cache(server):
    entries = registry(url(server.address + "/whale"))
    assert fetch("whales", "whale.txt", registry=entries).read_bytes() == CONTENT
    assert fetch_all("whales", registry=entries)["whale.txt"].read_bytes() == CONTENT
    assert server.asked == ["/whale"]


def test_unreachable_source_gives_way_to_the_next(server):
    entries = registry(url(server.address + "/absent"), url("http://127.0.0.1:1/whale"), url(server.address + "/whale"))
    assert fetch("whales", registry=entries).read_bytes() == CONTENT


def test_cleaned_url(server):
    raw = b"Header\r\n" + CONTENT.replace(b"\n", b"\r\n")
    server.pages["/raw"] = (200, raw)
    upstream = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    source = url(server.address + "/raw", upstream=upstream, clean={"lines": [(2, 1001)]})
    assert fetch("whales", registry=registry(source)).read_bytes() == CONTENT
    server.pages["/raw"] = (200, raw + b"!")
    with pytest.raises(DataError, match=upstream["sha256"]):
        fetch("whales", registry=registry(source, name="other.txt"))


def test_wheel_by_pip(index):
    digest = wheel(index)
    assert fetch("whales", registry=registry(package(wheel_sha256=digest))).read_bytes() == CONTENT


def test_file_of_an_installed_package_is_found_without_importing_it(tmp_path, monkeypatch):
    site = tmp_path / "site"
    wheel(tmp_path / "build")
    with zipfile.ZipFile(tmp_path / "build" / "whales_package-1.0-py3-none-any.whl") as archive:
        archive.extractall(site)
    (site / "whales" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(site))
    assert fetch("whales", registry=registry(package())) == site / "whales" / "whale.txt"
    assert status("whales", registry=registry(package()))[0].place == "package"


def test_digests_are_the_registered_ones():
    assert digests("whales", registry=registry()) == {"whales/whale.txt": SHA256}


# Every way in which it fails


def test_flipped_byte_in_the_mirror_is_never_passed_over(mirror, server):
    (mirror / "whale.txt").write_bytes(b"B" + CONTENT[1:])
    with pytest.raises(DataError) as caught:
        fetch("whales", registry=registry(url(server.address + "/whale")))
    found = hashlib.sha256(b"B" + CONTENT[1:]).hexdigest()
    for part in (str(mirror / "whale.txt"), SHA256, found, "Remove or replace"):
        assert part in str(caught.value)
    assert not server.asked


@pytest.mark.parametrize("place", [0, 1, 12, 40, -6, -1])
def test_flipped_byte_in_a_compressed_mirror_file(mirror, server, place):
    packed = bytearray(gzip.compress(CONTENT, mtime=0))
    packed[place] ^= 0xFF
    (mirror / "whale.txt.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"whale\.txt\.gz is corrupt"):
        fetch("whales", registry=registry(url(server.address + "/whale")))
    assert not server.asked


def test_truncated_compressed_mirror_file(mirror, cache):
    (mirror / "whale.txt.gz").write_bytes(gzip.compress(CONTENT)[:-20])
    with pytest.raises(DataError, match="corrupt"):
        fetch("whales", registry=registry())
    assert not cache.exists()


def test_flipped_byte_in_the_cache(server):
    entries = registry(url(server.address + "/whale"))
    path = fetch("whales", registry=entries)
    path.write_bytes(b"B" + CONTENT[1:])
    with pytest.raises(DataError, match=f"{path} is corrupt: expected sha256 {SHA256}"):
        fetch("whales", registry=entries)
    assert status("whales", registry=entries)[0].state == "corrupt"
    path.unlink()
    assert fetch("whales", registry=entries).read_bytes() == CONTENT


def test_mirror_that_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="REATTEND_DATA"):
        fetch("whales", registry=registry())


def test_no_network(cache):
    with pytest.raises(DataError) as caught:
        fetch("whales", registry=registry(url("http://127.0.0.1:1/whale")))
    for part in ("whales/whale.txt could not be had", "cannot be reached", "$REATTEND_DATA/whales/whale.txt", SHA256):
        assert part in str(caught.value)
    assert nothing_left(cache)


def test_no_source_at_all():
    with pytest.raises(DataError, match="no automatic source"):
        fetch("whales", registry=registry())


@pytest.mark.parametrize("code", [403, 404, 500])
def test_http_errors(server, cache, code):
    server.pages["/whale"] = (code, b"")
    with pytest.raises(DataError, match=str(code)):
        fetch("whales", registry=registry(url(server.address + "/whale")))
    assert nothing_left(cache)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Log in</html>", b"\n <HTML><body>Proxy</body></HTML>"])
def test_web_page_instead_of_the_file(server, cache, page):
    server.pages["/whale"] = (200, page)
    with pytest.raises(DataError, match="web page"):
        fetch("whales", registry=registry(url(server.address + "/whale")))
    assert nothing_left(cache)


def test_other_content_than_registered(server, cache):
    server.pages["/whale"] = (200, CONTENT + b"!")
    with pytest.raises(DataError, match="corrupt: expected sha256"):
        fetch("whales", registry=registry(url(server.address + "/whale")))
    assert nothing_left(cache)


def test_connection_cut_in_the_middle(server, cache):
    server.pages["/cut"] = (200, CONTENT[:500])
    with pytest.raises(DataError, match="cannot be reached"):
        fetch("whales", registry=registry(url(server.address + "/cut")))
    assert nothing_left(cache)


def test_full_disk(server, cache, monkeypatch):
    class FullDisk(io.FileIO):
        def write(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.downloaders.open", lambda path, mode: FullDisk(path, "w"), raising=False)
    with pytest.raises(DataError, match=r"No space left on device\. Free space"):
        fetch("whales", registry=registry(url(server.address + "/whale")))
    assert nothing_left(cache)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="REATTEND_CACHE"):
        fetch("whales", registry=registry(url(server.address + "/whale")))


def test_wheel_without_the_member(index, cache):
    wheel(index, member="whales/other.txt")
    with pytest.raises(DataError, match=r"has no whales/whale\.txt"):
        fetch("whales", registry=registry(package()))
    assert nothing_left(cache)


def test_wheel_with_another_sha256(index):
    wheel(index)
    with pytest.raises(DataError, match="not the registered one"):
        fetch("whales", registry=registry(package(wheel_sha256="0" * 64)))


def test_wheel_with_another_content(index, cache):
    wheel(index, content=CONTENT * 3)
    with pytest.raises(DataError, match="corrupt"):
        fetch("whales", registry=registry(package()))
    assert nothing_left(cache)


@pytest.mark.usefixtures("index")
def test_wheel_that_pip_cannot_find():
    with pytest.raises(DataError, match=r"pip cannot download whales-package==1\.0 .*No matching distribution"):
        fetch("whales", registry=registry(package()))


def test_installed_package_without_the_file(tmp_path, monkeypatch):
    information = tmp_path / "site" / "whales_package-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: whales-package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(DataError, match=r"lacks whales/whale\.txt.*--force-reinstall"):
        fetch("whales", registry=registry(package()))


def test_status_downloads_nothing(server, cache):
    (found,) = status("whales", registry=registry(url(server.address + "/whale")))
    assert (found.state, found.place, found.path) == ("missing", None, None)
    assert server.address in found.detail
    assert not server.asked
    assert not cache.exists()


def _fetch_in_a_process(entries, results):
    results.put(module.fetch("whales", registry=entries).read_bytes() == CONTENT)


def test_processes_at_the_same_time_download_once(server):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    entries = registry(url(server.address + "/whale"))
    processes = [context.Process(target=_fetch_in_a_process, args=(entries, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=120) for _ in processes] == [True] * 3
    for process in processes:
        process.join()
    assert server.asked == ["/whale"]
