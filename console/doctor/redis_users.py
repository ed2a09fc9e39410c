"""Checks that no user of Redis can be used with an empty password."""

from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from upres.console.doctor.finding import Finding, fault, ok

USERS = ("function", "worker", "gateway", "operator", "scaler")
"""The users in infra/redis/users.acl and infra/kubernetes/scaler.acl."""


def check(redis: Redis, url: str) -> Finding:
    """Try to log in with empty passwords: an unset variable in a file of users makes such ones.

    Where Redis is used with a user, the user «default», as whom everybody is logged in, must be off. Raises
    redis-py's errors when the connection breaks.
    """
    users = [*USERS, "default"] if urlsplit(url).username not in (None, "", "default") else list(USERS)
    found = [user for user in users if _accepts_empty(redis, user)]
    if not found:
        return ok("Redis passwords", "none is empty")
    fix = "Give each user a password (infra/redis/users.sh makes the file for --aclfile), and turn default off."
    return fault("Redis passwords", f"everybody can log in as {', '.join(found)}, with an empty password", fix)


def _accepts_empty(redis: Redis, user: str) -> bool:
    """Whether a user exists and has an empty password, or none. Uses a connection of its own."""
    pool = redis.connection_pool
    once = {"retry": Retry(NoBackoff(), 0), "credential_provider": None}
    connection = pool.connection_class(**{**pool.connection_kwargs, **once, "username": user, "password": ""})
    try:
        connection.connect()
    except NoPermissionError:
        return True
    except AuthenticationError:
        return False
    finally:
        connection.disconnect()
    return True
