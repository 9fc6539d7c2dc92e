"""Files are whole or absent, whatever happens while they are written."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from common.errors import DataError
from common.files import sha256_of, whole_or_absent, write_text


def test_text_is_written_as_utf8_into_a_new_folder(tmp_path):
    write_text(tmp_path / "a" / "b" / "out.txt", "τ ≤ 1\n")
    assert (tmp_path / "a" / "b" / "out.txt").read_bytes() == "τ ≤ 1\n".encode()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out.txt"]


def write_half(path, error):
    with whole_or_absent(path) as temporary:
        temporary.write_text("ha")
        raise error


@pytest.mark.parametrize("before", [None, "old"])
def test_an_exception_leaves_what_was_there(tmp_path, before):
    path = tmp_path / "out.json"
    if before is not None:
        path.write_text(before)
    with pytest.raises(RuntimeError, match="half"):
        write_half(path, RuntimeError("half way"))
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["out.json"])
    assert before is None or path.read_text() == before


def test_a_full_disk_gives_one_sentence_and_no_file(tmp_path):
    with pytest.raises(DataError, match=r"Cannot write .*out\.json: No space left on device\. Free space"):
        write_half(tmp_path / "out.json", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_at_the_last_step_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_gives_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"Cannot write .*make the folder .*file writable"):
        write_text(tmp_path / "file" / "out.json", "text")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_gives_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            write_text(tmp_path / "out.json", "text")
    finally:
        tmp_path.chmod(0o700)


def test_a_killed_process_leaves_no_half_written_file(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom common.files import whole_or_absent\n"
        f"with whole_or_absent(Path({str(tmp_path / 'out.json')!r})) as temporary:\n"
        "    temporary.write_text('ha')\n    print('writing', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out.json").exists()


def test_of_many_writers_one_wins_whole(tmp_path):
    path = tmp_path / "out.txt"
    code = (
        "import sys\nfrom pathlib import Path\nfrom common.files import write_text\n"
        f"for _ in range(200): write_text(Path({str(path)!r}), sys.argv[1] * 10000)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert path.read_text() in ("a" * 10000, "b" * 10000)
        time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 10000])
def test_the_digest_is_sha256(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
