import errno
import hashlib
import os
import stat
import subprocess

import pytest

from pcdet.utils import safe_files
from pcdet.utils.safe_files import DamagedFileError, remove, remove_partials, replacing, sha256_of, sum_path, verify


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
    (tmp_path / "a.partial-12-ab").write_bytes(b"half")
    write(tmp_path / "a", b"abc", checksum=True)
    assert [f.name for f in remove_partials(tmp_path)] == ["a.partial-12-ab"]
    assert verify(tmp_path / "a")
    remove(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_what_is_put_aside_keeps_its_ending_and_its_sum(tmp_path):
    for content in (b"first", b"second"):
        with safe_files.replacing(tmp_path / "a.pth", checksum=True) as stream:
            stream.write(content)
        aside = safe_files.put_aside(tmp_path / "a.pth")
        assert aside.read_bytes() == content and safe_files.verify(aside)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a-old1.pth", "a-old1.pth.sha256", "a-old2.pth", "a-old2.pth.sha256",
    ]  # fmt: skip
    done = subprocess.run(["sha256sum", "-c", "a-old2.pth.sha256"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "a-old2.pth: OK\n"
