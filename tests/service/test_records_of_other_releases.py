"""Records and documents that this release cannot read, or only in part: they stop nothing, and none of them is lost."""

import json
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from tests.service.test_label_watcher import One, served
from tests.service.test_label_watcher import model as model
from tests.support.pushing import Pushed
from tests.support.servers import function, post_job
from upres.core import api_keys, keys, registry, registry_changes
from upres.core.errors import ModelError
from upres.core.storage import Store
from upres.core.webhooks import Due
from upres.embedded.stack import Local
from upres.worker.outage_log import OutageLog
from upres.worker.webhooks import WebhookDispatcher


@pytest.mark.parametrize("content", [b"no labels", b'{"labels": {"stable": "', b"{}", b"[]", b""])
def test_workers_go_on_serving_what_they_have_while_a_label_file_cannot_be_read(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed, content: bytes
) -> None:
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    record = keys.served_model(model.name)
    model.store.put(keys.labels(model.name), content)
    isolated_redis.expire(record, 5)
    with pytest.raises(ModelError):
        one.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}
    assert isolated_redis.ttl(record) > 5
    isolated_redis.delete(record)
    with pytest.raises(ModelError):
        one.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}


def test_fields_of_a_newer_release_in_labels_and_rule_stay_there(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    """An older release that serves, relabels and reindexes reads what it knows, and writes back the rest."""
    one = One(local, isolated_redis, store, model.name)
    newer = {"labels": {"stable": "1"}, "rule": {"jobs": 9, "most_failed_percent": 5, "hours": 3}, "region": "eu"}
    model.store.put(keys.labels(model.name), json.dumps(newer).encode())
    one.refresh()
    published = json.loads(cast(bytes, isolated_redis.get(keys.served_model(model.name))))
    assert published["rule"]["hours"] == 3
    registry_changes.relabel(store, model.name, {"blue": "2"})
    stored = json.loads(store.get(keys.labels(model.name)))
    assert (stored["region"], stored["rule"]["hours"], stored["labels"]) == ("eu", 3, {"stable": "1", "blue": "2"})
    assert registry.index(store).models[model.name].labels.rule


def test_a_version_of_a_newer_release_is_this_workers_trouble_and_refused_for_no_other(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    """Newer workers can serve it: an older one must not tell them, nor the functions, that it failed its check."""
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    newer = json.loads(store.get(keys.model(model.name, "2", "manifest.json"))) | {"schema_version": 99}
    registry_changes.relabel(store, model.name, {"stable": "2"})
    model.put("manifest.json", json.dumps(newer).encode(), "2")
    one.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}
    published = json.loads(cast(bytes, isolated_redis.get(keys.served_model(model.name))))
    assert not published["refused"]
    assert "of a newer upres" in one.watcher.troubles[model.name]


def test_a_key_whose_record_cannot_be_read_is_not_called_invalid(local: Local, redis: Redis, tmp_path: Path) -> None:
    key, text = api_keys.create(redis, "somebody")
    redis.hset(keys.API_KEYS, key.key_id, "damaged")
    for guarded in function(local, tmp_path, UPRES_ACCESS="keys"):
        answer = post_job(guarded, text)
    redis.hdel(keys.API_KEYS, key.key_id)
    assert (answer.status_code, answer.json()["code"]) == (503, "function_unavailable")
    assert "damaged" not in answer.text


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ('{"type": "succeeded", "at": "2026-01-01T00:00:00Z", "result": {"pages": []}}', {"result": {"pages": []}}),
        ('{"type": "succeeded"}', {"type": "succeeded"}),
        ("[1]", {}),
        ("no JSON", {}),
    ],
)
def test_the_webhook_of_an_end_that_cannot_be_read_is_sent_with_what_there_is(
    local: Local, store: Store, stored: str, sent: dict[str, object]
) -> None:
    dispatcher = WebhookDispatcher(local.settings, store, OutageLog("Redis"))
    data = json.loads(dispatcher._body(Due("0" * 32, 1, "http://receiver", "", stored)))["data"]
    assert data.items() >= {"job_id": "0" * 32, **sent}.items()
