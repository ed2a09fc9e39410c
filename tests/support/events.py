"""Example events of jobs, for tests that submit no job."""

from datetime import datetime, timedelta

from upres.core.schema import Queued, Result, Started, now

RESULT = Result(
    sr_image_url="http://h/sr", sr_image_uri="s3://b/sr", original_image_url="http://h/o", original_image_uri="s3://b/o",
    upscale_factor=4, width=8, height=8, format="png", file_name="x.png",
    model="m", model_version="1", model_digest="0" * 64, device="d",
    seconds={"fetch": 0.1},
)  # fmt: skip


def queued(job_id: str) -> Queued:
    return Queued(
        job_id=job_id,
        upscale_factor=4,
        model="faithful",
        model_version="1",
        output_format="auto",
        position=3,
        deadline=soon(),
    )


def soon() -> datetime:
    return now() + timedelta(hours=1)


def started(job_id: str, attempt: int = 1) -> Started:
    return Started(
        job_id=job_id,
        worker="w",
        device="d",
        model="faithful",
        model_version="1",
        model_digest="0" * 64,
        attempt=attempt,
        waited_seconds=1,
    )
