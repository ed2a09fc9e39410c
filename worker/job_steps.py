"""The models of a job: in memory while the job runs, applied one after the other."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from upres.core.job_message import JobMessage, JobModel
from upres.core.served_models import ModelRef
from upres.worker.context import WorkerContext
from upres.worker.engine.engine import Engine
from upres.worker.engine.steps import Steps
from upres.worker.report import Report


@contextmanager
def opened(context: WorkerContext, job: JobMessage, report: Report) -> Iterator[Steps]:
    """Give the steps of a job for the block; models that are not in memory are loaded first.

    No job waits for memory while it holds a model (see ModelCache), so two jobs may load two models in either order.
    """
    with ExitStack() as stack:
        engines: list[Engine] = []
        for model in job.models:
            report.works_with(model)
            engines.append(_load(context, model, report, stack))

        def begin(engine: Engine) -> None:
            report.works_with(job.models[engines.index(engine)])
            report.upscaling(engine)

        *first, main = engines
        yield Steps(main, first[0] if first else None, begin)


def _load(context: WorkerContext, model: JobModel, report: Report, stack: ExitStack) -> Engine:
    """Return the engine of a model, which stays in memory until `stack` is closed."""
    if not context.models.has(model.digest, model.strength):
        report.notice(f"Model {model} is being loaded.")
    ref = ModelRef(version=model.version, digest=model.digest, factors=())
    return stack.enter_context(context.models.use(model.name, ref, model.strength)).engine
