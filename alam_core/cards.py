"""Model cards: the README.md of a checkpoint, which consists of YAML metadata for the model hub and
Markdown text.
"""

from huggingface_hub import EvalResult, ModelCard, ModelCardData

LICENSE = "apache-2.0"
LIBRARY = "alam"


def model_card(
    title: str, body: str, *, tags: list[str], dataset: str | None, metrics: dict[str, float]
) -> str:
    """The text of a model card: YAML front matter, the title as a heading, then ``body``.

    tags: labels under which the model hub lists the model, such as "robotics". dataset: name of the
    training data, None to leave it out. metrics: name -> value, a few values measured by the run
    that writes the card; they go into the front matter. No network is used.
    """
    results = [
        EvalResult(
            task_type="robotics",
            dataset_type=dataset or "unknown",
            dataset_name=dataset or "unknown",
            metric_type=name,
            metric_value=float(value),
        )
        for name, value in metrics.items()
    ]
    data = ModelCardData(
        license=LICENSE,
        library_name=LIBRARY,
        tags=tags,
        datasets=[dataset] if dataset else None,
        metrics=list(metrics) or None,
        model_name=title if results else None,
        eval_results=results or None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {title}\n\n{body.strip()}\n"))
