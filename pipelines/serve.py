"""Serve the flows: `reproduce` on request, `retrain` on the schedule `retrain.cron` of params.yaml.

Start a Prefect server first (`prefect server start`, PREFECT_API_URL=http://127.0.0.1:4200/api), then, in the
repository, `python -m pipelines.serve`. A changed cron takes effect when this is started again.
"""

from __future__ import annotations

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType
from prefect.schedules import Cron

from dicetalk.config import load_params

from .reproduce import reproduce
from .retrain import retrain


def main() -> None:
    """Serve until interrupted."""
    # A run that is still going when the next is due makes the next one pointless.
    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    by_module = EntrypointType.MODULE_PATH  # found from any working directory
    serve(
        reproduce.to_deployment("on-request", concurrency_limit=one_at_a_time, entrypoint_type=by_module),
        retrain.to_deployment(
            "scheduled",
            schedules=[Cron(load_params().retrain.cron, timezone="UTC")],
            concurrency_limit=one_at_a_time,
            entrypoint_type=by_module,
        ),
        limit=1,  # the two share one working directory
        pause_on_shutdown=False,  # a restart continues the schedule
    )


if __name__ == "__main__":
    main()
