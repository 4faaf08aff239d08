"""A run's points in MLflow, as root may read them."""

from __future__ import annotations

from conf.credentials import set_mlflow_account
from conf.site_schema import Site
from hpc.jobs.run.folder import Run
from hpc.train.tracking import RUN_TAG
from scripts.train_punish.failure import PunisherFailed

RUNS = 100


def tracked_points(site: Site, run: Run) -> tuple[dict[tuple[str, int, int], str], str]:
    """The points of `run` by metric, step and milliseconds since 1970, and its status there.

    Raises `PunisherFailed` where MLflow has not one run of that name.
    """
    set_mlflow_account(site.paths.passwords)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=site.mlflow_uri)
    try:
        experiment = client.get_experiment_by_name(run.spec.task)
        ids = [experiment.experiment_id] if experiment else []
        found = client.search_runs(ids, f"tags.`{RUN_TAG}` = '{run.name}'", max_results=RUNS)
        if len(found) != 1:
            raise PunisherFailed(f"MLflow has {len(found)} runs called {run.name}, not one")
        points = {
            (key, one.step, one.timestamp): float(one.value).hex()
            for key in found[0].data.metrics
            for one in client.get_metric_history(found[0].info.run_id, key)
        }
    except MlflowException as error:
        raise PunisherFailed(f"MLflow: {str(error).splitlines()[0]}") from None
    return points, str(found[0].info.status)
