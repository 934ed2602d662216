"""Output files appear whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from flexserve_cosim.outputs import directory, pending
from flexserve_sw.errors import UserError


def test_file_appears_only_when_the_body_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    with pending(target) as (file,):
        assert file is not None
        file.write_json({"tokens": [1, 2]})
        assert not target.exists()
    assert json.loads(target.read_text()) == {"tokens": [1, 2]}
    assert os.listdir(tmp_path) == ["run.json"]


def test_failed_body_leaves_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), pending(target) as (file,):
        assert file is not None
        file.write("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_one_unwritable_name_leaves_none_of_the_others(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"Cannot write .*missing/b\.json"),
        pending(tmp_path / "a.json", None, tmp_path / "missing" / "b.json"),
    ):
        pytest.fail("the body ran")
    assert os.listdir(tmp_path) == []


def test_value_that_json_does_not_know_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"), pending(tmp_path / "run.json") as (file,):
        assert file is not None
        file.write_json({"ratio": float("nan")})
    assert os.listdir(tmp_path) == []


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give each a file of its own"), pending(tmp_path / "a", tmp_path / "." / "a"):
        pytest.fail("the body ran")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["/dev/full", "/dev/null"])
def test_device_is_refused_and_stays_a_device(name: str) -> None:
    with pytest.raises(UserError, match="not a regular file"), pending(Path(name)):
        pytest.fail("the body ran")
    assert stat.S_ISCHR(os.stat(name).st_mode)


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is a folder"), pending(tmp_path):
        pytest.fail("the body ran")


def test_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    made = directory(tmp_path / "a" / "b")
    assert made.is_dir()
    assert os.listdir(made) == []


def test_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write into"):
        directory(tmp_path / "file" / "below")
