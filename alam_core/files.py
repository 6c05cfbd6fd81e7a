"""Files that are either whole or not there."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: str | Path, values: Any) -> None:
    """Write ``values`` as indented JSON; whoever reads ``path`` meanwhile finds the old content or the new. Raises OSError."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    os.replace(temporary, path)
