"""Tests of versions at whose loading the process dies: they are tried in a process of its own, by one worker."""

import json
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from redis import Redis

from tests.support import mixable
from tests.support.pushing import Pushed, pushed_copy
from upres.console.doctor import versions
from upres.core import keys, registry_changes, served_models, workers
from upres.core.errors import ModelError, ModelRefused, ModelUnavailable, WorkerUnavailable
from upres.core.served_models import ModelRef
from upres.core.storage import Store
from upres.core.verdicts import MAX_TRIES, Trying
from upres.core.workers import Worker
from upres.embedded.stack import Local
from upres.worker import version_trials
from upres.worker.engine.device import Memory, choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.gpu import Gpu
from upres.worker.imaging.decoding import Decoders
from upres.worker.label_watcher import LabelWatcher
from upres.worker.model_cache import ModelCache


class One:
    """A worker without jobs: its models, and what watches their labels."""

    def __init__(self, local: Local, redis: Redis, store: Store, name: str, stack: ExitStack) -> None:
        address = local.settings.redis_url.removesuffix("/0") + "/1"
        settings = local.settings.model_copy(update={"redis_url": address, "model": name})
        thread, decoders = stack.enter_context(DeviceThread()), stack.enter_context(Decoders(1, 1_000_000))
        self.models = ModelCache(settings, store, choose("cpu"), thread, decoders)
        self.watcher = LabelWatcher(settings, store, self.models, Memory(choose("cpu")))
        self.redis, self.model, self.name = redis, name, f"w-{secrets.token_hex(3)}"

    def refresh(self) -> None:
        self.watcher.refresh(self.model)
        record = {"device": "d", "models": (), "slots": 1, "jobs": (), "name": self.name, "state": "ready"}
        digests = tuple(one.key for one in self.models.ready())
        workers.publish(self.redis, Worker.model_validate({**record, "digests": digests}))


class Setup:
    """A model whose stable version has bundled weights, and whose label moves to a version with others."""

    def __init__(self, local: Local, redis: Redis, store: Store, model: Pushed, folder: Path, stack: ExitStack) -> None:
        self.redis, self.store, self.model = redis, store, model
        mixable.write(folder, model.name, 1)
        shutil.move(folder / model.name / "1", folder / "2")
        manifest = json.loads((folder / "2" / "manifest.json").read_text())
        (folder / "2" / "manifest.json").write_text(json.dumps({**manifest, "version": "2"}))
        registry_changes.push(store, folder / "2")
        self.new: ModelRef = served_models.read(store, model.name, "2")
        self.worker: Callable[[], One] = lambda: One(local, redis, store, model.name, stack)

    def label(self) -> None:
        registry_changes.relabel(self.store, self.model.name, {"stable": "2"})

    def served(self) -> dict[str, str]:
        offer = served_models.published(self.redis, self.model.name)
        return {label: ref.version for label, ref in offer.labels.items()} if offer else {}

    def refused(self) -> dict[str, str]:
        offer = served_models.published(self.redis, self.model.name)
        return dict(offer.refused) if offer else {}

    def told(self) -> list[str]:
        """What the doctor says of the model's versions."""
        found = versions.check(self.redis, self.store)
        return [finding.found for finding in found if finding.what == f"model {self.model.name}"]

    def trying(self) -> Trying:
        kind = version_trials._kind(choose("cpu"))
        return Trying(self.redis, self.model.name, self.new.digest, kind)


@pytest.fixture
def setup(local: Local, isolated_redis: Redis, store: Store, tmp_path: Path) -> Iterator[Setup]:
    with ExitStack() as stack:
        for model in pushed_copy(store, isolated_redis, tmp_path):
            yield Setup(local, isolated_redis, store, model, tmp_path / "new", stack)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Callable[[], int]]:
    """Replace the process of a trial by a program; the answer counts its runs."""

    def replace(code: str) -> Callable[[], int]:
        count = tmp_path / "runs"
        count.touch()
        begin = f"import os, signal, sys; open({str(count)!r}, 'a').write('x'); "
        monkeypatch.setattr(version_trials, "COMMAND", (sys.executable, "-c", begin + code))
        return lambda: len(count.read_text())

    return replace


Runs = Callable[[str], Callable[[], int]]


def killed_by(number: int) -> str:
    return f"os.kill(os.getpid(), {number})"


def test_a_version_that_crashes_is_tried_once_and_the_one_before_stays(setup: Setup, runs: Runs) -> None:
    count = runs(killed_by(signal.SIGSEGV))
    first, second = setup.worker(), setup.worker()
    first.watcher.prepare(setup.model.name)
    second.watcher.prepare(setup.model.name)
    assert count() == 0  # weights that are part of the package
    setup.label()
    for _ in range(2):
        first.refresh()
        second.refresh()
    assert count() == 1
    assert setup.served() == {"stable": "1"}
    assert "its process was ended by signal SIGSEGV" in setup.refused()["2"]
    [told] = setup.told()
    assert "2 is not served: Model" in told
    late = setup.worker()  # a worker that starts afterwards, or again
    late.watcher.prepare(setup.model.name)
    with pytest.raises(ModelRefused, match="SIGSEGV"), late.models.use(setup.model.name, setup.new):
        pass  # a job that names the version
    assert count() == 1


def test_a_new_version_that_works_is_tried_once_and_served(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the real process of a trial."""
    first, second = setup.worker(), setup.worker()
    first.refresh()
    second.refresh()
    setup.label()
    first.refresh()
    monkeypatch.setattr(version_trials, "COMMAND", ("/nowhere",))
    second.refresh()
    first.refresh()
    assert setup.served() == {"stable": "2"}
    assert first.models.has(setup.new.digest)
    assert second.models.has(setup.new.digest)


def test_a_version_that_is_killed_is_tried_again_at_most_three_times(setup: Setup, runs: Runs) -> None:
    count = runs(killed_by(signal.SIGKILL))
    all_workers = [setup.worker() for _ in range(MAX_TRIES + 2)]
    setup.label()
    for number, one in enumerate(all_workers):
        refused = ModelUnavailable if number < MAX_TRIES else ModelRefused
        with pytest.raises(refused), one.models.use(setup.model.name, setup.new):
            pass
    assert count() == MAX_TRIES


def test_workers_that_die_while_they_try_count_and_the_others_go_on_meanwhile(setup: Setup, runs: Runs) -> None:
    count = runs(killed_by(signal.SIGSEGV))
    one = setup.worker()
    one.watcher.prepare(setup.model.name)
    setup.label()
    for number in range(MAX_TRIES):
        other = setup.trying()
        assert other.begin()
        one.refresh()
        assert (setup.served(), setup.refused()) == ({"stable": "1"}, {})
        assert "Another worker is trying" in one.watcher.troubles[setup.model.name]
        assert 0 < setup.redis.ttl(other._lease) <= keys.TRYING_SECONDS
        assert other.tries == number + 1
        setup.redis.delete(other._lease)  # as if it had expired
    one.refresh()
    assert f"{MAX_TRIES} workers died" in setup.refused()["2"]
    assert (setup.served(), count()) == ({"stable": "1"}, 0)
    assert one.watcher.troubles == {}


@pytest.mark.parametrize(
    "code",
    ['print(\'{"fault": "worker", "reason": "No space left on device"}\')', None],
    ids=["full disk", "no process"],
)
def test_a_workers_own_trouble_is_not_told_of_the_version(
    setup: Setup, runs: Runs, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if code:
        runs(code)
    else:
        monkeypatch.setattr(version_trials, "COMMAND", ("/nowhere",))
    sick = setup.worker()
    sick.watcher.prepare(setup.model.name)
    setup.label()
    for _ in range(2):
        sick.refresh()
    assert (setup.served(), setup.refused()) == ({"stable": "1"}, {})
    assert "A worker cannot run model" in sick.watcher.troubles[setup.model.name]
    assert setup.told() == []
    again = setup.trying()
    assert again.begin()
    assert again.tries == 1  # its own try does not count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_trial_that_is_stopped_from_outside_does_not_count(setup: Setup, runs: Runs, number: int) -> None:
    """As an init system stops all processes of a service."""
    runs(killed_by(number))
    for _ in range(MAX_TRIES + 1):
        with pytest.raises(ModelUnavailable), setup.worker().models.use(setup.model.name, setup.new):
            pass
    assert setup.trying().begin()


def test_a_worker_that_is_stopped_does_not_count_its_trial(setup: Setup, runs: Runs, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    runs(f"open({str(gate)!r}).read()")
    one = setup.worker()

    def load() -> None:
        with suppress(ModelUnavailable), one.models.use(setup.model.name, setup.new):
            pass

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    with gate.open("w"):  # the trial runs
        version_trials.forget()
        again = setup.trying()
        assert again.begin()
        assert again.tries == 1
    loading.join(60)


def test_a_worker_with_a_handle_of_the_gpu_s_driver_can_try(setup: Setup, runs: Runs) -> None:
    count = runs('print(\'{"fault": "", "reason": ""}\')')
    one = setup.worker()
    one.models._trials._device = choose("cpu")._replace(gpu=Gpu(signal, object()))  # a module, as NVML's
    with one.models.use(setup.model.name, setup.new):
        assert count() == 1


def test_an_answer_of_the_trial_is_the_reason(setup: Setup, runs: Runs) -> None:
    runs('print(\'{"fault": "version", "reason": "its result is noise"}\')')
    one = setup.worker()
    with pytest.raises(ModelRefused, match="failed its check: its result is noise"):
        one.models.use(setup.model.name, setup.new).__enter__()


def test_a_single_worker_with_a_version_that_crashes_says_so_and_does_not_loop(setup: Setup, runs: Runs) -> None:
    count = runs(killed_by(signal.SIGSEGV))
    setup.label()
    setup.store.put(keys.labels(setup.model.name), json.dumps({"labels": {"stable": "2"}}).encode())
    for _ in range(2):  # the second is a restarted process
        with pytest.raises(ModelError, match=r"No version of model .* can be served.*SIGSEGV"):
            setup.worker().watcher.prepare(setup.model.name)
    assert count() == 1


def test_a_job_waits_for_the_verdict_of_another_worker(
    setup: Setup, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(killed_by(signal.SIGSEGV))
    other = setup.trying()
    assert other.begin()
    one = setup.worker()
    with monkeypatch.context() as impatient:
        impatient.setattr(version_trials, "TRIAL_SECONDS", 0.1)
        with pytest.raises(WorkerUnavailable), one.models.use(setup.model.name, setup.new):
            pass
    other.end()
    with pytest.raises(ModelRefused), one.models.use(setup.model.name, setup.new):
        pass  # at once: that another worker tried it is remembered of no version


def test_an_unreadable_verdict_is_as_none(setup: Setup, runs: Runs) -> None:
    count = runs('print(\'{"fault": "", "reason": ""}\')')
    setup.redis.hset(setup.trying()._verdicts, version_trials._kind(choose("cpu")), "well")
    with setup.worker().models.use(setup.model.name, setup.new) as loaded:
        assert loaded.model.manifest.version == "2"
    assert count() == 1


def test_the_process_of_a_trial_sees_no_credentials(setup: Setup, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "UPRES_REDIS_URL"):
        monkeypatch.setenv(name, "secret")
    runs('import json; print(json.dumps({"fault": "version", "reason": " ".join(sorted(os.environ))}))')
    with pytest.raises(ModelRefused) as refused, setup.worker().models.use(setup.model.name, setup.new):
        pass
    assert "PYTHONPATH" in str(refused.value)
    assert not {"AWS_SECRET_ACCESS_KEY", "UPRES_REDIS_URL"} & set(str(refused.value).split())
    assert os.environ["UPRES_REDIS_URL"] == "secret"
