"""Checks of the versions that labels mean: those that workers do not load, because they failed their check."""

from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError

from upres.console.doctor.finding import Finding, warning
from upres.core import registry, served_models, verdicts
from upres.core.errors import UpresError
from upres.core.storage import Store


def check(redis: Redis, store: Store) -> Iterator[Finding]:
    """Yield a warning for each version that a label means and workers refuse, with the reason."""
    try:
        known = registry.index(store).models
        for name, entry in known.items():
            digests = {one.version: one.digest for one in entry.versions}
            offer = served_models.published(redis, name)
            for version in dict.fromkeys(entry.labels.labels.values()):
                found = verdicts.against(redis, name, digests[version]) if version in digests else []
                reason = next((one.reason for one in found), (offer.refused if offer else {}).get(version))
                if reason:
                    fix = (
                        f"Push a version that can be loaded, or give the label back: upres models label {name} …; or "
                        f"have it tried again: upres models retry {name} {version}"
                    )
                    yield warning(f"model {name}", f"{version} is not served: {reason}", fix)
    except (UpresError, RedisError):
        return  # the checks of Redis and of the store say so
