"""An object store that honours conditional writes; rclone's, in the fixture `local`, ignores them."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from upres.core.settings import Settings
from upres.core.storage import Store


@contextmanager
def honouring(bucket: str, redis_url: str) -> Iterator[Store]:
    """Run moto's S3, which honours conditional writes; yields a new bucket in it.

    Its threads may interleave the look at a condition and the write, so it answers one request at a time.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        settings = Settings(
            s3_bucket=bucket, s3_endpoint_url=f"http://127.0.0.1:{server.server_port}", redis_url=redis_url
        )
        store = Store(settings, boto3.session.Session("somebody", "secret", region_name="us-east-1"))
        store._s3.writer.create_bucket(Bucket=bucket)
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
