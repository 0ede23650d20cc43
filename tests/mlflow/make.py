"""What a team does with MLflow, for tests: models are logged, registered and given aliases, and a webhook is made.

    make.py models                 two versions of `search` (ONNX, logged as files), and one of `shelf` (scikit-learn)
    make.py webhook URL SECRET     a webhook, tried once; then `search` gets the alias `champion` on its version 2

The server is that of MLFLOW_TRACKING_URI. Prints JSON.
"""

import json
import os
import sys
import tempfile
import warnings

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
warnings.simplefilter("ignore")

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

MLMODEL = """artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_version: 1.16.0
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    env:
      conda: conda.yaml
    loader_module: mlflow.onnx
run_id: {run}
"""


def search(client, text, source):
    """Logs a model as mlflow.onnx does, and registers it from the run, or from where its files are."""
    import numpy

    with mlflow.start_run(run_name=text) as run:
        mlflow.log_params({"trees": 130, "depth": 6})
        mlflow.log_metrics({"ndcg_10": 0.743, "loss": float("nan")})
        mlflow.set_tags({"night": "2026-08-01", "mlflow.source.git.commit": "9b2e1c4d"})
        clicks = mlflow.data.from_numpy(numpy.zeros((3, 2)), name="clicks-july")
        mlflow.log_input(clicks, context="training")
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "model.onnx"), "w") as file:
                file.write(text)
            with open(os.path.join(folder, "MLmodel"), "w") as file:
                file.write(MLMODEL.format(run=run.info.run_id))
            client.log_artifacts(run.info.run_id, folder, "model")
        place = {"run": f"runs:/{run.info.run_id}/model", "files": f"{run.info.artifact_uri}/model"}[source]
        version = client.create_model_version("search", place, run.info.run_id, description=f"{text}, tonight")
        client.set_model_version_tag("search", version.version, "team", "ranking")
        return run.info.run_id


def models(client):
    from sklearn.linear_model import LinearRegression

    client.create_registered_model("search")
    runs = [search(client, "the first model", "run"), search(client, "the second model", "files")]
    client.set_registered_model_alias("search", "candidate", "1")
    ranker = LinearRegression().fit([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]], [1.0, 2.0, 3.0])
    mlflow.sklearn.log_model(ranker, name="shelf", registered_model_name="shelf")
    print(json.dumps({"runs": runs}))


def webhook(client, url, secret):
    made = client.create_webhook("switchback", url, ["model_version_alias.created"], secret=secret)
    tried = client.test_webhook(made.webhook_id)
    client.set_registered_model_alias("search", "champion", "2")
    print(json.dumps({"status": tried.response_status, "body": tried.response_body, "error": tried.error_message}))


if __name__ == "__main__":
    {"models": models, "webhook": webhook}[sys.argv[1]](MlflowClient(), *sys.argv[2:])
