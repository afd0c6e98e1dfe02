import errno
import hashlib
import os
import stat
import subprocess
import sys

import pytest

from pcdet.utils import safe_files
from pcdet.utils.safe_files import (
    DamagedFileError,
    WriteError,
    remove,
    remove_partials,
    replacing,
    sha256_of,
    sum_path,
    verify,
)

KEEP_WRITING = """
import sys
from pcdet.utils.safe_files import replacing
print("writes", flush=True)
for number in range(1_000_000):
    with replacing(sys.argv[1], checksum=True) as stream:
        stream.write(str(number % 10).encode() * 100_000)
"""


def write(path, content, **options):
    with replacing(path, **options) as stream:
        stream.write(content)


def test_the_sum_is_the_one_that_sha256sum_writes(tmp_path):
    file = tmp_path / "a b.pth"
    write(file, b"abc", checksum=True)
    assert sum_path(file).read_text() == f"{hashlib.sha256(b'abc').hexdigest()}  a b.pth\n"
    assert sha256_of(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert verify(file)


def test_a_file_of_another_program_is_read_unchecked(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert not verify(tmp_path / "a")


@pytest.mark.parametrize("damage", [b"abd", b"ab", b"abcd", b""], ids=["a bit", "shorter", "longer", "empty"])
def test_damage_names_the_file_and_both_sums(tmp_path, damage):
    file = tmp_path / "a"
    write(file, b"abc", checksum=True)
    file.write_bytes(damage)
    with pytest.raises(DamagedFileError) as caught:
        verify(file)
    for part in (str(file), hashlib.sha256(damage).hexdigest(), hashlib.sha256(b"abc").hexdigest(), "delete"):
        assert part in str(caught.value)


def test_an_unreadable_sum_is_an_error(tmp_path):
    write(tmp_path / "a", b"abc")
    sum_path(tmp_path / "a").write_bytes(b"\xff\xfe no sum")
    with pytest.raises(DamagedFileError, match="no SHA-256 sum"):
        verify(tmp_path / "a")


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "a"
    write(file, b"old", checksum=True)
    with pytest.raises(OSError, match="full"), replacing(file, checksum=True) as stream:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")
    assert file.read_bytes() == b"old" and verify(file)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "a.sha256"]


def test_a_kill_between_any_two_steps_never_leaves_a_file_with_the_sum_of_another(tmp_path, monkeypatch):
    file, steps = tmp_path / "a", []

    def watched(name):
        call = getattr(os, name)

        def step(*args, **kwargs):
            result = call(*args, **kwargs)
            steps.append((file.read_bytes(), verify(file)))  # what a reader finds after a kill at this point
            return result

        return step

    write(file, b"old", checksum=True)
    for name in ("fsync", "unlink", "replace"):
        monkeypatch.setattr(safe_files.os, name, watched(name))
    write(file, b"new", checksum=True)
    assert (b"old", True) in steps and (b"new", False) in steps and steps[-1] == (b"new", True)


@pytest.mark.parametrize("step", range(1, 5))
def test_a_step_that_fails_leaves_the_old_file_with_its_sum_or_says_that_the_new_one_is_there(
    tmp_path, monkeypatch, step
):
    """The steps: the new sum is flushed (1), the old sum moved (2), the file moved (3), the new sum moved (4)."""
    file, done = tmp_path / "a", []
    write(file, b"old", checksum=True)

    def failing(name, call, first):
        def run(*args):
            done.append(name)
            if done.count(name) == first:
                raise OSError(errno.ENOSPC, "disk full")
            return call(*args)

        return run

    name, count = [("fsync", 2), ("replace", 1), ("replace", 2), ("replace", 3)][step - 1]
    monkeypatch.setattr(safe_files.os, name, failing(name, getattr(os, name), count))
    with pytest.raises(OSError) as caught:
        write(file, b"new", checksum=True)
    monkeypatch.undo()
    in_place = step == 4
    assert isinstance(caught.value, WriteError) == in_place
    assert (file.read_bytes(), verify(file)) == ((b"new", False) if in_place else (b"old", True))
    if in_place:
        assert "a is written, but not its checksum" in str(caught.value) and "disk full" in str(caught.value)
    else:
        assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "a.sha256"]


def test_a_sound_file_that_its_owner_replaces_between_sum_and_content_is_not_damaged(tmp_path, monkeypatch):
    file, replaced = tmp_path / "a", []
    write(file, b"old", checksum=True)

    def replaced_first(path):
        if not replaced:
            replaced.append(path)
            write(file, b"new", checksum=True)
        return sha256_of(path)

    monkeypatch.setattr(safe_files, "sha256_of", replaced_first)
    assert verify(file) and replaced == [file] and file.read_bytes() == b"new"


def test_a_sound_file_is_never_reported_damaged_while_its_owner_replaces_it(tmp_path):
    file = tmp_path / "a"
    write(file, b"0" * 100_000, checksum=True)
    with subprocess.Popen([sys.executable, "-c", KEEP_WRITING, file], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "writes\n"
            for _ in range(300):
                verify(file)
        finally:
            writer.kill()


def test_a_file_without_a_sum_takes_the_old_sum_away(tmp_path):
    write(tmp_path / "a", b"old", checksum=True)
    write(tmp_path / "a", b"new")
    assert not verify(tmp_path / "a")


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        one.write(b"one")
        two.write(b"two")
    assert (tmp_path / "a").read_bytes() == b"one"  # the last to end


def test_files_get_the_permissions_that_others_have(tmp_path):
    write(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_what_killed_writers_left_goes_and_the_rest_stays(tmp_path):
    left, others = ["a.partial-12-00ab34cd", "a.sha256.partial-7-12345678"], ["b.partial-1.txt", "my.partial-notes"]
    for name in (*left, *others):
        (tmp_path / name).write_bytes(b"half")
    write(tmp_path / "a", b"abc", checksum=True)
    assert [f.name for f in remove_partials(tmp_path)] == left
    assert verify(tmp_path / "a")
    remove(tmp_path / "a")
    assert sorted(f.name for f in tmp_path.iterdir()) == others


def test_what_is_put_aside_keeps_its_ending_and_its_sum(tmp_path):
    for content in (b"first", b"second"):
        with safe_files.replacing(tmp_path / "a.pth", checksum=True) as stream:
            stream.write(content)
        aside = safe_files.put_aside(tmp_path / "a.pth")
        assert aside.read_bytes() == content and safe_files.verify(aside)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a-old1.pth", "a-old1.pth.sha256", "a-old2.pth", "a-old2.pth.sha256",
    ]  # fmt: skip
    (tmp_path / "a-old1.pth").unlink()  # its sum stays, as after a kill between the two moves
    (tmp_path / "a.pth").write_bytes(b"third")
    assert safe_files.put_aside(tmp_path / "a.pth").name == "a-old3.pth"
    assert not safe_files.verify(tmp_path / "a-old3.pth")
    done = subprocess.run(["sha256sum", "-c", "a-old2.pth.sha256"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "a-old2.pth: OK\n"
