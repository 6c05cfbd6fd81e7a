"""Measures LeRobot's own reader. ``lerobot_process.py`` runs this script with LeRobot's python; it
reads requests from stdin and writes answers to stdout, one JSON line each. It imports nothing of
this project.

Request: {"kind": "items" or "triplets", "indices": [...], "workers": n, "batch": n}. Answer:
{"seconds", "cpu_seconds"} without workers, {"seconds", "counted"} with workers. The answer to
{"kind": "frames", "indices": [...]} is {"means"}: the mean colour, 0 to 255, of each view of each
frame.
"""

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    root, gap = sys.argv[1], int(sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print, but not among answers
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    torch.set_num_threads(1)  # more threads only slow down images this small
    single = LeRobotDataset("local/benchmark", root=root)
    times = [0.0, gap / single.fps, 2 * gap / single.fps]
    triple = LeRobotDataset(
        "local/benchmark",
        root=root,
        delta_timestamps={key: times for key in single.meta.video_keys},
    )
    import importlib.metadata

    versions = {
        name: importlib.metadata.version(name) for name in ("lerobot", "torchcodec", "torch")
    }
    print(
        json.dumps(
            {"ready": True, "backend": single.video_backend, "items": len(single), **versions}
        ),
        file=answers,
        flush=True,
    )
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(serve(request, single, triple)), file=answers, flush=True)


def serve(request: dict[str, Any], single: Any, triple: Any) -> dict[str, Any]:
    import torch

    if request["kind"] == "frames":
        keys = single.meta.video_keys
        return {
            "means": [
                [(255 * single[i][key]).mean((1, 2)).tolist() for key in keys]
                for i in request["indices"]
            ]
        }
    dataset = single if request["kind"] == "items" else triple
    if request["workers"] == 0:
        started, cpu = time.perf_counter(), time.process_time()
        for i in request["indices"]:
            dataset[i]
        return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    from lerobot.datasets.video_utils import _default_decoder_cache

    _default_decoder_cache.clear()  # open decoders do not survive the fork
    batch = request["batch"]
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=batch, sampler=request["indices"], num_workers=request["workers"]
    )
    batches = iter(loader)
    ahead = 2 * request["workers"]  # batches decoded before the clock starts do not count
    for _ in range(ahead):
        next(batches)
    started, count = time.perf_counter(), 0
    for _ in batches:
        count += batch
    return {"seconds": time.perf_counter() - started, "counted": count}


if __name__ == "__main__":
    main()
