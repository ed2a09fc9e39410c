"""Files of models on a worker's disk: their permissions, and folders that are full, forbidden or missing."""

import os
import pwd
import resource
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.pushing import FOLDER, Pushed
from upres.core import registry
from upres.core.errors import ModelUnavailable
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.worker.model import pull

NOBODY = 65534


@pytest.fixture
def pushed(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    pushed = Pushed(store, secrets.token_hex(8), tmp_path_factory.mktemp("versions"))
    pushed.push()
    return pushed


@contextmanager
def forbidden(folder: Path) -> Iterator[None]:
    """Take from this process the right to write into a folder. Root has it always, so root becomes another user."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Limit the size of files, so that the kernel refuses to write the weights."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_cached_files_follow_the_umask(pushed: Pushed, tmp_path: Path, mask: int, file: int, folder: int) -> None:
    """A second user's worker reads them; with 0600 whatever the umask it did not start."""
    before = os.umask(mask)
    try:
        model = pushed.pull(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in model.files.values()} == {file}
    assert stat.S_IMODE((tmp_path / "models").stat().st_mode) == folder


def test_files_that_cannot_be_kept_are_loaded_from_a_temporary_folder(
    pushed: Pushed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pushed.pull(tmp_path / "other")  # opens the store, before this process may no longer read boto3's files
    with ExitStack() as temporary:
        with forbidden(tmp_path):
            model = pull(pushed.store, pushed.name, "1", tmp_path / "cache", temporary=temporary)
        assert model.files["golden.png"].read_bytes() == (FOLDER / "golden.png").read_bytes()
        [folder] = {path.parent for path in model.files.values()}
    assert not folder.exists()
    [line] = [one.getMessage() for one in caplog.records if "UPRES_CACHE_DIR" in one.getMessage()]
    assert str(tmp_path / "cache") in line
    assert "Permission denied" in line


def test_a_cached_file_of_another_user_is_used_from_a_folder_that_is_read_only(pushed: Pushed, tmp_path: Path) -> None:
    first = pushed.pull(tmp_path)
    (first.files["golden.png"]).unlink()
    (tmp_path / "models").chmod(0o555)
    with ExitStack() as temporary:
        model = pull(pushed.store, pushed.name, "1", tmp_path, temporary=temporary)
        assert model.files["edsr-x4.onnx"] == first.files["edsr-x4.onnx"]
    (tmp_path / "models").chmod(0o755)


@pytest.mark.parametrize(("fault", "says"), [(forbidden, "cannot write"), (full, "no room")])
def test_files_that_can_be_written_nowhere_raise_a_precise_error_and_leave_no_parts(
    pushed: Pushed, tmp_path: Path, fault: Callable[[Path], AbstractContextManager[None]], says: str
) -> None:
    pushed.pull(tmp_path / "other")
    (tmp_path / "cache").mkdir()
    with fault(tmp_path / "cache"), pytest.raises(ModelUnavailable, match=says):
        pushed.pull(tmp_path / "cache")
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert all(registry.digest(path.read_bytes()) == path.stem for path in files)
    assert pushed.pull(tmp_path / "cache")


def test_a_user_without_a_home_folder_loads_models_and_keeps_none(
    pushed: Pushed, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In containers, a user's number often has no line in /etc/passwd; it ended with a traceback."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    assert Settings().cache_folder == Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache", "upres")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert Settings().cache_folder is None
    with ExitStack() as temporary:
        assert pull(store, pushed.name, "1", None, temporary=temporary)
